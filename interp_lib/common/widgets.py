"""What browsers are made of: frames, bars, an episode player, and whether anybody can see a widget."""

from __future__ import annotations

import html
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import ipywidgets
import numpy as np

from .labels import percent
from .pictures import data_uri, encoded
from .style import readable_ink
from .videos import write_animation

# JupyterLab's and VS Code's own colours, so that text can be read in light and dark themes.
STYLE = """<style>
.interp { color: var(--jp-ui-font-color1, var(--vscode-foreground, #1f2328)); line-height: 1.35; font-size: 13px; }
.interp img { image-rendering: pixelated; display: block; border-radius: 4px; background: #000; }
.interp b { font-weight: 600; }
.interp .soft { color: var(--jp-ui-font-color2, var(--vscode-descriptionForeground, #57606a)); }
.interp .chip { display: inline-block; min-width: 1.5em; padding: 0 .3em; border-radius: 1em; text-align: center;
  font-weight: 700; }
.interp .facts { display: grid; grid-template-columns: max-content auto; gap: 1px 10px; margin: 6px 0; }
.interp .bars { display: grid; grid-template-columns: max-content 1fr 3.2em; gap: 1px 8px; align-items: center;
  font-size: 11.5px; line-height: 1.25; }
.interp .bars i { display: block; height: 9px; border-radius: 2px; min-width: 1px; background: currentColor; }
.interp .bars i.other { opacity: .55; }
.interp .bars span:nth-child(3n) { text-align: right; font-variant-numeric: tabular-nums; }
.interp .row { display: flex; flex-wrap: wrap; gap: 14px; align-items: flex-start; }
.interp figure { margin: 0; } .interp figcaption { font-size: 11.5px; margin-top: 3px; }
.interp p { margin: 4px 0; }
</style>"""


def has_front_end() -> bool:
    """Whether the running cell was sent by a front end that can show widgets.

    nbval, papermill and nbconvert execute cells too, but would only store a widget's data in the notebook: megabytes
    that nobody can look at. JupyterLab and VS Code name the cell they run in the request's metadata, and JavaScript
    clients send no user name; Python's jupyter_client, which the others use, does the opposite.
    """
    try:
        from IPython import get_ipython

        request = get_ipython().kernel.get_parent()
    except (ImportError, AttributeError):  # plain Python, or IPython in a terminal
        return False
    return "cellId" in request.get("metadata", {}) or not request.get("header", {}).get("username")


def display_bundle(browser: Any, what: str) -> dict[str, Any]:
    """How a browser shows itself: its widget where one can be seen, and always a picture, which stays in a notebook.

    Args:
        browser: has ``widget`` and ``_repr_png_()``.
        what: a sentence for places that show neither.
    """
    bundle: dict[str, Any] = {
        "text/plain": f"{what} Run this cell in JupyterLab or VS Code to browse.",
        "image/png": browser._repr_png_(),
    }
    if has_front_end():
        bundle |= browser.widget._repr_mimebundle_()
    return bundle


def chip(text: object, color: str) -> str:
    """A small round label on ``color``."""
    return f'<span class="chip" style="background:{color};color:{readable_ink(color)}">{html.escape(str(text))}</span>'


def facts(said: Mapping[str, str]) -> str:
    """Names and what is said about them, as HTML, in two columns."""
    rows = "".join(f"<span class=soft>{name}</span><span>{text}</span>" for name, text in said.items())
    return f"<div class=facts>{rows}</div>"


def picture(frame: np.ndarray, width: int, alt: str = "") -> str:
    """An <img> of ``frame``, uint8 (H, W, 3), ``width`` CSS pixels wide with its pixels kept crisp."""
    data = encoded(frame, "png", compress_level=1)  # it is looked at once: speed before size
    return _image(data, "png", width, round(width * frame.shape[0] / frame.shape[1]), alt)


def moving_picture(frames: np.ndarray, width: int, alt: str = "", *, fps: float = 8) -> str:
    """An <img> that plays ``frames``, uint8 (T, H, W, 3), again and again."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.webp"
        # Lossy WebP halves the resolution of colour: doubled first, single pixels such as a small fruit keep theirs.
        write_animation(path, frames.repeat(2, axis=1).repeat(2, axis=2), fps)
        return _image(path.read_bytes(), "webp", width, round(width * frames.shape[1] / frames.shape[2]), alt)


def _image(data: bytes, kind: str, width: int, height: int, alt: str) -> str:
    return f'<img src="{data_uri(data, kind)}" width="{width}" height="{height}" alt="{html.escape(alt)}">'


def bars(names: Sequence[str], shares: np.ndarray, *, mark: int | None = None) -> str:
    """A horizontal bar for each share (0 to 1), in the order given, so that bars don't jump between two states.

    The longest bar fills its column, if it is at least a quarter; the numbers are exact.

    Args:
        mark: the entry that is set in bold, with a pointer.
    """
    full = max(0.25, float(np.nanmax(shares, initial=0)))
    rows = []
    for i, (name, share) in enumerate(zip(names, shares, strict=True)):
        label = f"<b>{html.escape(name)} ◂</b>" if i == mark else html.escape(name)
        written = percent(share) if np.isfinite(share) else ""
        width = 0 if not np.isfinite(share) else 100 * share / full
        rows.append(
            f'<span>{label}</span><span><i{" class=other" * (i != mark)} style="width:{width:.1f}%"></i></span>'
            f"<span>{written}</span>"
        )
    return f'<div class="bars">{"".join(rows)}</div>'


class FramePlayer(ipywidgets.HBox):
    """Play, pause and scrub through the steps of one episode.

    Args:
        on_step: called with the step that is to be shown, whenever the reader or the clock changes it.
        interval: milliseconds between two steps while playing.
    """

    def __init__(self, on_step: Callable[[int], None], *, interval: int = 125) -> None:
        self._on_step = on_step
        self._quiet = False
        self.play = ipywidgets.Play(min=0, max=0, interval=interval, show_repeat=False)
        self.slider = ipywidgets.IntSlider(
            min=0, max=0, description="step", continuous_update=True, layout={"width": "100%"},
            style={"description_width": "30px"},
        )  # fmt: skip
        ipywidgets.jslink((self.play, "value"), (self.slider, "value"))  # in the front end: no round trip for a step
        self.slider.observe(self._moved, "value")
        super().__init__([self.play, self.slider], layout={"width": "100%", "align_items": "center"})

    def show_episode(self, length: int, at: int) -> None:
        """Offer the steps 0 to ``length`` − 1 and stand at ``at``, without calling back."""
        self._quiet = True
        try:
            self.play.playing = False
            for control in (self.play, self.slider):
                control.max = max(length - 1, control.value)  # the value is never above: no message in between
                control.value = at
                control.max = length - 1
        finally:
            self._quiet = False

    def _moved(self, change: dict) -> None:
        if not self._quiet:
            self._on_step(change["new"])
