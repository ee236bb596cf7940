"""Pictures and tables of :mod:`.counterfactual`."""

from __future__ import annotations

from collections.abc import Iterable

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from ..common.outputs import Outputs, Run
from ..common.statistics import interval_of
from ..common.style import CLUSTER_COLORS, INK, MUTED, cluster_color, readable_ink, show_state
from .counterfactual import AS_PLAYED, BY_LOOKS, CODES, RIVAL, Counterfactual

_STYLE = {CODES: (CLUSTER_COLORS[0], "o", 0.2), RIVAL: (CLUSTER_COLORS[5], "s", 0.0), BY_LOOKS: (MUTED, "D", -0.2)}
EXAMPLES = 6  # states in the figure


def examples(found: Counterfactual, count: int = EXAMPLES) -> np.ndarray:
    """A state of each of the ``count`` most frequent codes, at random and from several levels → places in ``rows``."""
    code, level = found.labels[CODES][AS_PLAYED], found.study.states.level[found.rows]
    chosen: list[int] = []
    for k in np.argsort(-np.bincount(code), kind="stable")[:count]:
        of = np.random.default_rng(found.seed + int(k)).permutation(np.flatnonzero(code == k))
        if len(of):
            chosen.append(int(of[np.argmin(np.isin(level[of], level[chosen]))]))
    return np.array(chosen)


def plot_counterfactual(found: Counterfactual) -> Figure:
    """Left a row a look, a column a state, framed in the colour of its code; right what is kept in each look."""
    looks, chosen = [AS_PLAYED, *found.looks], examples(found)
    figure = plt.figure(figsize=(1.32 * len(chosen) + 6.4, 1.32 * len(looks) + 0.8))
    grid = figure.add_gridspec(len(looks), len(chosen) + 1, width_ratios=[1] * len(chosen) + [3.2])
    for i, look in enumerate(looks):
        for j, place in enumerate(chosen):
            ax, k = figure.add_subplot(grid[i, j]), int(found.labels[CODES][look][place])
            changed = k != found.labels[CODES][AS_PLAYED][place]
            color = cluster_color(k)
            show_state(ax, found.frames[look][place], color, width=3.5)
            badge = {"boxstyle": "square,pad=0.2", "facecolor": color, "edgecolor": "white" if changed else color}
            ink = readable_ink(color)
            ax.text(0.07, 0.9, str(k), transform=ax.transAxes, color=ink, weight="bold", fontsize=9, bbox=badge)
            if j == 0:
                ax.set_ylabel(_wrapped(look), rotation=0, ha="right", va="center", fontsize=9.5, color=INK)
    _draw_kept(figure.add_subplot(grid[:, -1]), found.kept, found.surprise, looks)
    return figure


def _wrapped(look: str) -> str:
    return look.replace(" ", "\n", 1).replace(" and", "\nand")


def _draw_kept(ax: Axes, kept: pd.DataFrame, surprise: pd.DataFrame, looks: list[str]) -> None:
    """Shares by look, at the height of its row of pictures."""
    for i, look in enumerate(looks[1:], start=1):
        for grouping, (color, marker, offset) in _STYLE.items():
            row = kept.loc[look, grouping]
            ends = [[row["kept"] - row["kept low"]], [row["kept high"] - row["kept"]]]
            y, label = -i + offset, grouping if i == 1 else None
            ax.errorbar(row["kept"], y, xerr=ends, fmt=marker, color=color, ms=6, lw=1.8, label=label)
            label = "by chance" if label == CODES else None
            ax.plot([row["by chance"]] * 2, [y - 0.09, y + 0.09], color=color, lw=1.2, ls=":", label=label)
        moved = interval_of(surprise.loc[look], "other nearest frame")
        ends = [[moved.high - moved.mean], [moved.mean - moved.low]]
        label = "nearest frame" if i == 1 else None
        ax.errorbar(1 - moved.mean, -i - 0.38, xerr=ends, fmt="x", color=INK, ms=6, lw=1.2, label=label)
    ax.set(xlim=(-0.02, 1.02), ylim=(-len(looks) + 0.5, 0.5), yticks=[], xlabel="share of states")
    ax.xaxis.set_major_formatter(PercentFormatter(1))
    ax.set_title("what stays the same, with 95% intervals")
    ax.legend(loc="upper left", ncols=2)
    ax.axhline(-0.5, color=MUTED, lw=0.6)
    ax.grid(axis="y", visible=False)


def save_counterfactual(found: Counterfactual, outputs: Outputs, runs: Iterable[Run]) -> None:
    """Save the figure and three tables: what is kept, how groupings differ, and how much pixels and policy change."""
    runs, states = list(runs), found.study.states
    how = (
        f"n = {len(found.rows):,} states of {found.surprise['levels'].iloc[0]} levels of {states.meta['game']}, "
        "95% jackknife intervals over levels."
    )
    untrained = [look for look, trained in found.trained.items() if not trained]
    note = f" Never drawn in training: {', '.join(untrained)}." if untrained else ""
    outputs.figure(
        plot_counterfactual(found),
        "counterfactual",
        "The same states of the game in other looks. Left: a state drawn at random from each of the most frequent "
        "clusters, framed and numbered by its code in each look. Right: share of states that keep their group of "
        "codes, of k-means on h and of k-means on pixels (both fitted to the look as played); dotted, by "
        f"chance; cross, states whose nearest frame of another level (as played) is the same one.{note} {how}",
        runs,
    )
    outputs.table(
        found.kept.reset_index(),
        "counterfactual_kept",
        "Share of states that keep their group in each look, by chance (a state and the other look of any state), and "
        f"beyond chance (Cohen's kappa). {how}",
        runs,
    )
    outputs.table(
        found.differences.reset_index(),
        "counterfactual_differences",
        f"Codes minus other groupings, paired by level; p beyond chance, corrected over the rows (Holm). {how}",
        runs,
    )
    outputs.table(
        found.surprise,
        "counterfactual_policy",
        "In each look: whether training draws it; share of states whose nearest frame of another level becomes "
        "another; KL(policy ‖ policy in the look) in nats, over the policy's mean entropy, and by whether the code "
        f"stays; share of states whose most probable action, of Procgen's 15 and by effect, stays. {how}",
        runs,
    )
