"""Learning curves in the paper's form: smoothed, mean and spread over seeds, beside the published ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ..agents.registry import ALGORITHMS
from ..common.style import PUBLISHED

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def smooth(values: np.ndarray, weight: float = 0.9) -> np.ndarray:
    """Exponential moving average with ``weight`` on the past (paper: 0.9); NaNs before the first episode stay out."""
    return pd.Series(values).ewm(alpha=1 - weight, adjust=False, ignore_na=True).mean().to_numpy()


def draw_curve(
    ax: Axes, steps: np.ndarray, values: np.ndarray, *, method: str, label: str, smoothing: float = 0.9
) -> None:
    """One run: the raw curve faint, its moving average on top.

    Args:
        steps, values: (T,), environment steps and mean return.
        method: name of an algorithm.
    """
    color = ALGORITHMS[method].color
    ax.plot(steps, values, color=color, alpha=0.25, linewidth=0.8)
    ax.plot(steps, smooth(values, smoothing), color=color, linewidth=2, label=label)


def draw_seeds(
    ax: Axes, seeds: pd.DataFrame, *, method: str, label: str, smoothing: float = 0.9, linewidth: float = 2
) -> None:
    """Several seeds of one method in the paper's form: each smoothed, then their mean, and ± one standard deviation.

    The deviation is the sample's (n − 1), over seeds; with one seed there is no band.

    Args:
        seeds: index environment steps, a column a seed.
        method: name of an algorithm.
    """
    curves = seeds.apply(lambda seed: smooth(seed.to_numpy(), smoothing))
    mean, color = curves.mean(axis=1), ALGORITHMS[method].color
    if curves.shape[1] > 1:
        spread = curves.std(axis=1, ddof=1)
        ax.fill_between(curves.index, mean - spread, mean + spread, color=color, alpha=0.22, lw=0)
    ax.plot(curves.index, mean, color=color, linewidth=linewidth, label=label)


def draw_published(ax: Axes, published: pd.DataFrame, label: str = "", *, last_step: float) -> None:
    """Published seeds as a band from their minimum to their maximum, and their mean, up to ``last_step``.

    Args:
        published: index total_timesteps, a column a seed (see ``published_seeds``).
        label: whose they are; empty where that is said elsewhere.
    """
    part = published[published.index <= max(last_step, published.index[0])].apply(lambda seed: smooth(seed.to_numpy()))
    steps, low, high, mean = (x.to_numpy() for x in (part.index, part.min(axis=1), part.max(axis=1), part.mean(axis=1)))
    ax.fill_between(
        steps, low, high, color=PUBLISHED, alpha=0.45, lw=0,
        label=f"{label}, published (min–max of {published.shape[1]} seeds)".lstrip(", "),
    )  # fmt: skip
    ax.plot(steps, mean, color="#6B7280", linewidth=1.5, linestyle="--", label="their mean")


def plot_games(
    curves: Mapping[str, Mapping[str, pd.Series]], published: Mapping[str, Mapping[str, pd.DataFrame]]
) -> Figure:
    """Learning curves of all games, a column a game and a row a method, inside the range of the published seeds.

    Args:
        curves: method (name of an algorithm) → title of the game → returns by environment steps.
        published: the same for the published seeds, index environment steps, a column a seed.
    """
    import matplotlib.pyplot as plt

    games = list(dict.fromkeys(game for of_method in curves.values() for game in of_method))
    figure, axes = plt.subplots(
        len(curves), len(games), figsize=(3.3 * len(games), 2.5 * len(curves) + 0.5), sharex=True, sharey="col",
        squeeze=False,
    )  # fmt: skip
    bottom = len(curves) - 1
    for place, (method, of_method) in enumerate(curves.items()):
        name = ALGORITHMS[method].title
        for ax, game in zip(axes[place], games, strict=True):
            if game not in of_method:
                ax.axis("off")
                continue
            curve = of_method[game]
            draw_published(ax, published[method][game], last_step=curve.index[-1])
            draw_curve(ax, curve.index.to_numpy(), curve.to_numpy(), method=method, label=f"{name}, here (1 seed)")
            label_axes(ax, f"{name} on {game}", ylabel="mean return" if ax is axes[place, 0] else "")
            ax.get_legend().remove()
            if place < bottom:
                ax.set_xlabel("")
    handles = {text: handle for ax in axes[:, 0] for handle, text in zip(*ax.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="outside upper center", ncols=len(handles))
    return figure


def label_axes(ax: Axes, title: str, *, ylabel: str = "mean return, last 100 episodes") -> None:
    """Axis labels with units; steps in millions or thousands, whichever reads better."""
    limit = ax.get_xlim()[1]
    scale, unit = (1e6, "million") if limit >= 1e6 else (1e3, "thousand")
    ax.xaxis.set_major_formatter(lambda x, _: f"{x / scale:g}")
    ax.set_xlabel(f"environment steps ({unit})")
    ax.set_ylabel(ylabel)
    ax.set_title(title)
    ax.legend(loc="best")
