"""Pictures of prototypes: gallery, nearest states, one decision, usage.

Everywhere a prototype is called P<k> and has one colour, by its mean weight: the eight largest are told apart
by colour alone. Pictures of states are uint8 (H, W, 3).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine, PlaceHolderLayoutEngine
from matplotlib.patches import Patch

from ..common.labels import percent, spread_labels
from ..common.style import GRID, INK, MUTED, cluster_color, show_state
from . import (
    Decision,
    EpisodeTrace,
    NearestState,
    PrototypePictures,
    StateMap,
    Usage,
    action_density,
    action_interval,
    squash,
)

_OTHERS = "#C9CDD2"


MOST_RIDGES = 3  # action dimensions; more get interval bars instead of densities


_DISTINCT = 8


def prototype_colors(usage: Usage) -> list[str]:
    """One colour a prototype (K), distinct for the eight with the largest mean weight."""
    colors = [""] * len(usage.order)
    for rank, k in enumerate(usage.order):
        colors[k] = cluster_color(rank)
    return colors


def plot_gallery(
    pictures: PrototypePictures, means: np.ndarray, stds: np.ndarray, low: np.ndarray, high: np.ndarray,
    action_names: Sequence[str], usage: Usage, *, facts: Sequence[str] | None = None, most: int | None = None,
    columns: int = 4,
) -> Figure:  # fmt: skip
    """Every prototype: its state, how much it has to say, and what it does alone.

    Args:
        pictures: of the K prototypes.
        means, stds: (K, a), Gaussians before the squash.
        low, high: (a,), action bounds.
        action_names: what the a dimensions drive.
        usage: from :func:`~interp_lib.prototypes.usage.prototype_usage`.
        facts: K short lines to write below the pictures' captions.
        most: how many to show, largest mean weight first; None: all.
        columns: of the grid.
    """
    shown, colors = usage.order[:most], prototype_colors(usage)
    rows, dims = -(-len(shown) // columns), len(action_names)
    names_width = 0.0 if dims == 1 else 0.085 * max(map(len, action_names))  # inches
    cell = 2.1
    picture = cell * pictures.frames.shape[1] / pictures.frames.shape[2]
    ridge = 0.62 if dims == 1 else max((0.36 if dims <= MOST_RIDGES else 0.15) * dims, 0.62)
    line = 0.15
    text = line * (any(pictures.captions) + (facts is not None)) + 0.09
    # Inches: the title, then picture, the lines below it with the actions, and a gap a row.
    heights = [0.55] + [picture, text + ridge, 0.6] * rows
    # Not layout="none": matplotlib forgets that after the first save and asks rcParams again.
    by_hand = PlaceHolderLayoutEngine(adjust_compatible=True, colorbar_gridspec=True)
    fig = plt.figure(figsize=(columns * (cell + 0.28) + names_width + 0.15, sum(heights)), layout=by_hand)
    width, height = fig.get_size_inches()
    for place, k in enumerate(shown):
        row, column = divmod(place, columns)
        left = (0.15 + names_width + column * (cell + 0.28)) / width
        top = height - sum(heights[: 1 + 3 * row])
        image_axes = fig.add_axes((left, (top - picture) / height, cell / width, picture / height))
        action_axes = fig.add_axes((left, (top - picture - text - ridge) / height, cell / width, ridge / height))
        show_state(image_axes, pictures.frames[k], colors[k])
        image_axes.set_title(f"P{k}  weight {percent(usage.mean_weight[k])}", fontsize=9.5, pad=4, loc="left")
        below = filter(None, (pictures.captions[k], facts[k] if facts else ""))
        image_axes.set_xlabel("\n".join(below), fontsize=8, color=MUTED, labelpad=3)
        where: dict[str, Any] = dict(transform=image_axes.transAxes, ha="right", fontsize=8, color=MUTED)
        image_axes.text(1, 1.025, _leads(usage.led[k]), **where)
        draw_action(action_axes, means[k], stds[k], low, high, action_names if column == 0 else None, colors[k])
        if place + columns >= len(shown):
            what = f"{action_names[0]} alone" if dims == 1 else "action alone"
            action_axes.set_xlabel(what, fontsize=8.5, labelpad=2)
    fig.text(
        0.15 / width, 1 - 0.1 / height, f"{len(shown)} of {len(usage.led)} prototypes, by mean weight over "
        f"n = {len(usage.per_decision):,} decisions", fontsize=11, fontweight="bold", va="top",
    )  # fmt: skip
    return fig


def draw_action(
    axes: Axes, mean: np.ndarray, std: np.ndarray, low: np.ndarray, high: np.ndarray,
    names: Sequence[str] | None, color: str,
) -> None:  # fmt: skip
    """One prototype's actions after the squash: densities for up to three dimensions, else 90% intervals.

    Args:
        axes: to draw in.
        mean, std: (a,), the Gaussian before the squash.
        low, high: (a,), action bounds.
        names: of the a dimensions, written at the left; None: not written.
        color: of the prototype.
    """
    axes.grid(False)
    axes.spines["left"].set_visible(False)
    if len(mean) == 1:
        x, y = _density_curve(mean[0], std[0], low[0], high[0])
        _ridge(axes, x, y, 0.0, color)
        alone = squash(mean[0], low[0], high[0])
        axes.plot([alone] * 2, [0, 1.0], color=INK, lw=1.2, clip_on=False)
        right = alone < (low[0] + high[0]) / 2
        axes.text(0.99 if right else 0.01, 0.92, f"{alone:+.2f}", transform=axes.transAxes, fontsize=8.5, va="top",
                  ha="right" if right else "left")  # fmt: skip
        axes.set(xlim=(low[0], high[0]), ylim=(0, 1.08), yticks=[])
        axes.set_xticks([low[0], (low[0] + high[0]) / 2, high[0]])
        axes.tick_params(labelsize=7.5)
        return
    for i in range(len(mean)):
        base = len(mean) - 1 - i
        axes.axhline(base, color=GRID, lw=0.8, zorder=0)
        middle = squash(mean[i], -1.0, 1.0)
        if len(mean) <= MOST_RIDGES:
            x, y = _density_curve(mean[i], std[i], -1.0, 1.0)
            _ridge(axes, x, 0.8 * y, base, color)
            axes.plot([middle] * 2, [base, base + 0.8], color=INK, lw=1.2, clip_on=False)
        else:
            axes.plot(
                action_interval(mean[i], std[i], -1.0, 1.0), [base, base], color=color, lw=3, solid_capstyle="butt"
            )
            axes.plot(middle, base, "o", color=INK, ms=2.6)
    top = 0.95 if len(mean) <= MOST_RIDGES else 0.6
    axes.set(xlim=(-1.02, 1.02), ylim=(-0.35, len(mean) - 1 + top), xticks=[-1, 0, 1], yticks=[])
    axes.set_xticklabels(["low", "mid", "high"], fontsize=7.5)
    if names is not None:
        axes.set_yticks(range(len(mean)), list(names)[::-1], fontsize=7.5)
        axes.tick_params(axis="y", length=0)


def _density_curve(mean: float, std: float, low: float, high: float) -> tuple[np.ndarray, np.ndarray]:
    """Actions and their density scaled to height 1, on a grid that also samples a peak narrower than its spacing."""
    x = np.sort(np.r_[np.linspace(low, high, 400), squash(mean + std * np.linspace(-4, 4, 81), low, high)])
    density = action_density(x, mean, std, low, high)
    return x, density / max(density.max(), np.finfo(float).tiny)  # 0 where tanh has reached the bound exactly


def plot_nearest(
    pictures: PrototypePictures, nearest: Sequence[Sequence[NearestState]], state_pictures: Sequence[np.ndarray],
    shown: Sequence[int], usage: Usage,
) -> Figure:  # fmt: skip
    """Rows "this prototype looks like those states": a prototype, then evaluation states nearest to it.

    Args:
        pictures: of the K prototypes.
        nearest: for each prototype its states, nearest first.
        state_pictures: for each of ``shown`` uint8 (states, H, W, 3).
        shown: prototypes, one a row.
        usage: for the colours.
    """
    colors, count = prototype_colors(usage), max(len(nearest[k]) for k in shown)
    height = 1.45 * pictures.frames.shape[1] / pictures.frames.shape[2]
    fig, axes = plt.subplots(
        len(shown), count + 1, figsize=(1.62 * (count + 1), len(shown) * (height + 0.42) + 0.45), squeeze=False
    )
    for row, (k, states) in enumerate(zip(shown, state_pictures, strict=True)):
        show_state(axes[row, 0], pictures.frames[k], colors[k], width=3.0)
        axes[row, 0].set_xlabel(pictures.captions[k], fontsize=7.5, color=MUTED, labelpad=3)
        axes[row, 0].set_title(f"P{k}", fontsize=9, pad=3, loc="left")
        for column in range(count):
            panel = axes[row, column + 1]
            if column >= len(nearest[k]):
                panel.axis("off")
                continue
            state = nearest[k][column]
            show_state(panel, states[column], _OTHERS)
            panel.set_xlabel(state.caption, fontsize=7.5, color=MUTED, labelpad=3)
            panel.set_title(
                f"D {state.distance:.2g}   weight {state.weight:.0%}", fontsize=7.5, pad=3, fontweight="normal"
            )
    fig.suptitle("Prototype, and the evaluation states nearest to it (D: squared latent distance)", fontsize=10)
    return fig


def plot_decision(
    decision: Decision, current: np.ndarray, pictures: PrototypePictures, action_names: Sequence[str], usage: Usage,
    *, caption: str = "", title: str = "", top: int = 4,
) -> Figure:  # fmt: skip
    """One decision: the state, the prototypes it is compared with, and how their Gaussians make the action.

    Up to three action dimensions show the weighted Gaussians; more show what each prototype adds to the mean of u.

    Args:
        decision: from :func:`~interp_lib.prototypes.decisions.explain_decision`.
        current: the state's picture.
        pictures: of the K prototypes.
        action_names: what the a dimensions drive.
        usage: for the colours.
        caption: of the current state, see :func:`~interp_lib.envs.pictures.state_caption`.
        title: e.g. which episode and step.
        top: how many prototypes to show.
    """
    colors, shown = prototype_colors(usage), decision.order[: min(top, len(decision.order))]
    fig = plt.figure(figsize=(10.6, 4.4), layout="constrained")
    engine = fig.get_layout_engine()
    assert isinstance(engine, ConstrainedLayoutEngine)
    engine.set(wspace=0.03)
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
    rest = 1 - decision.weights[shown].sum()
    middle.suptitle("… looks like these", fontsize=11, fontweight="bold", x=0.03, ha="left")
    if len(shown) < len(decision.order):
        middle.supxlabel(
            f"the other {len(decision.order) - len(shown)}: {percent(max(rest, 1e-9), 1)} of the weight",
            fontsize=8,
            color=MUTED,
        )

    if few:
        _plot_gaussians(right, decision, shown, colors, action_names)
    else:
        _plot_contributions(right, decision, shown, colors, action_names)
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
    (first_before, first_after), size = grid[0], 8 if several else 9
    first_before.set_title(
        f"Gaussians by weight;\ndashed: {rule}" if several else f"Gaussians by weight; dashed: {rule}", fontsize=size
    )
    first_after.set_title(
        "… give these actions;\norange: taken" if several else "… give these actions; orange: the one taken",
        fontsize=size,
    )


def _plot_contributions(
    panel: Any, decision: Decision, shown: np.ndarray, colors: list[str], names: Sequence[str]
) -> None:
    axes = panel.subplots()
    rows = np.arange(len(names))[::-1]
    parts = decision.weights[:, None] * decision.means  # (K, a)
    others = np.setdiff1d(np.arange(len(parts)), shown)
    ends = {+1: np.zeros(len(names)), -1: np.zeros(len(names))}
    bars = [(parts[k], colors[k], f"P{k}") for k in shown] + [(parts[others].sum(0), _OTHERS, "others")]
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


def plot_state_map(flat: StateMap, leading: np.ndarray, usage: Usage, *, most: int = 4000) -> Figure:
    """All visited states on a map, coloured by the prototype that leads there, with the prototypes on it.

    Args:
        flat: from :func:`~interp_lib.prototypes.states.state_map`.
        leading: (N,) the prototype that leads in each state.
        usage: for the colours.
        most: how many states to draw, evenly picked.
    """
    fig, axes = plt.subplots(figsize=(7.4, 5.0))
    draw_state_map(axes, flat, leading, usage, most=most)
    return fig


def draw_state_map(axes: Axes, flat: StateMap, leading: np.ndarray, usage: Usage, *, most: int = 4000) -> None:
    """:func:`plot_state_map` into axes that are there."""
    colors = np.array(prototype_colors(usage))
    drawn = np.arange(0, len(leading), max(1, -(-len(leading) // most)))
    x, y = flat.states[drawn].T
    axes.scatter(x, y, c=colors[leading[drawn]], s=9, alpha=0.65, lw=0, rasterized=True)
    axes.scatter(flat.prototypes[:, 0], flat.prototypes[:, 1], c=colors, s=34, edgecolor="white", lw=1.0, zorder=4)
    axes.set(xlim=axes.get_xlim(), ylim=axes.get_ylim())  # labels are placed by these
    box, size = axes.get_window_extent(), 7.5
    low, unit = np.array([axes.get_xlim()[0], axes.get_ylim()[0]]), box.width / np.ptp(axes.get_xlim())
    unit = np.array([unit, box.height / np.ptp(axes.get_ylim())]) * 72 / axes.figure.dpi  # points
    places = spread_labels((flat.prototypes - low) * unit, (3.4 * size, 1.9 * size)) / unit + low
    for k, place in enumerate(places):
        axes.plot(*np.stack([flat.prototypes[k], place]).T, color=INK, lw=0.7, zorder=4.5)
        dark = np.dot([int(colors[k][i : i + 2], 16) for i in (1, 3, 5)], (0.299, 0.587, 0.114)) < 140
        axes.text(
            place[0], place[1], f"P{k}", color="white" if dark else INK, fontsize=size, fontweight="bold",
            ha="center", va="center", zorder=5,
            bbox={"boxstyle": "round,pad=0.25", "facecolor": colors[k], "edgecolor": "white"},
        )  # fmt: skip
    axes.set(xlabel=flat.labels[0], ylabel=flat.labels[1])
    shown = f"n = {len(leading):,} states" + (f", {len(drawn):,} of them drawn" if len(drawn) < len(leading) else "")
    axes.set_title(f"Which prototype leads where, {shown}", fontsize=10.5)


def plot_usage(
    trace: EpisodeTrace, usage: Usage, action_names: Sequence[str], low: np.ndarray, high: np.ndarray
) -> Figure:
    """Weights over one episode above its actions; beside them mean weights and shares led over all decisions.

    Args:
        trace: the episode.
        usage: over all evaluation episodes.
        action_names, low, high: names and bounds of the a action dimensions; the first three are drawn.
    """
    colors, top = prototype_colors(usage), usage.order[:_DISTINCT]
    fig = plt.figure(figsize=(10.2, 4.6), layout="constrained")
    grid = fig.add_gridspec(2, 2, width_ratios=[2.3, 1], height_ratios=[1.7, 1])
    weights, actions, bars = fig.add_subplot(grid[0, 0]), fig.add_subplot(grid[1, 0]), fig.add_subplot(grid[:, 1])

    steps = np.arange(len(trace))
    stack = [trace.weights[:, k] for k in top]
    labels, shades = [f"P{k}" for k in top], [colors[k] for k in top]
    if len(usage.order) > len(top):
        others = 1 - sum(stack, start=np.zeros_like(stack[0]))
        stack, labels, shades = [*stack, others], [*labels, "others"], [*shades, _OTHERS]
    weights.stackplot(steps, stack, colors=shades, labels=labels, lw=0)
    weights.set(xlim=(0, max(len(trace) - 1, 1)), ylim=(0, 1), ylabel="weight")
    weights.set_title(f"One episode (seed {trace.seed}, return {trace.total:.0f})", fontsize=10, pad=24)
    weights.legend(
        ncols=len(labels),
        loc="lower left",
        bbox_to_anchor=(-0.01, 0.99),
        fontsize=8,
        handlelength=0.8,
        columnspacing=0.8,
    )
    weights.tick_params(labelbottom=False)
    weights.grid(False)

    for dim, name in enumerate(action_names[:3]):
        scaled = 2 * (trace.actions[:, dim] - low[dim]) / (high[dim] - low[dim]) - 1
        actions.plot(steps, scaled, lw=1.2, color=(INK, "#8C939B", cluster_color(5))[dim], label=name)
    actions.set(
        xlim=weights.get_xlim(), ylim=(-1.08, 1.08), yticks=[-1, 0, 1], xlabel="step of the episode", ylabel="action"
    )
    actions.set_yticklabels(["low", "mid", "high"])
    actions.legend(ncols=3, fontsize=8, loc="lower right", bbox_to_anchor=(1.01, 0.97))

    rows = np.arange(len(usage.order))[::-1]
    shades = [colors[k] for k in usage.order]
    bars.barh(rows, usage.mean_weight[usage.order], height=0.7, color=shades)
    bars.plot(usage.led[usage.order], rows, "|", color=INK, ms=7, mew=1.4, label="share of decisions it leads")
    size = 8 if len(rows) <= 24 else 6
    bars.set_yticks(rows, [f"P{k}" for k in usage.order], fontsize=size)
    bars.set(ylim=(-0.7, len(rows) - 0.3), xlabel="share")
    bars.xaxis.set_major_formatter(lambda x, _: f"{x:.0%}")
    bars.grid(axis="y", visible=False)
    bars.set_title(f"All episodes, n = {len(usage.per_decision):,} decisions", fontsize=10)
    # A legend in the first one's colour would speak of that prototype.
    weight = Patch(color=_OTHERS, label="mean weight")
    bars.legend(handles=[weight, bars.lines[0]], loc="lower right", fontsize=8, handlelength=1.0)
    return fig


def _ridge(axes: Axes, x: np.ndarray, y: np.ndarray, base: float, color: str) -> None:
    axes.fill_between(x, base, base + y, color=color, alpha=0.45, lw=0)
    axes.plot(x, base + y, color=color, lw=1.2)


def _leads(share: float) -> str:
    return f"leads {percent(share)}" if share > 0 else "never leads"
