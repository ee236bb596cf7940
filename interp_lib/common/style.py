"""One look for every figure: sizes that read at a glance, colours that survive colour blindness.

The cluster colours were found by hill climbing from the Okabe-Ito palette (Okabe & Ito, 2008) for the largest
smallest distance in OKLab over normal vision and full protanopia, deuteranopia and tritanopia as simulated by
Machado, Oliveira & Fernandes (2009): the closest two are 0.128 apart under their worst case, Okabe-Ito's 0.076.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from PIL.ImageFont import FreeTypeFont

# One colour a code: SPPO has K = 8.
CLUSTER_COLORS: tuple[str, ...] = (
    "#014BC9", "#EBAC00", "#019B72", "#B66CCF", "#58C7EF", "#F54902", "#55136B", "#8B4330",
)  # fmt: skip

PUBLISHED = "#A7ACB3"  # what others measured
INK = "#1F2328"
MUTED = "#57606A"  # second to INK: ticks, remarks
GRID = "#E3E6EA"


def cluster_color(k: int) -> str:
    """Colour of cluster or prototype ``k`` as ``#RRGGBB``; the same ``k`` always gets the same colour.

    The first eight are told apart by colour alone. From the ninth on they come back lighter, then darker (24 in
    all, then round again): label those too.

    Raises:
        ValueError: ``k`` is negative.
    """
    if k < 0:
        raise ValueError(f"cluster numbers start at 0, got {k}")
    base = CLUSTER_COLORS[k % len(CLUSTER_COLORS)]
    target, share = ((255, 0.0), (255, 0.45), (0, 0.4))[k // len(CLUSTER_COLORS) % 3]
    channels = (int(base[i : i + 2], 16) for i in (1, 3, 5))
    return "#" + "".join(f"{round(c + (target - c) * share):02X}" for c in channels)


def readable_ink(color: str) -> str:
    """Black or white, whichever is easier to read on ``color`` (#RRGGBB; WCAG relative luminance)."""
    channels = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    luminance = np.dot(linear, (0.2126, 0.7152, 0.0722))
    return "#000000" if (luminance + 0.05) / 0.05 > 1.05 / (luminance + 0.05) else "#ffffff"


def show_state(axes: Axes, picture: np.ndarray, color: str, *, width: float = 2.2) -> None:
    """A state's picture in a coloured border."""
    axes.imshow(picture, interpolation="antialiased")
    axes.set(xticks=[], yticks=[])
    axes.grid(False)
    for spine in axes.spines.values():
        spine.set(visible=True, color=color, linewidth=width)


def show_deviation(deviation: np.ndarray, most: float = 4.0) -> np.ndarray:
    """How one image differs from another, (H, W, 3), on grey and enlarged up to ``most`` times → uint8 (H, W, 3)."""
    gain = np.clip(110 / max(np.percentile(np.abs(deviation), 99.5), 1e-9), 1, most)
    return np.clip(128 + gain * deviation, 0, 255).round().astype(np.uint8)


@functools.cache
def picture_font(size: int, *, bold: bool = False) -> FreeTypeFont:
    """matplotlib's own font in ``size`` pixels, so that what Pillow draws looks like the figures beside it."""
    from matplotlib.font_manager import FontProperties, findfont
    from PIL import ImageFont

    return ImageFont.truetype(findfont(FontProperties(family="DejaVu Sans", weight="bold" if bold else "normal")), size)


def use_style() -> None:
    """Set matplotlib's rcParams for this project; call it once, before the first figure.

    Sizes are in points for a figure shown at its own size: 10 pt text, 300 dpi when saved.
    """
    import matplotlib as mpl
    from cycler import cycler

    # First what matplotlib comes with, where a matplotlibrc here or at home says otherwise; the backend stays.
    found, default = mpl.rcParamsOrig, mpl.rcParamsDefault
    changed = {name: value for name, value in default.items() if name != "backend" and found[name] != value}
    mpl.rcParams.update(changed)  # type: ignore[arg-type]  # names are listed one by one
    mpl.rc("figure", figsize=(6.4, 4.0), dpi=110, facecolor="white", titlesize=13, titleweight="bold")
    mpl.rc("figure.constrained_layout", use=True)
    mpl.rc("savefig", dpi=300, bbox="tight", pad_inches=0.06, facecolor="white")
    mpl.rc("font", size=10, family="sans-serif")
    mpl.rcParams["font.sans-serif"] = ["DejaVu Sans"]  # comes with matplotlib, so figures are the same everywhere
    mpl.rc("text", color=INK)
    mpl.rc("axes", titlesize=11, titleweight="bold", titlelocation="left", titlepad=8, labelcolor=INK, labelsize=10)
    mpl.rc("axes", edgecolor="#8C939B", linewidth=0.8, grid=True, axisbelow=True)
    mpl.rc("axes", prop_cycle=cycler(color=CLUSTER_COLORS))
    mpl.rc("axes.spines", top=False, right=False)
    mpl.rc("grid", color=GRID, linewidth=0.7)
    mpl.rc("lines", linewidth=1.8, solid_capstyle="round")
    mpl.rc("xtick", color=MUTED, labelsize=9)
    mpl.rc("ytick", color=MUTED, labelsize=9)
    mpl.rc("xtick.major", size=3)
    mpl.rc("ytick.major", size=3)
    mpl.rc("legend", frameon=False, fontsize=9)
    mpl.rc("image", interpolation="nearest")  # game frames are 64 x 64: show pixels, not a blur
    mpl.rc("pdf", fonttype=42)  # text stays text in the PDF
    mpl.rc("svg", fonttype="none")
