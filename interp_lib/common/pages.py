"""What pages that are one file have in common: frames as sheets inside the page, one look, one way to write them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .pictures import data_uri, encoded

SHEET_SIDE = 2_048  # pixels: every browser can decode that, an old phone's too
QUALITY = 88
# Named here, not in the templates, so that `interp reproduce` notices when they change.
_SHARED = {"style": "common/page.css.j2", "script": "common/page.js.j2"}


class ExplorerInfo(NamedTuple):
    """What was written: the file's size, and how many states are in it."""

    bytes: int
    states: int


def frame_geometry(frames: np.ndarray) -> dict[str, Any]:
    """What the page's script needs to find a frame of (n, H, W, 3): its size, and how many a sheet has each way."""
    height, width = frames.shape[1:3]
    return {"tile": [width, height], "grid": [max(1, SHEET_SIDE // width), max(1, SHEET_SIDE // height)]}


def sheets(frames: np.ndarray) -> list[str]:
    """Frames uint8 (n, H, W, 3) as WebP data URIs, each a sheet of them, line by line; unused places are black.

    One sheet compresses better than its frames, and is decoded at once.
    """
    height, width = frames.shape[1:3]
    columns, lines = frame_geometry(frames)["grid"]
    uris = []
    for first in range(0, len(frames), columns * lines):
        part = frames[first : first + columns * lines]
        used = -(-len(part) // columns)
        sheet = np.zeros((used * columns, *part.shape[1:]), np.uint8)
        sheet[: len(part)] = part
        sheet = sheet.reshape(used, columns, height, width, 3).swapaxes(1, 2)
        sheet = sheet.reshape(used * height, columns * width, 3)
        uris.append(data_uri(encoded(sheet, "webp", quality=QUALITY, method=4, use_sharp_yuv=True), "webp"))
    return uris


def render_page(template: str, **values: Any) -> str:
    """Fill a template of this package; what it names as text is escaped.

    Args:
        template: file name; it includes ``style`` and ``script``, which pages share.
        values: what it shows. ``data`` is what its script reads.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("interp_lib", "."), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    return environment.get_template(template).render(**_SHARED, **values)
