"""Pictures of each paper's question put to the other's agent, in the style of both."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ..bridge import LeaderGraph
from ..explain import PrototypePictures, Usage
from ..style import INK, MUTED, cluster_color
from .labels import percent
from .prototypes import draw_state_map, show_state
from .transitions import draw_transitions

_MOST_NODES = 8  # as many as colours tell apart
LEAST_SHARE = 0.02
LEAST_NEXT = 0.15  # prototypes take turns faster than clusters do: with 10% the arrows hide each other


def plot_leader_graph(graph: LeaderGraph, pictures: PrototypePictures, usage: Usage) -> Figure:
    """ProtoSAC as semantic clustering shows SPPO: latent states by leading prototype, and which one follows which.

    Args:
        graph: from :func:`~interp_lib.bridge.leader_graph`.
        pictures: of the K prototypes.
        usage: for the colours. Of the eight prototypes with the largest mean weight, those that lead in at least 2% of
            all decisions are nodes.
    """
    fig, (left, right) = plt.subplots(1, 2, figsize=(13.2, 6.2), width_ratios=[1, 1.1])
    draw_state_map(left, graph.latents, graph.leading, usage)
    rank = {int(k): i for i, k in enumerate(usage.order)}  # a prototype's colour is that of its rank
    shown = [int(k) for k in usage.order[:_MOST_NODES] if graph.share[k] >= LEAST_SHARE]
    moves = graph.transitions.rename(index=rank)
    draw_transitions(
        right,
        moves,
        {rank[k]: _place(graph, k) for k in shown},
        {rank[k]: float(graph.share[k]) for k in shown},
        {rank[k]: _square(pictures.frames[k]) for k in shown},
        {rank[k]: graph.dwell[k] for k in shown},
        names={rank[k]: f"P{k}" for k in shown},
        least=LEAST_NEXT,
        smallest=0.34,
        apart=0.95,
    )
    right.set_title("Which prototype leads next", fontsize=10.5)
    return fig


def plot_medoids(
    frames: Mapping[int, np.ndarray], counts: Mapping[int, int], values: Mapping[int, float], actions: pd.DataFrame,
    title: str, *, columns: int = 4, top: int = 4,
) -> Figure:  # fmt: skip
    """SPPO's clusters as prototypes: the state that stands for each, and what is done in the cluster.

    Args:
        frames: uint8 (64, 64, 3) by cluster: its medoid.
        counts: states by cluster.
        values: mean value estimate by cluster, scaled reward.
        actions: probability of each action, a row a cluster (:func:`~interp_lib.clusters.action_table`).
        title: of the figure.
        columns: of the grid.
        top: how many actions to show, the likeliest.
    """
    shown = sorted(frames, key=lambda k: -counts[k])
    total, longest = sum(counts.values()), float(np.nanmax(actions.loc[shown]))
    rows = -(-len(shown) // columns)
    fig, grid = plt.subplots(
        2 * rows, columns, figsize=(1.95 * columns, 3.1 * rows + 0.4), height_ratios=[2.1, 0.9] * rows, squeeze=False
    )
    for place in range(rows * columns):
        row, column = divmod(place, columns)
        picture, bars = grid[2 * row, column], grid[2 * row + 1, column]
        if place >= len(shown):
            picture.axis("off")
            bars.axis("off")
            continue
        k = shown[place]
        color = cluster_color(k)
        show_state(picture, frames[k], color, width=3.0)
        share = counts[k] / total
        picture.set_title(f"cluster {k}   {percent(share)}", fontsize=9.5, pad=4)
        picture.set_xlabel(f"n = {counts[k]:,}, mean value {values[k]:.2f}", fontsize=8, color=MUTED, labelpad=3)
        most = actions.loc[k].sort_values(ascending=False, kind="stable").iloc[:top][::-1]
        most = most[most > 0]
        bars.barh(range(len(most)), most, color=color, height=0.7)
        for y, value in enumerate(most):
            bars.text(value + 0.03 * longest, y, f"{value:.0%}", va="center", fontsize=7.5, color=INK)
        bars.set_yticks(range(len(most)), most.index, fontsize=7.5)
        bars.set(xlim=(0, 1.25 * longest), ylim=(-0.6, top - 0.4))
        bars.xaxis.set_major_formatter(lambda x, _: f"{x:.0%}")
        bars.tick_params(axis="x", labelsize=7.5)
        bars.grid(axis="y", visible=False)
        if place + columns >= len(shown):
            bars.set_xlabel("mean probability", fontsize=8.5, labelpad=2)
    fig.suptitle(title, fontsize=11)
    return fig


def _place(graph: LeaderGraph, k: int) -> np.ndarray:
    """Where prototype ``k`` stands in the map: the median of the states it leads, its own place if none is drawn."""
    led = graph.leading == k
    return np.median(graph.latents.states[led], axis=0) if led.any() else graph.latents.prototypes[k]


def _square(frame: np.ndarray) -> np.ndarray:
    """A picture as wide as high: its middle, where that is all there is, else the whole between white bars."""
    height, width = frame.shape[:2]
    side, longer = min(height, width), max(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    margins = np.concatenate([frame[:top].ravel(), frame[:, :left].ravel(), frame[top + side :].ravel()])
    margins = np.concatenate([margins, frame[:, left + side :].ravel()])
    if (margins == 255).all():
        return frame[top : top + side, left : left + side]
    square = np.full((longer, longer, 3), 255, dtype=np.uint8)  # cutting would lose who is at the rim
    top, left = (longer - height) // 2, (longer - width) // 2
    square[top : top + height, left : left + width] = frame
    return square
