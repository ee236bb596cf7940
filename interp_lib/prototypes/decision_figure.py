"""The picture of one decision: this state looks like those, so it does this."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from ..common.labels import percent
from ..common.style import GRID, INK, MUTED, cluster_color, show_state
from .decisions import Decision, squash
from .figures import MOST_RIDGES, OTHERS

if TYPE_CHECKING:
    from .study import PrototypeStudy


def plot_decision(
    study: PrototypeStudy, decision: Decision, current: np.ndarray, *, caption: str = "", title: str = "", top: int = 4
) -> Figure:
    """One decision: the state, the prototypes it is compared with, and how their Gaussians make the action.

    Up to three action dimensions show the weighted Gaussians; more show what each prototype adds to the mean of u.

    Args:
        current: the state's picture.
        caption: of the current state, see :func:`~interp_lib.envs.pictures.state_caption`.
        title: e.g. which episode and step.
        top: how many prototypes to show.
    """
    pictures, colors, action_names, shown = study.pictures, study.colors, study.info.action_names, decision.order[:top]
    fig = plt.figure(figsize=(10.6, 4.4))
    fig.set_layout_engine("constrained", wspace=0.03)
    left, middle, right = fig.subfigures(1, 3, width_ratios=[3.1, 2.9, 4.6])  # type: ignore[misc]  # an array of them

    axes = left.subplots()
    show_state(axes, current, INK)
    left.suptitle("This state …", fontsize=11, fontweight="bold", x=0.03, ha="left")
    few = len(action_names) <= MOST_RIDGES  # else the panel at the right has the numbers
    taken = [f"{name} {value:+.2f}" for name, value in zip(action_names, decision.action, strict=True) if few]
    lines = [caption, *(("action: " if i == 0 else "") + line for i, line in enumerate(taken))]
    axes.set_xlabel("\n".join(filter(None, lines)), fontsize=9, labelpad=8)

    grid = middle.subplots(len(shown), 2, width_ratios=[1, 1.25], squeeze=False)
    for row, k in enumerate(shown):
        show_state(grid[row, 0], pictures.frames[k], colors[k])
        bar = grid[row, 1]
        grid[row, 0].set_xlabel(pictures.captions[k], fontsize=7, color=MUTED, labelpad=3)
        bar.barh(0, 1, height=0.34, color=GRID)
        bar.barh(0, decision.weights[k], height=0.34, color=colors[k])
        bar.text(0, 0.3, f"P{k}   {percent(decision.weights[k], 1)}", fontsize=9, va="bottom", fontweight="bold")
        alone = ", ".join(f"{v:+.2f}" for v in squash(decision.means[k], decision.low, decision.high))
        if few:
            bar.text(0, -0.3, f"alone: {alone}", fontsize=8, va="top", color=MUTED)
        bar.set(xlim=(0, 1), ylim=(-0.9, 0.9))
        bar.axis("off")
    middle.suptitle("… looks like these", fontsize=11, fontweight="bold", x=0.03, ha="left")
    if others := len(decision.order) - len(shown):
        rest = max(1 - decision.weights[shown].sum(), 1e-9)
        middle.supxlabel(f"the other {others}: {percent(rest, 1)} of the weight", fontsize=8, color=MUTED)

    (_plot_gaussians if few else _plot_contributions)(right, decision, shown, colors, action_names)
    if title:
        fig.suptitle(title, fontsize=11)
    return fig


def _plot_gaussians(panel: Any, decision: Decision, shown: np.ndarray, colors: list[str], names: Sequence[str]) -> None:
    several = len(names) > 1
    grid = panel.subplots(len(names), 2) if several else panel.subplots(2, 1)[None]
    for dim, (name, (before, after)) in enumerate(zip(names, grid, strict=True)):
        means, stds = decision.means[:, dim], decision.stds[:, dim]
        mixed_mean, mixed_std = decision.weights @ means, decision.weights @ stds
        lowest = min(mixed_mean - 4 * mixed_std, *(means - 2.5 * stds)[shown])
        highest = max(mixed_mean + 4 * mixed_std, *(means + 2.5 * stds)[shown])
        # Not an even grid alone: where another prototype is wide, a narrow one would fall between its points.
        around = np.linspace(-4, 4, 61)
        narrow = (means[shown, None] + stds[shown, None] * around).ravel()
        blend = mixed_mean + mixed_std * around
        u = np.unique(np.r_[np.linspace(lowest, highest, 400), np.clip(np.r_[narrow, blend], lowest, highest)])
        for k in shown[::-1]:
            # Height by weight: as densities, the narrowest would flatten all others.
            bell = decision.weights[k] * np.exp(-0.5 * ((u - means[k]) / stds[k]) ** 2)
            before.fill_between(u, bell, color=colors[k], alpha=0.35, lw=0)
            before.plot(u, bell, color=colors[k], lw=1.4)
        mixed = decision.density_u(u, dim)
        before.plot(u, mixed / mixed.max(), color=INK, lw=1.8, ls="--")
        before.set(ylim=(0, 1.12), yticks=[0, 0.5, 1])

        low, high = decision.low[dim], decision.high[dim]
        x = np.unique(np.r_[np.linspace(low, high, 400), squash(np.r_[narrow, blend], low, high)])
        density = decision.density(x, dim)
        after.fill_between(x, density, color=INK, alpha=0.12, lw=0)
        after.plot(x, density, color=INK, lw=1.8)
        after.axvline(decision.action[dim], color=cluster_color(5), lw=1.6)
        after.set(xlim=(low, high), ylim=(0, None))
        before.set_ylabel(f"{name}\nweight" if several else "weight")
        after.set_ylabel("density")
        if dim == len(names) - 1:
            before.set_xlabel("u, before the squash")
            after.set_xlabel("action" if several else f"{name}, from {low:g} to {high:g}")
    rule = "N(Σwμ, (Σwσ)²)" if decision.mixture == "blend" else "Σ w N(μ, σ²)"
    size, gap, taken = (8, "\n", "taken") if several else (9, " ", "the one taken")
    grid[0, 0].set_title(f"Gaussians by weight;{gap}dashed: {rule}", fontsize=size)
    grid[0, 1].set_title(f"… give these actions;{gap}orange: {taken}", fontsize=size)


def _plot_contributions(
    panel: Any, decision: Decision, shown: np.ndarray, colors: list[str], names: Sequence[str]
) -> None:
    axes = panel.subplots()
    rows = np.arange(len(names))[::-1]
    parts = decision.weights[:, None] * decision.means  # (K, a)
    others = np.setdiff1d(np.arange(len(parts)), shown)
    ends = {+1: np.zeros(len(names)), -1: np.zeros(len(names))}
    bars = [(parts[k], colors[k], f"P{k}") for k in shown] + [(parts[others].sum(0), OTHERS, "others")]
    for part, color, label in bars:
        start = np.where(part >= 0, ends[+1], ends[-1])
        axes.barh(rows, part, left=start, height=0.62, color=color, label=label)
        ends[+1] += np.maximum(part, 0)
        ends[-1] += np.minimum(part, 0)
    mean = parts.sum(0) if decision.mixture == "blend" else decision.means[decision.order[0]]
    axes.plot(mean, rows, "D", color=INK, ms=4.5, label="u")
    reach = 1.08 * max(ends[+1].max(), -ends[-1].min(), 1e-3)
    for y, value in zip(rows, decision.action, strict=True):
        axes.text(reach * 1.05, y, f"{value:+.2f}", va="center", fontsize=8)
    axes.text(reach * 1.05, rows[0] + 0.75, "action", va="center", fontsize=8, color=MUTED)
    axes.axvline(0, color=INK, lw=0.8)
    axes.set(xlim=(-reach, reach), ylim=(-0.6, len(names) - 0.1), xlabel="weight × mean, before the squash")
    axes.set_yticks(rows, names, fontsize=8)
    axes.grid(axis="y", visible=False)
    axes.legend(
        ncols=len(bars) + 1,
        fontsize=7.5,
        loc="lower center",
        bbox_to_anchor=(0.45, 1.0),
        handlelength=0.9,
        columnspacing=0.9,
    )
