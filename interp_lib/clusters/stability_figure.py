"""Pictures of what training changes: agreement of agents on the same states, and their maps in matched colours."""

from __future__ import annotations

from collections.abc import Mapping
from textwrap import fill

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy.spatial import procrustes

from ..common.style import CLUSTER_COLORS, MUTED
from .figures import draw_space
from .retraining import BOUND, CODES, DISPARITIES, RIVAL, View, matching

_MARKS = (("o", CLUSTER_COLORS[0]), ("s", CLUSTER_COLORS[5]), ("^", MUTED))


def plot_agreement(table: pd.DataFrame) -> Figure:
    """A row a pair of agents and a bound: how much alike are groups (left) and maps (right)?

    Args:
        table: of :class:`.retraining.Retraining`.
    """
    maps = {name: name.removeprefix("disparity of ") for name in DISPARITIES}
    panels: list[tuple[dict[str, str], str, str]] = [
        ({CODES: "codes", RIVAL: "k-means on h"}, "adjusted Rand index", "Groups of the same states"),
        (maps, "Procrustes disparity", "Maps of the same states"),
    ]
    figure, axes = plt.subplots(1, 2, figsize=(10.5, 0.62 * len(table) + 1.7), sharey=True)
    for ax, (measures, unit, title) in zip(axes, panels, strict=True):
        for i, (measure, label) in enumerate(measures.items()):
            of = table[table[measure].notna()]
            y = [-list(table.index).index(pair) + 0.2 * (len(measures) / 2 - 0.5 - i) for pair in of.index]
            ends = [of[measure] - of[f"{measure} low"], of[f"{measure} high"] - of[measure]]
            mark, color = _MARKS[i]
            ax.errorbar(of[measure], y, xerr=ends, fmt=mark, color=color, ms=5, lw=1.5, label=label)
        ax.set(xlabel=unit, title=title, xlim=(-0.05, 1.05))
        ax.grid(axis="y", visible=False)
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.1 - 0.35 / len(table)), ncols=3)
    names = [
        agent if of["what"] == BOUND else fill(agent, 44) + f"\nand {other}\n({of['what']})"
        for (agent, other), of in table.iterrows()
    ]
    axes[0].set_yticks(-np.arange(len(table)), names, fontsize=8)
    axes[0].set_ylim(-len(table) + 0.4, 0.6)
    return figure


def plot_matched(views: Mapping[str, View], *, most: int = 4) -> Figure:
    """A row an agent: the first one's map; this agent's, turned to fit it best, in its own codes; and in the first's.

    Its own codes have the number and colour of that code of the first agent with which they share most states, one to
    one: where both agents group alike, all three pictures have the same colours in the same places.

    Args:
        views: of :class:`.retraining.Retraining`.
        most: agents beside the first.
    """
    (first, own), *others = views.items()
    others = others[: most - 1] + others[-1:] if len(others) > most else others
    figure, axes = plt.subplots(len(others), 3, figsize=(10.5, 3.5 * len(others)), squeeze=False, sharex="row")
    for row, (name, view) in zip(axes, others, strict=True):
        places, turned, _ = procrustes(own.fdr, view.fdr)
        matched = matching(view.code, own.code)[view.code]
        share = (matched == own.code).mean()
        draw_space(row[0], places, own.code, first, axis="fitted z")
        draw_space(row[1], turned, matched, fill(name, 34), axis="fitted z")
        draw_space(
            row[2],
            turned,
            own.code,
            f"the same, in the left one's\ncodes ({share:.0%} as in the middle)",
            axis="fitted z",
        )
    return figure
