"""What a notebook leaves behind: pictures, videos and tables, each with a note that says where it came from.

    figures/<notebook>/<name>.png    the output (.mp4 and .webp for videos, .csv for tables, figures also .pdf)
    figures/<notebook>/<name>.json   its sidecar: caption, notebook, source runs, parameters, SHA-256, order

The report is built from the sidecars alone, so nothing gets in without a caption and a source.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import InterpError
from .pictures import encoded
from .storage import atomic_write, read_json, write_json
from .videos import iterate_frames, write_animation, write_mp4

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure
    from matplotlib.transforms import Bbox

# Where files lie says nothing about what is in them, and differs between machines.
_NOT_PROVENANCE = frozenset({"figures_dir", "checkpoints_dir", "runs_dir"})

ANIMATION_WIDTH = 192  # pixels

Run = str | os.PathLike[str]


@dataclass(frozen=True)
class SourceRun:
    """A training run behind an output: its name, and its folder relative to the figures folder, if it has one."""

    name: str
    folder: str | None = None


@dataclass(frozen=True)
class Output:
    """One output as its sidecar describes it.

    ``files`` maps file names, the main one first, to SHA-256; ``width`` and ``height`` are pixels (0 for tables).
    """

    name: str
    kind: str
    caption: str
    notebook: str
    sequence: int
    files: dict[str, str]
    runs: list[SourceRun] = field(default_factory=list)
    parameters: dict[str, Any] = field(default_factory=dict)
    width: int = 0
    height: int = 0

    @property
    def file(self) -> str:
        """Name of the main file."""
        return next(iter(self.files))


class Outputs:
    """Saves the outputs of one notebook below ``folder``; see the module's layout.

    Every method returns the path of the file it wrote. Saving a name again replaces it atomically and keeps its
    place in the report.

    Args:
        folder: the figures folder.
        notebook: name or path of the notebook; its stem names the subfolder.
        parameters: the notebook's parameters, kept with every output.
    """

    def __init__(self, folder: Path | str, notebook: Path | str, *, parameters: Mapping[str, Any] | None = None):
        self.folder = Path(folder)
        self.notebook = Path(notebook).name.removesuffix(".ipynb")
        kept = {k: v for k, v in (parameters or {}).items() if k not in _NOT_PROVENANCE}
        self.parameters: dict[str, Any] = json.loads(json.dumps(kept, default=str))
        self._numbers: dict[str, int] = {}

    def figure(self, fig: Figure, name: str, caption: str, runs: Iterable[Run] = (), *, pdf: bool = True) -> Path:
        """Save a matplotlib figure as PNG (300 dpi) and, unless ``pdf`` is False, as PDF.

        No dates or versions go into the files: the same figure gives the same bytes.
        """
        from PIL import Image

        files = {f"{name}.png": _render(fig, "png", {"Software": None})}
        width, height = Image.open(io.BytesIO(files[f"{name}.png"])).size
        if pdf:
            undated = {"CreationDate": None, "Creator": None, "Producer": None}
            files[f"{name}.pdf"] = _render(fig, "pdf", undated, _laid_out(fig))
        return self._save("figure", name, caption, runs, files, width, height)

    def video(
        self, frames: Iterable[Any], name: str, caption: str, runs: Iterable[Run] = (), *, fps: float = 8,
        animation: int = 0,
    ) -> Path:  # fmt: skip
        """Save frames (uint8, H x W x 3) or clips, joined end to end, as MP4, and the first frame as a poster.

        Args:
            animation: also a small looping WebP, of that many frames from the start, for where no player is at hand.

        Raises:
            InterpError: there are no frames.
        """
        first: list[np.ndarray] = []

        def keep_first() -> Iterable[np.ndarray]:
            for frame in iterate_frames(frames):
                if len(first) < max(animation, 1):
                    first.append(frame.copy())  # an environment may draw into the same buffer again
                yield frame

        old = self._retire(name)
        info = write_mp4(self._path(f"{name}.mp4"), keep_first(), fps)
        files: dict[str, bytes | None] = {
            f"{name}.mp4": None,
            f"{name}.poster.png": encoded(first[0], "png", optimize=True),
        }
        if animation:
            width = min(ANIMATION_WIDTH, first[0].shape[1])
            write_animation(self._path(f"{name}.webp"), first, fps, width=width)
            files[f"{name}.webp"] = None
        return self._save("video", name, caption, runs, files, info.width, info.height, old)

    def table(self, frame: pandas.DataFrame, name: str, caption: str, runs: Iterable[Run] = ()) -> Path:
        """Save a DataFrame as CSV at full precision; a named index becomes the first columns."""
        named = any(level is not None for level in frame.index.names)
        text = frame.to_csv(index=named, lineterminator="\n")
        return self._save("table", name, caption, runs, {f"{name}.csv": text.encode()})

    def image(self, array: np.ndarray, name: str, caption: str, runs: Iterable[Run] = ()) -> Path:
        """Save an image, uint8 (H, W, 3) or (H, W), as PNG, pixel for pixel."""
        array = np.asarray(array)
        if array.dtype != np.uint8 or array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (3, 4)):
            raise ValueError(f"an image is uint8 (H, W, 3) or (H, W); got {array.dtype} {array.shape}")
        height, width = array.shape[:2]
        return self._save(
            "image", name, caption, runs, {f"{name}.png": encoded(array, "png", optimize=True)}, width, height
        )

    def _path(self, file: str) -> Path:
        return self.folder / self.notebook / file

    def _retire(self, name: str) -> set[str]:
        """Take the sidecar away before its files change, so that what has a sidecar is whole; return those files."""
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name):
            raise ValueError(f"an output name is letters, digits, - and _ (it becomes a file name); got {name!r}")
        sidecar = self._path(f"{name}.json")
        if not sidecar.exists():
            return set()
        files = _listed_files(sidecar) or set()
        sidecar.unlink()
        return files

    def _save(
        self, kind: str, name: str, caption: str, runs: Iterable[Run], files: Mapping[str, bytes | None],
        width: int = 0, height: int = 0, old: Iterable[str] = (),
    ) -> Path:  # fmt: skip
        """Write ``files`` (None: is already there), then the sidecar; remove ``old`` files that have no successor."""
        paths = {file: self._path(file) for file in files}
        old = {*old, *self._retire(name)}
        for file, data in files.items():
            if data is not None:
                with atomic_write(paths[file]) as target:
                    target.write(data)
        for file in old - set(files):
            self._path(file).unlink(missing_ok=True)
        output = Output(
            name=name,
            kind=kind,
            caption=" ".join(caption.split()),
            notebook=self.notebook,
            sequence=self._numbers.setdefault(name, len(self._numbers) + 1),
            files={file: hashlib.sha256(path.read_bytes()).hexdigest() for file, path in paths.items()},
            runs=[self._source(run) for run in ([runs] if isinstance(runs, str | os.PathLike) else runs)],
            parameters=self.parameters,
            width=width,
            height=height,
        )
        write_json(self._path(f"{name}.json"), asdict(output))
        return next(iter(paths.values()))

    def _source(self, run: Run) -> SourceRun:
        path = Path(run)
        if not path.is_dir():
            return SourceRun(path.name)
        return SourceRun(path.resolve().name, Path(os.path.relpath(path.resolve(), self.folder.resolve())).as_posix())


def saved_outputs(folder: Path | str) -> dict[str, list[Output]]:
    """Read every sidecar below the figures folder: notebook name → its outputs in the order they were made.

    Raises:
        InterpError: a sidecar is damaged, or the file it describes is missing.
    """
    found: dict[str, list[Output]] = {}
    for sidecar in sorted(Path(folder).glob("*/*.json")):
        try:
            value = read_json(sidecar)
            if not _is_sidecar(value):
                continue  # somebody else's JSON, such as the results beside the executed notebooks
            runs = [SourceRun(**run) for run in value.pop("runs")]
            output = Output(**value, runs=runs)
        except (InterpError, TypeError, KeyError) as error:
            raise InterpError(f"{sidecar} can't be read as a sidecar. Run its notebook again.") from error
        missing = [file for file in output.files if not (sidecar.parent / file).is_file()]
        if missing:
            raise InterpError(f"{sidecar.parent / missing[0]} is missing. Run notebook {output.notebook} again.")
        found.setdefault(sidecar.parent.name, []).append(output)
    return {name: sorted(outputs, key=lambda o: (o.sequence, o.name)) for name, outputs in found.items()}


def clear_outputs(folder: Path | str, notebook: Path | str) -> None:
    """Remove what a notebook left behind before, so that old pictures never pass for new ones.

    Only sidecars and the files they list go; anything else in the folder stays.
    """
    place = Path(folder) / Path(notebook).name.removesuffix(".ipynb")
    for sidecar in place.glob("*.json"):
        files = _listed_files(sidecar)
        if files is not None:
            for file in files:
                (place / file).unlink(missing_ok=True)
            sidecar.unlink()
    with contextlib.suppress(OSError):  # not there, or not empty
        place.rmdir()


def read_table(path: Path | str) -> tuple[list[str], list[list[str]]]:
    """Read a table saved by `Outputs.table`: column names and rows of text."""
    with Path(path).open(newline="", encoding="utf-8") as file:
        rows = csv.reader(file)
        return next(rows, []), list(rows)


def _is_sidecar(value: Any) -> bool:
    return isinstance(value, dict) and {"kind", "sequence", "files"} <= value.keys()


def _listed_files(sidecar: Path) -> set[str] | None:
    """Names of the files that a sidecar lists: none where it is damaged, None where the JSON is somebody else's."""
    try:
        value = read_json(sidecar)
        return {Path(file).name for file in value["files"]} if _is_sidecar(value) else None
    except (InterpError, TypeError):
        return set()  # damaged: it would only stop the report


def _render(fig: Figure, file_format: str, metadata: dict[str, None], box: Bbox | str = "tight") -> bytes:
    buffer = io.BytesIO()
    fig.savefig(buffer, format=file_format, dpi=300, bbox_inches=box, facecolor="white", metadata=metadata)
    return buffer.getvalue()


def _laid_out(fig: Figure) -> Bbox:
    """Keep the layout of a figure that was drawn, and give its bounds: to find both again takes as long as to draw."""
    from matplotlib import rc_context, rcParams

    with rc_context({"figure.constrained_layout.use": False, "figure.autolayout": False}):
        fig.set_layout_engine(None)
    return fig.get_tightbbox().padded(rcParams["savefig.pad_inches"])
