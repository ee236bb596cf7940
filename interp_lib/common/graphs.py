"""A graph of what an agent is in, clusters or leading prototypes: where it goes from each, and then the picture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from .labels import covered, percent
from .statistics import NOTHING, columns, group_sums, ratio_interval
from .style import INK, cluster_color

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.path import Path

END, CUT = -1, -2  # what follows a stretch that no node follows: the episode ended, the recording ended


LEAST_PROBABILITY = 0.1  # of an arrow
LEAST_VISITS = 10  # one of four visits is 25%, and says nothing
_BENDS = (0.16, 0.3, 0.45, -0.3, -0.45, 0.6)  # how far an arrow bows out: the first that passes by the other pictures
_LABELS_AT = (0.36, 0.46, 0.28, 0.56, 0.66, 0.2, 0.76)  # where along it its label may be: the first that is free

Box = tuple[float, float, float, float]  # left, bottom, right, top


def transitions_between(found: pd.DataFrame, groups: int) -> pd.DataFrame:
    """What follows each cluster, and how often.

    Args:
        found: complete stretches: ``cluster``, ``next``, and ``env``, an int below ``groups`` that intervals resample.
        groups: how many environments, or episodes.

    Returns:
        index ``cluster``, ``next``; ``count``, and ``probability`` of ``next`` after ``cluster`` with its 95% interval.
    """
    rows = []
    for k, of_k in found.groupby("cluster"):
        visits = group_sums(np.ones(len(of_k)), of_k["env"], groups)
        for following, moves in of_k.groupby("next"):
            moved = group_sums(np.ones(len(moves)), moves["env"], groups)
            interval = ratio_interval(moved, visits)
            rows.append({"cluster": k, "next": following, "count": len(moves), **columns("probability", interval)})
    table = pd.DataFrame(rows, columns=["cluster", "next", "count", *columns("probability", NOTHING)])
    return table.astype({"cluster": int, "next": int, "count": int}).set_index(["cluster", "next"])


def spread_out(centres: Mapping[int, np.ndarray], least: float = 0.62) -> dict[int, np.ndarray]:
    """Places in about [−1, 1]² as in the map, but no two nearer than ``least``: close ones are pushed apart."""
    if not centres:
        return {}
    points = np.array([centres[k] for k in centres], dtype=np.float64)
    extent = np.maximum(np.ptp(points, axis=0), 1e-9)
    points = 2 * (points - points.min(0)) / extent - 1
    points += np.random.default_rng(0).normal(scale=1e-3, size=points.shape)  # two in one place go different ways
    for _ in range(500):
        apart = points[:, None] - points
        distance = np.linalg.norm(apart, axis=2) + 1e-9
        push = np.clip(least - distance, 0, None) * ~np.eye(len(points), dtype=bool)
        if not push.any():
            break
        points += 0.25 * (apart * (push / distance)[..., None]).sum(1)
    return dict(zip(centres, points, strict=True))


def draw_transitions(
    ax: Axes,
    transitions: pd.DataFrame,
    centres: Mapping[int, np.ndarray],
    shares: Mapping[int, float],
    images: Mapping[int, np.ndarray],
    dwell: Mapping[int, float],
    *,
    least: float = LEAST_PROBABILITY,
    names: Mapping[int, str] | None = None,
    smallest: float = 0.13,
    apart: float = 0.62,
) -> None:
    """Clusters where they lie in the map, arrows to those that follow with a probability of at least ``least``.

    A cluster that was left fewer than :data:`LEAST_VISITS` times gets no arrows of its own. Where one goes to
    :data:`END`, that is a node too.

    Args:
        transitions: of :func:`transitions_between`; arrows in the colour of the cluster left, as wide as they are
            probable.
        centres: (2,) place in the map by cluster; those too close to read are moved apart.
        shares: share of the states by cluster; the area of its picture.
        images: a state that stands for the cluster, uint8 (64, 64, 3).
        dwell: mean dwell time in steps.
        names: what to write on a cluster instead of its number.
        smallest: side of a picture at least, where the width of the graph is about 2.
        apart: the least distance between the centres of two pictures, in the same unit.
    """
    from matplotlib.patches import FancyArrowPatch

    visits = transitions["count"].groupby("cluster").transform("sum")
    strong = transitions["probability"][(transitions["probability"] >= least) & (visits >= LEAST_VISITS)].sort_values()
    ending = [k for k, following in strong.index if following == END and k in centres]
    place = spread_out({**centres, **({END: _aside(centres, ending)} if ending else {})}, apart)
    size = {k: float(np.clip(0.75 * np.sqrt(shares.get(k, 0)), smallest, 0.42)) for k in place}  # side, in data units
    corners = np.array([p + side * size[k] for k, p in place.items() for side in (-0.75, 0.75)])
    low, high = corners.min(0) - 0.08, corners.max(0) + 0.08
    ax.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), aspect="equal")
    box = ax.get_window_extent()
    point = max((high - low) / (box.width, box.height)) * ax.figure.dpi / 72  # in data units
    tag = (0.36 * max(map(len, (names or {0: ""}).values())) + 0.35) * 8.5 * point  # half the width of a name
    captions = {k: _caption_place(p, size[k], tag if names else 0.0) for k, p in place.items()}
    taken = {k: _boxes(p, size[k], captions[k], tag if names else 10 * point, point) for k, p in place.items()}
    if END in taken:
        del taken[END][1:]  # it has neither name nor caption
    labels: list[Box] = []
    for (k, following), probability in strong.items():
        if k not in place or following not in place:
            continue
        start, stop = place[k], place[following]
        others = [taken[other][0] for other in place if other not in (k, following)]
        middle = _passing_by(start, stop, others)
        path, left, reached = _trimmed(start, middle, stop, size[k] * 0.56, size[following] * 0.58)
        ax.add_patch(
            FancyArrowPatch(
                path=path, color=cluster_color(k), lw=0.8 + 7 * probability, alpha=0.8, capstyle="butt",
                arrowstyle=f"-|>,head_length={4 + 5 * probability:.1f},head_width={2.5 + 4 * probability:.1f}",
            )
        )  # fmt: skip
        along = [_on_curve(start, middle, stop, left + t * (reached - left)) for t in _LABELS_AT]
        label = (26 * point, 12 * point)
        full = [*(b for boxes in taken.values() for b in boxes), *labels]
        x, y = min(along, key=lambda at: covered(at, label, full))
        labels.append((x - label[0] / 2, y - label[1] / 2, x + label[0] / 2, y + label[1] / 2))
        ax.text(
            x, y, f"{probability:.0%}", fontsize=8, ha="center", va="center", color=INK, zorder=5,
            bbox={"boxstyle": "round,pad=0.12", "facecolor": "white", "edgecolor": "none", "alpha": 0.85},
        )  # fmt: skip
    for k, (x, y) in place.items():
        half = size[k] / 2
        if k == END:
            ax.text(
                x, y, "end", color="white", weight="bold", fontsize=9, ha="center", va="center", zorder=5,
                bbox={"boxstyle": "round,pad=0.5", "facecolor": INK, "edgecolor": "white"},
            )  # fmt: skip
            continue
        ax.imshow(images[k], extent=(x - half, x + half, y - half, y + half), zorder=3, aspect="auto")
        ax.plot(
            x + half * np.array([-1, 1, 1, -1, -1]), y + half * np.array([-1, -1, 1, 1, -1]), color=cluster_color(k),
            lw=3.5, zorder=4, solid_joinstyle="miter",
        )  # fmt: skip
        ax.text(
            x - half, y + half, (names or {}).get(k, f"{k}"), color="white", fontsize=8.5 if names else 11,
            weight="bold", ha="center", va="center", zorder=6,
            bbox={"boxstyle": "round,pad=0.25" if names else "circle,pad=0.2", "facecolor": cluster_color(k),
                  "edgecolor": "white"},
        )  # fmt: skip
        (caption_x, caption_y), align, vertical = captions[k]
        ax.text(
            caption_x, caption_y, f"{percent(shares[k])}, {dwell[k]:.1f} steps", fontsize=8.5,
            color=INK, ha=align, va=vertical, zorder=5,
            bbox={"boxstyle": "round,pad=0.1", "facecolor": "white", "edgecolor": "none", "alpha": 0.7},
        )  # fmt: skip
    ax.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), aspect="equal")  # as before the pictures came
    ax.axis("off")


def _aside(centres: Mapping[int, np.ndarray], ending: list[int]) -> np.ndarray:
    """A place for the end of episodes: beyond those of ``ending``, seen from the middle of all."""
    points, near = np.array(list(centres.values())), np.mean([centres[k] for k in ending], axis=0)
    return near + 0.5 * (near - points.mean(0))


def _caption_place(place: np.ndarray, size: float, tag: float) -> tuple[tuple[float, float], str, str]:
    """Where a caption goes, and how it is aligned: outside the ring that clusters often form, where few arrows are.

    Above, it starts beside the name in the picture's corner, whose half width is ``tag`` (0: it is centred).
    """
    x, y = place
    if y <= 0:
        return (x, y - size / 2 - 0.035), "center", "top"
    return ((x - size / 2 + tag, y + size / 2 + 0.035), "left", "bottom") if tag else (
        (x, y + size / 2 + 0.035), "center", "bottom",
    )  # fmt: skip


def _boxes(place: np.ndarray, size: float, caption: tuple, tag: float, point: float) -> list[Box]:
    """What a cluster takes: its picture, its caption and its name, ``2 * tag`` wide, at the picture's corner."""
    (x, y), align, vertical = caption
    width, height = 82 * point, 12 * point
    left = x - width / 2 if align == "center" else x
    bottom = y if vertical == "bottom" else y - height
    margin = size / 2 + 0.03
    picture = (place[0] - margin, place[1] - margin, place[0] + margin, place[1] + margin)
    corner_x, corner_y = place[0] - size / 2, place[1] + size / 2
    name = (corner_x - tag, corner_y - 10 * point, corner_x + tag, corner_y + 10 * point)
    return [picture, (left, bottom, left + width, bottom + height), name]


def _passing_by(start: np.ndarray, stop: np.ndarray, boxes: list[Box]) -> np.ndarray:
    """Middle control point of an arrow: the least bow with which it crosses the fewest of ``boxes``."""
    length = np.linalg.norm(stop - start)
    aside = np.array([1, -1]) * (stop - start)[::-1] / length
    middles = [(start + stop) / 2 + bend * length * aside for bend in _BENDS]
    left, bottom, right, top = np.array(boxes).reshape(-1, 4).T

    def crossed(middle: np.ndarray) -> int:
        x, y = _on_curve(start, middle, stop, np.linspace(0, 1, 60)[:, None]).T[..., None]
        return int(((x > left) & (x < right) & (y > bottom) & (y < top)).any(0).sum())

    return min(middles, key=crossed)


def _on_curve(start: np.ndarray, middle: np.ndarray, stop: np.ndarray, t: float | np.ndarray) -> np.ndarray:
    """Point of the quadratic Bézier curve at ``t``; points (n, 2) for ``t`` (n, 1)."""
    return (1 - t) ** 2 * start + 2 * t * (1 - t) * middle + t**2 * stop


def _trimmed(
    start: np.ndarray, middle: np.ndarray, stop: np.ndarray, before: float, after: float
) -> tuple[Path, float, float]:
    """The part of a curve that is at least ``before`` from its start and ``after`` from its end: path, t from, t to."""
    from matplotlib.path import Path

    t = np.linspace(0, 1, 400)
    curve = _on_curve(start, middle, stop, t[:, None])
    outside = (np.abs(curve - start).max(1) >= before) & (np.abs(curve - stop).max(1) >= after)
    if not outside.any():
        outside[:] = True
    left, reached = t[outside][[0, -1]]
    # de Casteljau: the control point of the part
    a, b = _on_curve(start, middle, stop, left), _on_curve(start, middle, stop, reached)
    control = (1 - left) * ((1 - reached) * start + reached * middle) + left * ((1 - reached) * middle + reached * stop)
    return Path([a, control, b], [Path.MOVETO, Path.CURVE3, Path.CURVE3]), float(left), float(reached)
