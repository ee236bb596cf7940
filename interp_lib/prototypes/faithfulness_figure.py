"""Pictures of how faithful explanations are: enough, needed, these states, pure. Dots: means, lines: 95% intervals."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ..common.style import INK

_CONTROL = "#8C939B"


def plot_faithfulness(
    top: pd.DataFrame,
    ablation: pd.DataFrame,
    placed: pd.DataFrame,
    pure: pd.DataFrame,
    colors: Sequence[str],
    agent_color: str,
) -> Figure:
    """Four questions side by side; controls are grey.

    Args:
        top, ablation, placed, pure: from faithfulness.top_k_returns, ablation_returns, placement_returns and purity.
        colors: of the prototypes, by number.
        agent_color: of what is the agent's own.
    """
    figure, grid = plt.subplots(2, 2, figsize=(11, 7.6))
    axes = grid.ravel()
    names = [name.replace("(the agent)", "of them") for name in top.index]
    controls = ["random" in name for name in top.index]
    _intervals(axes[0], names, top, ("mean", "low", "high"), [_CONTROL if c else agent_color for c in controls])
    axes[0].set(title="Enough? Who acts", xlabel=f"return (n = {top['episodes'].iloc[0]} episodes)")
    _intervals(
        axes[1],
        [f"P{k}" for k in ablation.index],
        ablation,
        ("loss", "low", "high"),
        [colors[k] for k in ablation.index],
    )
    axes[1].axvline(0, color=INK, lw=0.8)
    axes[1].set(title="Needed? Who is taken away", xlabel=f"return lost (n = {ablation['episodes'].iloc[0]} episodes)")
    own = [name == "the agent's own" for name in placed.index]
    _intervals(
        axes[2],
        [name.replace(" nearest to ", "\nnearest to ") for name in placed.index],
        placed,
        ("mean", "low", "high"),
        [agent_color if o else _CONTROL for o in own],
    )
    axes[2].set(title="These states? Prototypes are", xlabel=f"return (n = {placed['episodes'].iloc[0]} episodes)")
    for shift, what, marker in ((-0.13, "actions", "o"), (0.13, "values", "s")):
        tints = [agent_color if name == "leading prototype" else _CONTROL for name in pure.index]
        columns = (what, f"{what}_low", f"{what}_high")
        _intervals(axes[3], list(pure.index), pure, columns, tints, shift=shift, marker=marker)
        axes[3].plot([], [], marker, color=INK, label=what)
    axes[3].set(
        title="Pure? States grouped by", xlabel="share of variance explained", xlim=(min(0, pure.min().min()), 1.02)
    )
    axes[3].legend(loc="lower right")
    return figure


def _intervals(
    axes: Axes,
    names: Sequence[str],
    table: pd.DataFrame,
    columns: tuple[str, str, str],
    colors: Sequence[str],
    *,
    shift: float = 0.0,
    marker: str = "o",
) -> None:
    """One row a name, from the top: a dot at the mean, a line over the interval."""
    y = np.arange(len(names)) + shift
    mean, low, high = (table[column].to_numpy() for column in columns)
    axes.hlines(y, low, high, colors=colors, lw=2.2)
    for at, value, color in zip(y, mean, colors, strict=True):
        axes.plot(value, at, marker, color=color, ms=5.5)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.grid(False, axis="y")
