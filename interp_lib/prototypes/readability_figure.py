"""The picture of what readability costs. Every kind of agent has a marker of its own, so that no colour is needed."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ..agents.registry import ALGORITHMS
from ..common.style import INK, MUTED, PUBLISHED, cluster_color
from ..envs.names import env_title
from .likeness import LEAST_NEAR, MOST_SHARING, NEAR
from .readability import DISTILLED, ENCODER, LEAST_SCALED, MEDOIDS, OURS, SWEPT, front, settings_of_ours

_ROWS: tuple[tuple[str, str, float], ...] = (
    ("near", f"leader among the {NEAR} nearest", LEAST_NEAR),
    ("sharing", "prototypes that share a decision", MOST_SHARING),
)
_MARKS = {SWEPT: ("o", 5.0), DISTILLED: ("s", 6.5), MEDOIDS: ("D", 6.0), ENCODER: ("^", 7.5), OURS: ("*", 14.0)}
_NAMES = {
    DISTILLED: "SAC, distilled",
    MEDOIDS: "SAC, k-medoids",
    ENCODER: "ProtoSAC, encoder",
    OURS: "ProtoSAC, released",
}


def draw_front(rows: pd.DataFrame) -> Figure:
    """A column a task, likeness above and prototypes a decision below, both against the scaled return.

    Args:
        rows: from readability.read_rows.
    """
    shown = rows[rows["agent"].isin(_MARKS) & rows["near"].notna()]
    tasks = list(dict.fromkeys(shown["task"]))
    sizes = sorted(set(shown.loc[shown["agent"] == SWEPT, "K"]))
    shades = {size: cluster_color(i) for i, size in enumerate(sizes)}
    fig, grid = plt.subplots(2, len(tasks), figsize=(0.6 + 3.6 * max(len(tasks), 1), 6.6), sharey="col", squeeze=False)
    for column, task in enumerate(tasks):
        of = shown[shown["task"] == task]
        for axes, (measure, label, bar) in zip(grid[:, column], _ROWS, strict=True):
            few = measure == "sharing"
            axes.axhline(1, color=INK, lw=1.2)
            axes.axhline(LEAST_SCALED, color=INK, lw=0.9, ls="--")
            axes.axvline(bar, color=INK, lw=0.9, ls="--")
            _staircase(axes, front(settings_of_ours(of), measure, most=not few), measure)
            for _, row in of.iterrows():
                _mark(axes, row, measure, shades)
            _scale_axis(axes, of[measure].max(), few)
            axes.set_xlabel(label)
        # An interval may leave the picture, so that the good agents do not crowd at its top; a mark may not.
        grid[0, column].set_ylim(min(0, of["scaled"].min()) - 0.08, max(1, of["scaled"].max()) + 0.08)
        grid[0, column].set_title(env_title(task))
        grid[0, column].text(0, 1, " SAC", transform=grid[0, column].get_yaxis_transform(), va="bottom", fontsize=8)
    for axes in grid[:, 0]:
        axes.set_ylabel("scaled return (0 random, 1 SAC)")
    handles = [_handle(SWEPT, f"ProtoSAC, K = {size}", shades[size]) for size in sizes]
    handles += [_handle(agent, name) for agent, name in _NAMES.items() if (shown["agent"] == agent).any()]
    handles.append(Line2D([], [], color=PUBLISHED, lw=3, label="front of ProtoSAC"))
    fig.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 2 + len(tasks)), fontsize=9)
    return fig


def _mark(axes: Axes, row: pd.Series, measure: str, shades: dict[int, str]) -> None:
    """One agent, with its intervals in both directions."""
    color, (x, y) = _color(row["agent"], shades.get(row["K"])), (row[measure], row["scaled"])
    swept, (marker, size) = row["agent"] == SWEPT, _MARKS[row["agent"]]
    lines: dict[str, Any] = {"colors": INK if color == "white" else color, "lw": 1.0 if swept else 1.6, "alpha": 0.7}
    axes.hlines(y, row[f"{measure} low"], row[f"{measure} high"], **lines)
    axes.vlines(x, row["scaled low"], row["scaled high"], **lines)
    axes.plot(x, y, marker, color=color, ms=size, mec="white" if swept else INK, mew=0.8, zorder=3 if swept else 4)


def _color(agent: str, of_size: str | None) -> str:
    if agent == SWEPT and of_size is not None:
        return of_size
    return {OURS: ALGORITHMS["protosac"].color, ENCODER: "white"}.get(agent, MUTED if agent == DISTILLED else PUBLISHED)


def _handle(agent: str, name: str, color: str | None = None) -> Line2D:
    marker, size = _MARKS[agent]
    edge = "white" if agent == SWEPT else INK
    return Line2D([], [], ls="", marker=marker, ms=size, color=_color(agent, color), mec=edge, mew=0.8, label=name)


def _staircase(axes: Axes, best: pd.DataFrame, measure: str) -> None:
    """What no agent beats: at least this likeness, with at least this return."""
    axes.step(best[measure], best["scaled"], where="pre", color=PUBLISHED, lw=3, zorder=1)


def _scale_axis(axes: Axes, largest: float, few: bool) -> None:
    """The better end is at the right."""
    if few:
        axes.set_xscale("log")
        axes.set_xlim(max(largest, MOST_SHARING) * 1.25, 0.9)
        ticks = [tick for tick in (1, 2, 3, 5, 10, 20, 50, 100) if tick <= axes.get_xlim()[0]]
        axes.set_xticks(ticks, [f"{tick}" for tick in ticks])
        axes.minorticks_off()
    else:
        axes.set_xlim(0, 1.03)
        axes.set_xticks(np.linspace(0, 1, 6))
        axes.xaxis.set_major_formatter(lambda x, _: f"{x:.0%}")
