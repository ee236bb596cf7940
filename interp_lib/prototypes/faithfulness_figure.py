"""Pictures of how faithful explanations are: enough, needed, these states, pure. Dots: means, lines: 95% intervals."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ..common.style import GRID, INK
from .faithfulness import EFFECT

_CONTROL = "#8C939B"
_FILLED = {"needed": "full", "undecided": "left", "not needed": "none"}  # told apart without colour


def plot_faithfulness(
    controls: pd.DataFrame, ablation: pd.DataFrame, pure: pd.DataFrame, colors: Sequence[str], agent_color: str
) -> Figure:
    """Four questions side by side; controls are grey, losses below the effect size lie in a shaded zone.

    Args:
        controls, ablation, pure: from faithfulness.Controls.losses and purity.
        colors: of the prototypes, by number.
        agent_color: of what is the agent's own.
    """
    figure, grid = plt.subplots(2, 2, figsize=(11, 7.6))
    enough, needed, these, purest = grid.ravel()
    lost = f"return lost, % of random → agent (n = {ablation['episodes'].iloc[0]} episodes)"
    placed = controls.index.str.contains("states")
    for axes, title, table, names in (
        (enough, "Enough? Who acts", controls[~placed], None),
        (needed, "Needed? Who is taken away", ablation, [f"P{k}" for k in ablation.index]),
        (these, "These states? Prototypes are", controls[placed], None),
    ):
        of_prototypes = names is not None
        tints = [colors[k] if of_prototypes else agent_color if "top" in k else _CONTROL for k in table.index]
        filled = [_FILLED[verdict] for verdict in table["verdict"]]
        _intervals(axes, names or list(table.index), table, "loss", tints, filled=filled)
        low, high = axes.get_xlim()
        axes.set_xlim(min(low, -0.3 * EFFECT), max(high, 1.6 * EFFECT))
        axes.axvspan(axes.get_xlim()[0], EFFECT, color=GRID, zorder=0)
        axes.axvline(0, color=INK, lw=0.8)
        axes.set(title=title, xlabel=lost)
    for verdict, style in _FILLED.items():
        needed.plot([], [], "o", color=INK, fillstyle=style, markerfacecoloralt="white", label=verdict)
    needed.plot([], [], "s", color=GRID, ms=9, label=f"below {EFFECT:g}%")
    needed.legend(loc="best")
    tints = [agent_color if name == "leading prototype" else _CONTROL for name in pure.index]
    for shift, what, marker in ((-0.13, "actions", "o"), (0.13, "values", "s")):
        _intervals(purest, list(pure.index), pure, what, tints, f"{what}_", shift=shift, marker=marker)
        purest.plot([], [], marker, color=INK, label=what)
    left = min(-0.02, pure.min().min())
    purest.set(title="Pure? States grouped by", xlabel="share of variance explained", xlim=(left, 1.02))
    purest.legend(loc="lower right")
    return figure


def _intervals(
    axes: Axes, names: Sequence[str], table: pd.DataFrame, mean: str, colors: Sequence[str], ends: str = "",
    *, shift: float = 0.0, marker: str = "o", filled: Sequence[str] = (),
) -> None:  # fmt: skip
    """One row a name, from the top: a dot at ``mean``, a line from ``<ends>low`` to ``<ends>high``; ``filled``: how."""
    y = np.arange(len(names)) + shift
    axes.hlines(y, table[f"{ends}low"], table[f"{ends}high"], colors=colors, lw=2.2)
    for at, value, color, style in zip(y, table[mean], colors, filled or ["full"] * len(y), strict=True):
        face = "white" if style == "none" else color
        style = "full" if style == "none" else style
        axes.plot(value, at, marker, color=color, mfc=face, markerfacecoloralt="white", fillstyle=style, ms=7)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.grid(False, axis="y")
