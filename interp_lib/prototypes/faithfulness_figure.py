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
    top: pd.DataFrame, ablation: pd.DataFrame, placed: pd.DataFrame, pure: pd.DataFrame, colors: Sequence[str],
    agent_color: str,
) -> Figure:  # fmt: skip
    """Four questions side by side; controls are grey.

    Args:
        top, ablation, placed, pure: from faithfulness.top_k_returns, ablation_returns, placement_returns and purity.
        colors: of the prototypes, by number.
        agent_color: of what is the agent's own.
    """
    figure, grid = plt.subplots(2, 2, figsize=(11, 7.6))
    enough, needed, these, purest = grid.ravel()
    n = f"(n = {top['episodes'].iloc[0]} episodes)"
    tints = [_CONTROL if "random" in name else agent_color for name in top.index]
    _intervals(enough, [name.replace("(the agent)", "of them") for name in top.index], top, "mean", tints)
    enough.set(title="Enough? Who acts", xlabel=f"return {n}")
    _intervals(needed, [f"P{k}" for k in ablation.index], ablation, "loss", [colors[k] for k in ablation.index])
    needed.axvline(0, color=INK, lw=0.8)
    needed.set(title="Needed? Who is taken away", xlabel=f"return lost {n}")
    tints = [agent_color if name == "the agent's own" else _CONTROL for name in placed.index]
    names = [name.replace(" nearest to ", "\nnearest to ") for name in placed.index]
    _intervals(these, names, placed, "mean", tints)
    these.set(title="These states? Prototypes are", xlabel=f"return {n}")
    tints = [agent_color if name == "leading prototype" else _CONTROL for name in pure.index]
    for shift, what, marker in ((-0.13, "actions", "o"), (0.13, "values", "s")):
        _intervals(purest, list(pure.index), pure, what, tints, f"{what}_", shift=shift, marker=marker)
        purest.plot([], [], marker, color=INK, label=what)
    left = min(0, pure.min().min())
    purest.set(title="Pure? States grouped by", xlabel="share of variance explained", xlim=(left, 1.02))
    purest.legend(loc="lower right")
    return figure


def _intervals(
    axes: Axes, names: Sequence[str], table: pd.DataFrame, mean: str, colors: Sequence[str], ends: str = "",
    *, shift: float = 0.0, marker: str = "o",
) -> None:  # fmt: skip
    """One row a name, from the top: a dot at ``mean``, a line from ``<ends>low`` to ``<ends>high``."""
    y = np.arange(len(names)) + shift
    axes.hlines(y, table[f"{ends}low"], table[f"{ends}high"], colors=colors, lw=2.2)
    for at, value, color in zip(y, table[mean], colors, strict=True):
        axes.plot(value, at, marker, color=color, ms=5.5)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.grid(False, axis="y")
