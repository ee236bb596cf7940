"""Pictures of prototypes: gallery, nearest states, map, usage.

Everywhere a prototype is called P<k> and has one colour, by its mean weight: the eight largest are told apart
by colour alone. Pictures of states are uint8 (H, W, 3).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import PlaceHolderLayoutEngine
from matplotlib.patches import Patch

from ..common.labels import percent, spread_labels
from ..common.style import GRID, INK, MUTED, PUBLISHED, cluster_color, show_state
from .decisions import action_density, action_interval, squash
from .likeness import LEAST_NEAR, MOST_RATIO, MOST_SHARING, NEAR
from .states import StateMap, picture_states

if TYPE_CHECKING:
    import pandas

    from .study import PrototypeStudy

OTHERS = "#C9CDD2"
_MOST_BARS = 20  # whose names can still be read
_DISTINCT = 8  # prototypes that colour alone tells apart
MOST_RIDGES = 3  # action dimensions; more get interval bars instead of densities


def plot_gallery(study: PrototypeStudy, *, most: int | None = None, columns: int = 4) -> Figure:
    """Every prototype: its state, how much it has to say, and what it does alone.

    Args:
        most: how many to show, largest mean weight first; None: all.
        columns: of the grid.
    """
    pictures, usage, prototypes = study.pictures, study.usage, study.agent.prototypes
    action_names, shown, facts = study.info.action_names, usage.order[:most], worth_of_each(study)
    rows, dims = -(-len(shown) // columns), len(action_names)
    names_width = 0.0 if dims == 1 else 0.085 * max(map(len, action_names))  # inches
    cell = 2.1
    picture = cell * pictures.frames.shape[1] / pictures.frames.shape[2]
    ridge = 0.62 if dims == 1 else max((0.36 if dims <= MOST_RIDGES else 0.15) * dims, 0.62)
    line = 0.15
    text = line * (any(pictures.captions) + any(facts)) + 0.09
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
        show_state(image_axes, pictures.frames[k], study.colors[k])
        image_axes.set_title(f"P{k}  weight {percent(usage.mean_weight[k])}", fontsize=9.5, pad=4, loc="left")
        below = filter(None, (pictures.captions[k], facts[k]))
        image_axes.set_xlabel("\n".join(below), fontsize=8, color=MUTED, labelpad=3)
        leads = f"leads {percent(usage.led[k])}" if usage.led[k] > 0 else "never leads"
        image_axes.text(1, 1.025, leads, transform=image_axes.transAxes, ha="right", fontsize=8, color=MUTED)
        if alike := study.likeness.duplicates_of(k):
            note = f"≈P{alike[0]}" + (f" +{len(alike) - 1}" if len(alike) > 1 else "")
            image_axes.text(
                0.03, 0.04, note, transform=image_axes.transAxes, fontsize=8, fontweight="bold",
                bbox={"boxstyle": "round,pad=0.2", "facecolor": "white", "edgecolor": MUTED, "linewidth": 0.6},
            )  # fmt: skip
        gaussian = prototypes.action_means[k], prototypes.action_stds[k]
        draw_action(action_axes, *gaussian, *study.bounds, action_names if column == 0 else None, study.colors[k])
        if place + columns >= len(shown):
            what = f"{action_names[0]} alone" if dims == 1 else "action alone"
            action_axes.set_xlabel(what, fontsize=8.5, labelpad=2)
    fig.text(
        0.15 / width, 1 - 0.1 / height, f"{len(shown)} of {len(usage.led)} prototypes, by mean weight; they lead "
        f"{percent(usage.led[shown].sum())} of n = {len(usage.per_decision):,} decisions", fontsize=11,
        fontweight="bold", va="top",
    )  # fmt: skip
    return fig


def worth_of_each(study: PrototypeStudy) -> list[str]:
    """What the critics expect where a prototype leads, and when that is (K); empty where it never does."""
    rows = (study.table.loc[f"P{k}"] for k in range(len(study.usage.led)))
    return [f"value {row['value']:.1f}, {row['when']:.0%} into the episode" if row["led"] > 0 else "" for row in rows]


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
    for i, base in enumerate(reversed(range(len(mean)))):
        axes.axhline(base, color=GRID, lw=0.8, zorder=0)
        middle = squash(mean[i], -1.0, 1.0)
        if len(mean) <= MOST_RIDGES:
            x, y = _density_curve(mean[i], std[i], -1.0, 1.0)
            _ridge(axes, x, 0.8 * y, base, color)
            axes.plot([middle] * 2, [base, base + 0.8], color=INK, lw=1.2, clip_on=False)
        else:
            ends = action_interval(mean[i], std[i], -1.0, 1.0)
            axes.plot(ends, [base, base], color=color, lw=3, solid_capstyle="butt")
            axes.plot(middle, base, "o", color=INK, ms=2.6)
    top = 0.95 if len(mean) <= MOST_RIDGES else 0.6
    axes.set(xlim=(-1.02, 1.02), ylim=(-0.35, len(mean) - 1 + top), yticks=[])
    axes.set_xticks([-1, 0, 1], ["low", "mid", "high"], fontsize=7.5)
    if names is not None:
        axes.set_yticks(range(len(mean)), list(names)[::-1], fontsize=7.5)
        axes.tick_params(axis="y", length=0)


def _density_curve(mean: float, std: float, low: float, high: float) -> tuple[np.ndarray, np.ndarray]:
    """Actions and their density scaled to height 1, on a grid that also samples a peak narrower than its spacing."""
    x = np.sort(np.r_[np.linspace(low, high, 400), squash(mean + std * np.linspace(-4, 4, 81), low, high)])
    density = action_density(x, mean, std, low, high)
    return x, density / max(density.max(), np.finfo(float).tiny)  # 0 where tanh has reached the bound exactly


def plot_nearest(study: PrototypeStudy, *, rows: int = 4, count: int = 4) -> Figure:
    """Rows "this prototype looks like those states": a prototype, then evaluation states nearest to it.

    Args:
        rows: how many prototypes, largest mean weight first.
        count: states of each.
    """
    pictures, shown = study.pictures, study.usage.order[:rows].tolist()
    nearest = [study.nearest[k][:count] for k in shown]
    frames = iter(picture_states(study, [state for states in nearest for state in states]))
    count = max(map(len, nearest))
    height = 1.45 * pictures.frames.shape[1] / pictures.frames.shape[2]
    size = 1.62 * (count + 1), len(shown) * (height + 0.42) + 0.45
    fig, axes = plt.subplots(len(shown), count + 1, figsize=size, squeeze=False)
    for row, (k, states) in enumerate(zip(shown, nearest, strict=True)):
        show_state(axes[row, 0], pictures.frames[k], study.colors[k], width=3.0)
        axes[row, 0].set_xlabel(pictures.captions[k], fontsize=7.5, color=MUTED, labelpad=3)
        axes[row, 0].set_title(f"P{k}", fontsize=9, pad=3, loc="left")
        for panel, state in zip(axes[row, 1:], states, strict=False):
            show_state(panel, next(frames), OTHERS)
            panel.set_xlabel(state.caption, fontsize=7.5, color=MUTED, labelpad=3)
            what = f"D {state.distance:.2g}   weight {state.weight:.0%}"
            panel.set_title(what, fontsize=7.5, pad=3, fontweight="normal")
        for panel in axes[row, 1 + len(states) :]:
            panel.axis("off")
    fig.suptitle(
        "Prototype, and the evaluation states nearest to it (D: squared distance, as the agent compares)", fontsize=10
    )
    return fig


def plot_likeness(table: pandas.DataFrame, color: str) -> Figure:
    """Four measures of likeness side by side, the agent above its controls.

    Args:
        table: from likeness.likeness_table.
        color: of the agent; controls are grey.
    """
    panels: tuple[tuple[str, str, float | None], ...] = (
        ("nearest", "leader is the nearest", None), ("near", f"leader among the {NEAR} nearest", LEAST_NEAR),
        ("ratio", "distance to the leader ÷\nof two random states", MOST_RATIO),
        ("sharing", "prototypes that\nshare a decision", MOST_SHARING),
    )  # fmt: skip
    fig, axes = plt.subplots(1, len(panels), figsize=(11, 2.1), sharey=True)
    y, tints = np.arange(len(table)), [color, *[PUBLISHED] * (len(table) - 1)]
    for panel, (name, title, bar) in zip(axes, panels, strict=True):
        panel.hlines(y, table[f"{name}_low"], table[f"{name}_high"], colors=tints, lw=2.2)
        panel.scatter(table[name], y, c=tints, s=30, zorder=3)
        if bar is not None:
            panel.axvline(bar, color=INK, lw=1, ls="--")
        panel.set_xlabel(title)
        if name == "ratio" and table[["ratio", "ratio_high"]].max().max() > 5:  # where states crowd
            panel.set_xscale("log")
            panel.xaxis.set_major_formatter("{x:g}")
        else:
            panel.set_xlim(0, 1.08 * max(table[[name, f"{name}_high"]].max().max(), bar or 0.0))
        if name in ("nearest", "near"):
            panel.set_xlim(0, 1.03)
            panel.xaxis.set_major_formatter(lambda x, _: f"{x:.0%}")
        panel.grid(False, axis="y")
    axes[0].set_yticks(y, table.index)
    axes[0].set_ylim(len(table) - 0.5, -0.5)
    return fig


def plot_state_map(study: PrototypeStudy) -> Figure:
    """All visited states on a map, coloured by the prototype that leads there, with the prototypes on it."""
    fig, axes = plt.subplots(figsize=(7.4, 5.0))
    draw_state_map(axes, study.map, study.leading, study.colors)
    return fig


def draw_state_map(
    axes: Axes, flat: StateMap, leading: np.ndarray, shades: Sequence[str], *,
    named: Sequence[int] | None = None, most: int = 4000,
) -> None:  # fmt: skip
    """States and prototypes of a flat map.

    Args:
        leading: (N,) the prototype that leads in each state.
        shades: of the prototypes.
        named: the prototypes that get a label; None: all.
        most: how many states to draw, evenly picked.
    """
    named = range(len(shades)) if named is None else named
    colors = np.array(shades)
    drawn = np.arange(0, len(leading), max(1, -(-len(leading) // most)))
    x, y = flat.states[drawn].T
    axes.scatter(x, y, c=colors[leading[drawn]], s=9, alpha=0.65, lw=0, rasterized=True)
    axes.scatter(flat.prototypes[:, 0], flat.prototypes[:, 1], c=colors, s=34, edgecolor="white", lw=1.0, zorder=4)
    axes.set(xlim=axes.get_xlim(), ylim=axes.get_ylim())  # labels are placed by these
    box, size = axes.get_window_extent(), 7.5
    low, unit = np.array([axes.get_xlim()[0], axes.get_ylim()[0]]), box.width / np.ptp(axes.get_xlim())
    unit = np.array([unit, box.height / np.ptp(axes.get_ylim())]) * 72 / axes.figure.dpi  # points
    places = spread_labels((flat.prototypes[named] - low) * unit, (3.4 * size, 1.9 * size)) / unit + low
    for k, place in zip(named, places, strict=True):
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


def plot_usage(study: PrototypeStudy) -> Figure:
    """Weights over the typical episode above its actions, at most three; beside them usage over all decisions."""
    trace, usage, colors, (low, high) = study.typical, study.usage, study.colors, study.bounds
    top = usage.order[:_DISTINCT]
    fig = plt.figure(figsize=(10.2, 4.6), layout="constrained")
    grid = fig.add_gridspec(2, 2, width_ratios=[2.3, 1], height_ratios=[1.7, 1])
    weights, actions, bars = fig.add_subplot(grid[0, 0]), fig.add_subplot(grid[1, 0]), fig.add_subplot(grid[:, 1])

    steps = np.arange(len(trace))
    stack = [trace.weights[:, k] for k in top]
    labels, shades = [f"P{k}" for k in top], [colors[k] for k in top]
    if len(usage.order) > len(top):
        others = 1 - sum(stack, start=np.zeros_like(stack[0]))
        stack, labels, shades = [*stack, others], [*labels, "others"], [*shades, OTHERS]
    weights.stackplot(steps, stack, colors=shades, labels=labels, lw=0)
    weights.set(xlim=(0, max(len(trace) - 1, 1)), ylim=(0, 1), ylabel="weight")
    weights.set_title(f"One episode (seed {trace.seed}, return {trace.total:.0f})", fontsize=10, pad=24)
    beside = {"fontsize": 8, "handlelength": 0.8, "columnspacing": 0.8}
    weights.legend(ncols=len(labels), loc="lower left", bbox_to_anchor=(-0.01, 0.99), **beside)
    weights.tick_params(labelbottom=False)
    weights.grid(False)

    for dim, name in enumerate(study.info.action_names[:3]):
        scaled = 2 * (trace.actions[:, dim] - low[dim]) / (high[dim] - low[dim]) - 1
        actions.plot(steps, scaled, lw=1.2, color=(INK, "#8C939B", cluster_color(5))[dim], label=name)
    actions.set(xlim=weights.get_xlim(), ylim=(-1.08, 1.08), xlabel="step of the episode", ylabel="action")
    actions.set_yticks([-1, 0, 1], ["low", "mid", "high"])
    actions.legend(ncols=3, fontsize=8, loc="lower right", bbox_to_anchor=(1.01, 0.97))

    own, rest = usage.order[:_MOST_BARS], usage.order[_MOST_BARS:]
    names, shades = [f"P{k}" for k in own], [colors[k] for k in own]
    if len(rest):
        names, shades = [*names, f"{len(rest)} others"], [*shades, OTHERS]
    weight, led = (np.append(of[own], of[rest].sum())[: len(names)] for of in (usage.mean_weight, usage.led))
    rows = np.arange(len(names))[::-1]
    bars.barh(rows, weight, height=0.7, color=shades)
    bars.plot(led, rows, "|", color=INK, ms=7, mew=1.4, label="share of decisions it leads")
    bars.set_yticks(rows, names, fontsize=8)
    bars.set(ylim=(-0.7, len(rows) - 0.3), xlabel="share")
    bars.xaxis.set_major_formatter(lambda x, _: f"{x:.0%}")
    bars.grid(axis="y", visible=False)
    bars.set_title(f"All episodes, n = {len(usage.per_decision):,} decisions", fontsize=10)
    # A legend in the first one's colour would speak of that prototype.
    grey = Patch(color=OTHERS, label="mean weight")
    bars.legend(handles=[grey, bars.lines[0]], loc="lower right", fontsize=8, handlelength=1.0)
    return fig


def _ridge(axes: Axes, x: np.ndarray, y: np.ndarray, base: float, color: str) -> None:
    axes.fill_between(x, base, base + y, color=color, alpha=0.45, lw=0)
    axes.plot(x, base + y, color=color, lw=1.2)
