"""TODO clusters.medoids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ..agents.sppo.agents import PPO
from ..clusters.states import StateSet
from ..clusters.study import action_table
from ..common.labels import percent
from ..common.outputs import Outputs
from ..common.style import INK, MUTED, cluster_color, show_state


def save_medoids(agent: PPO, states: StateSet, outputs: Outputs, runs: Sequence[Path]) -> dict[int, int]:
    """Save a state for each cluster of an SPPO agent, as a gallery of prototypes; returns its row by cluster."""
    medoids = cluster_medoids(states)
    member = {k: states.kept & (states.code == k) for k in medoids}
    counts = {k: int(of_k.sum()) for k, of_k in member.items()}
    total = sum(counts.values())
    figure = plot_medoids(
        {k: states.frames([row])[0] for k, row in medoids.items()},
        counts,
        {k: float(states.value[of_k].mean()) for k, of_k in member.items()},
        action_table(agent, states),
        f"A state for each cluster of SPPO on {states.meta['game']}, n = {total:,} states",
    )
    outputs.figure(
        figure,
        "cluster_medoids",
        f"Clusters of the SPPO agent on {states.meta['game']} shown as prototypes: the medoid of each in feature space "
        "(the state with the smallest sum of distances to up to 500 others of its cluster) and the likeliest "
        f"actions there: mean probability under the policy. n = {total:,} states on unseen levels.",
        runs,
    )
    return medoids


def cluster_medoids(states: StateSet, *, per_cluster: int = 500, seed: int = 0) -> dict[int, int]:
    """The state that stands for each cluster of an SPPO agent, as a prototype would.

    The medoid in the space of features h (256 numbers, Euclidean): the smallest sum of distances to the other states
    of its cluster, over up to ``per_cluster`` kept ones drawn at random.

    Returns:
        row by cluster; clusters without states are left out.
    """
    from scipy.spatial.distance import cdist

    rng = np.random.default_rng(seed)
    medoids = {}
    for k in range(states.num_codes):
        rows = np.flatnonzero(states.kept & (states.code == k))
        if len(rows):
            rows = np.sort(rng.choice(rows, min(per_cluster, len(rows)), replace=False))
            medoids[k] = int(rows[cdist(states.feature[rows], states.feature[rows]).sum(1).argmin()])
    return medoids


def plot_medoids(
    frames: Mapping[int, np.ndarray], counts: Mapping[int, int], values: Mapping[int, float], actions: pd.DataFrame,
    title: str, *, columns: int = 4, top: int = 4,
) -> Figure:  # fmt: skip
    """SPPO's clusters as prototypes: the state that stands for each, and what is done in the cluster.

    Args:
        frames: uint8 (64, 64, 3) by cluster: its medoid.
        counts: states by cluster.
        values: mean value estimate by cluster, scaled reward.
        actions: probability of each action, a row a cluster (:func:`~interp_lib.clusters.study.action_table`).
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
