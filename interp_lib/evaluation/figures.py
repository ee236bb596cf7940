"""Figures of generalization and of algorithms compared: gaps, interquartile means, profiles, improvement, published.

Every figure says what n is and what its intervals resample; colours are the methods' (agents.registry), and what
colour tells is told a second time by shape, position or a label.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ..agents.registry import ALGORITHMS
from ..common.statistics import Interval, interval_of
from ..common.style import INK, MUTED, PUBLISHED
from ..envs.names import env_title
from ..envs.procgen import normalised

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from .comparison import AlgorithmComparison

RANDOM = "#6B7280"


def plot_levels(table: pd.DataFrame, *, xlabel: str) -> Figure:
    """Training levels (hollow) and unseen levels (filled) of each agent, a panel a game; random play as a band.

    Args:
        table: of levels.level_table.
    """
    import matplotlib.pyplot as plt
    from matplotlib.lines import Line2D

    games = list(table["game"].unique())
    columns = min(len(games), 2)
    rows = -(-len(games) // columns)
    agents = table[table["agent"] != "random"]
    most = agents.groupby("game").size().max()
    figure, axes = plt.subplots(
        rows, columns, figsize=(5.3 * columns, (0.62 * most + 1.0) * rows + 0.4), squeeze=False, layout="constrained"
    )
    for ax, game in zip(axes.flat, games, strict=False):
        part = agents[agents["game"] == game].reset_index(drop=True)
        random = table[(table["game"] == game) & (table["agent"] == "random")]
        for _, row in random.iterrows():
            ax.axvspan(row["unseen low"], row["unseen high"], color=RANDOM, alpha=0.18, lw=0)
            ax.axvline(row["unseen"], color=RANDOM, linestyle=":", linewidth=1.4)
        for y, row in part.iterrows():
            color = ALGORITHMS[row["agent"].lower()].color
            for side, shift, face in (("train", -0.14, "white"), ("unseen", 0.14, color)):
                _interval(ax, interval_of(row, side), y + shift, color, face)
        labels = [f"{r['agent']}, {r['steps'] / 1e6:.2f}M steps\n{r['actions']}" for _, r in part.iterrows()]
        _label_rows(ax, labels, ylim=(len(part) - 0.45, -0.55), title=env_title(game), xlabel=xlabel)
    for ax in axes.flat[len(games) :]:
        ax.axis("off")
    key = [
        Line2D([], [], color=INK, marker="o", markerfacecolor="white", label="training levels"),
        Line2D([], [], color=INK, marker="o", label="unseen levels"),
        Line2D([], [], color=RANDOM, linestyle=":", label="random policy, unseen levels"),
    ]
    figure.legend(handles=key, loc="outside upper center", ncols=3)
    return figure


def plot_restricted(table: pd.DataFrame) -> Figure:
    """The classic figure: return on training and on unseen levels over the number of training levels, a panel a game.

    Args:
        table: of levels.restricted_table.
    """
    import matplotlib.pyplot as plt

    games = list(table["game"].unique())
    figure, axes = plt.subplots(1, len(games), figsize=(4.6 * len(games), 3.8), squeeze=False, layout="constrained")
    for ax, game in zip(axes[0], games, strict=True):
        for place, (agent, part) in enumerate(table[table["game"] == game].groupby("agent")):
            part, color = part.sort_values("levels"), ALGORITHMS[agent.lower()].color
            for beside, (side, style, face) in enumerate((("train", "--", "white"), ("unseen", "-", color))):
                bars = np.array([part[side] - part[f"{side} low"], part[f"{side} high"] - part[side]])
                label = f"{agent}, {'training' if side == 'train' else 'unseen'} levels"
                ax.errorbar(
                    part["levels"] * 1.05 ** (2 * place + beside), part[side], yerr=bars, color=color, linestyle=style,
                    marker="o", markerfacecolor=face, capsize=3, label=label,
                )  # fmt: skip
        ticks = sorted(table.loc[table["game"] == game, "levels"].unique())
        ax.set_xscale("log")
        ax.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
        ax.minorticks_off()
        ax.set(xlim=(ticks[0] / 1.6, ticks[-1] * 1.6), title=env_title(game))
        ax.set(xlabel="number of training levels", ylabel="return per episode (mean, 95% interval)")
        ax.legend(loc="best")
    return figure


def plot_comparison(comparison: AlgorithmComparison) -> Figure:
    """Interquartile mean, performance profile and probability of improvement of two algorithms, side by side.

    Tasks where the two were trained unequally are hollow, apart from the others.
    """
    import matplotlib.pyplot as plt

    names = (comparison.baseline, comparison.other)
    baseline, other = (ALGORITHMS[name].title for name in names)
    table, scale, unit, thresholds = comparison.table, comparison.scale, comparison.unit, comparison.thresholds
    (overall, by_task), unequal = comparison.improvement, comparison.unequal_improvement
    rows = 1 + len(by_task) + len(unequal)
    figure, axes = plt.subplots(
        1, 3, figsize=(13, max(3.4, 0.42 * rows + 1.5)), width_ratios=(1, 1.25, 1.05), layout="constrained"
    )
    ax = axes[0]
    for y, name in enumerate(names):
        row, color = table.loc[ALGORITHMS[name].title], ALGORITHMS[name].color
        for shift, statistic, marker in ((-0.13, "IQM", "o"), (0.13, "mean", "D")):
            _interval(ax, interval_of(row, statistic), y + shift, color, color if marker == "o" else "white", marker)
            ax.annotate(
                f"{statistic} {row[statistic]:.2f}", (row[f"{statistic} high"], y + shift), xytext=(6, 0),
                textcoords="offset points", va="center", fontsize=9, color=INK,
            )  # fmt: skip
    xlabel = f"{scale}\n(95% interval, {unit} resampled;\n{comparison.size()})"
    _label_rows(ax, [baseline, other], title="Interquartile mean (IQM) and mean", xlabel=xlabel)
    low, high = ax.get_xlim()
    ax.set_xlim(low, high + 0.45 * (high - low))  # room for the numbers
    ax.locator_params(axis="x", nbins=5)  # more would run into each other where the interval is narrow

    ax = axes[1]
    for name, style in zip(names, ("-", (0, (5, 1.5))), strict=True):
        record, (share, below, above) = ALGORITHMS[name], comparison.profile(name)
        ax.fill_between(thresholds, below, above, color=record.color, alpha=0.22, lw=0, step="post")
        ax.step(thresholds, share, color=record.color, linestyle=style, label=record.title, where="post")
    random = comparison.random_profile()
    ax.step(thresholds, random, color=RANDOM, linestyle=":", linewidth=1.4, label="random", where="post")
    ax.set(xlim=(thresholds[0], thresholds[-1]), ylim=(-0.02, 1.04), title="Performance profile")
    ax.set(xlabel=f"threshold τ ({scale})", ylabel=f"share of {unit} above τ")
    ax.legend(loc="best")

    ax = axes[2]
    several = len(by_task) > 1
    lines = [("all tasks" if several else env_title(next(iter(by_task))), overall, True)]
    lines += [(env_title(task), interval, True) for task, interval in by_task.items() if several]
    lines += [(f"{env_title(task)} (unequal steps)", interval, False) for task, interval in unequal.items()]
    ax.axvline(0.5, color=MUTED, linewidth=1)
    for y, (_, interval, equal) in enumerate(lines):
        color = ALGORITHMS[names[1]].color if equal else RANDOM
        _interval(ax, interval, y, color, color if equal else "white", "D" if several and y == 0 else "o")
        right = interval.high < 0.8
        ax.annotate(
            f"{interval.mean:.2f}", (interval.high if right else interval.low, y), xytext=(6 if right else -6, 0),
            textcoords="offset points", va="center", ha="left" if right else "right", fontsize=9, color=INK,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.8},
        )  # fmt: skip
    xlabel = f"P({other} > {baseline})\n(95% interval, {unit} resampled)"
    _label_rows(ax, [name for name, *_ in lines], xlim=(-0.03, 1.03), title="Probability of improvement", xlabel=xlabel)
    return figure


def plot_published(table: pd.DataFrame) -> Figure:
    """Runs here against the published seeds at the same number of steps, on the benchmark's scale so games can share.

    Args:
        table: of levels.published_comparison.
    """
    import matplotlib.pyplot as plt
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    rows = table.reset_index()
    figure, ax = plt.subplots(figsize=(8.6, 0.4 * len(rows) + 1.5), layout="constrained")
    for y, row in rows.iterrows():
        low, mean, high = (normalised(row[f"published {name}"], row["game"]) for name in ("min", "mean", "max"))
        here, *interval = (normalised(row[f"here{bound}"], row["game"]) for bound in ("", " low", " high"))
        ax.plot([low, high], [y, y], color=PUBLISHED, linewidth=9, solid_capstyle="butt")
        ax.plot([mean, mean], [y - 0.25, y + 0.25], color=INK, linewidth=1.6)
        color = ALGORITHMS[row["agent"].lower()].color
        ax.plot(interval, [y, y], color=color, linewidth=2)
        ax.plot(here, y, "o", color=color, markersize=8, markeredgecolor="white")
    labels = [f"{env_title(r['game'])}, {r['steps']:,} steps, {r['agent']}" for _, r in rows.iterrows()]
    xlabel = "normalised mean return of the last 100 training episodes, 95% interval over them (0 blind, 1 the best)"
    _label_rows(ax, labels, xlabel=xlabel)
    seeds = "–".join(str(n) for n in sorted({*rows["seeds"]}))
    agents = [
        Line2D([], [], color=ALGORITHMS[agent.lower()].color, marker="o", linestyle="", label=f"{agent} here")
        for agent in sorted(rows["agent"].unique())
    ]
    published = [
        Patch(color=PUBLISHED, label=f"published, min–max of {seeds} seeds"),
        Line2D([], [], color=INK, marker="|", linestyle="", markersize=11, label="published mean"),
    ]
    figure.legend(handles=[*agents, *published], loc="outside upper center", ncols=4)
    return figure


def _label_rows(ax: Axes, labels: Sequence[str], **settings: Any) -> None:
    """Write ``labels`` beside lines 0, 1, … from the top; ``settings`` are those of the axes."""
    ax.set_yticks(range(len(labels)), labels)
    ax.set(**{"ylim": (len(labels) - 0.5, -0.5)} | settings)
    ax.grid(axis="y", visible=False)


def _interval(ax: Axes, interval: Interval, y: float, color: str, face: str, marker: str = "o") -> None:
    ax.plot([interval.low, interval.high], [y, y], color=color, linewidth=3.5, alpha=0.5, solid_capstyle="butt")
    ax.plot(interval.mean, y, marker, color=color, markerfacecolor=face, markersize=6.5, markeredgewidth=1.5)
