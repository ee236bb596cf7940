"""ProtoSAC's agents asked what semantic clustering asks of SPPO's: where are its states, and which follow which?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ..common.graphs import END, LEAST_VISITS, draw_transitions, transitions_between
from ..common.outputs import Outputs
from ..common.tsne import tsne
from .figures import draw_state_map
from .states import StateMap
from .traces import EpisodeTrace

if TYPE_CHECKING:
    from .study import PrototypeStudy

MOST_NODES = 8  # as many as colours tell apart
LEAST_SHARE = 0.02  # of all decisions, for a node
LEAST_NEXT = 0.15  # prototypes take turns faster than clusters do: with 10% the arrows hide each other


@dataclass(frozen=True)
class LeaderGraph:
    """ProtoSAC seen as semantic clustering sees SPPO: maps, and who follows whom.

    Attributes:
        latents: t-SNE of a sample of latent states (m, 2) and of the prototypes (K, 2), embedded together.
        leading: (m,) int64, the prototype that leads in each of those states.
        transitions: of :func:`~interp_lib.common.graphs.transitions_between`; intervals resample episodes.
        dwell: mean steps a prototype leads at a stretch, by prototype that ever leads.
    """

    latents: StateMap
    leading: np.ndarray
    transitions: pd.DataFrame
    dwell: dict[int, float]


def leading_stretches(traces: Sequence[EpisodeTrace]) -> pd.DataFrame:
    """The stretches of steps that one prototype leads, as :func:`~interp_lib.clusters.states.stretches` gives them.

    Returns:
        columns ``env`` (the episode), ``start`` (step), ``length`` (steps), ``cluster`` (the prototype) and ``next``:
        the prototype that follows, ``END`` at the episode's end.
    """
    parts = []
    for episode, trace in enumerate(traces):
        leading = trace.leading
        start = np.flatnonzero(np.append(True, leading[1:] != leading[:-1]))
        length, following = np.diff(np.append(start, len(leading))), np.append(leading[start[1:]], END)
        stretch = {"env": episode, "start": start, "length": length, "cluster": leading[start], "next": following}
        parts.append(pd.DataFrame(stretch))
    return pd.concat(parts, ignore_index=True)


def leader_graph(study: PrototypeStudy, *, most: int = 1200, seed: int = 0) -> LeaderGraph:
    """Map a ProtoSAC agent's latent states and follow its leading prototypes.

    Args:
        most: states in the map, drawn evenly from all episodes; t-SNE of 1,000 takes seconds.

    Raises:
        InterpError: fewer than about 90 states, too few for t-SNE.
    """
    rows = np.unique(np.linspace(0, len(study.leading) - 1, most).astype(np.int64))
    latents = study.agent.encode(study.observations[rows])
    points = tsne(np.concatenate([latents, study.agent.prototypes.latents]), seed=seed)
    flat = StateMap(points[: len(rows)], points[len(rows) :], ("t-SNE₁ of the agent's space", "t-SNE₂"))
    found = leading_stretches(study.traces)
    dwell = found.groupby("cluster")["length"].mean().to_dict()
    return LeaderGraph(flat, study.leading[rows], transitions_between(found, len(study.traces)), dwell)


def plot_leader_graph(study: PrototypeStudy, graph: LeaderGraph) -> Figure:
    """Latent states by leading prototype, and which prototype follows which.

    Of the eight prototypes with the largest mean weight, those that lead in at least 2% of all decisions are nodes.
    """
    fig, (left, right) = plt.subplots(1, 2, figsize=(13.2, 6.2), width_ratios=[1, 1.1])
    draw_state_map(left, graph.latents, graph.leading, study.colors, named=study.usage.order[:MOST_NODES].tolist())
    order, share = study.usage.order.tolist(), study.usage.led
    shown = {rank: k for rank, k in enumerate(order[:MOST_NODES]) if share[k] >= LEAST_SHARE}
    draw_transitions(
        right,
        graph.transitions.rename(index={k: rank for rank, k in enumerate(order)}),  # its colour is that of its rank
        {rank: _place(graph, k) for rank, k in shown.items()},
        {rank: float(share[k]) for rank, k in shown.items()},
        {rank: _square(study.pictures.frames[k]) for rank, k in shown.items()},
        {rank: graph.dwell[k] for rank, k in shown.items()},
        names={rank: f"P{k}" for rank, k in shown.items()},
        least=LEAST_NEXT,
        smallest=0.34,
        apart=0.95,
    )
    right.set_title("Which prototype leads next", fontsize=10.5)
    return fig


def save_leader_graph(study: PrototypeStudy, outputs: Outputs, runs: Sequence[Path], *, seed: int = 0) -> None:
    """Save ProtoSAC's latent states as semantic clustering shows SPPO's, and which prototype follows which.

    Raises:
        InterpError: too few states for t-SNE.
    """
    graph = leader_graph(study, seed=seed)
    outputs.figure(
        plot_leader_graph(study, graph),
        "leader_graph",
        f"Left: t-SNE of {len(graph.leading):,} states of the {study.info.gym_id} agent with its prototypes, "
        f"coloured by leading prototype, the {MOST_NODES} with most weight named. Right: prototypes that lead in at "
        f"least {LEAST_SHARE:.0%} of {study.size}, with that share and the mean steps they lead at a stretch; arrows: "
        f"who leads next, from {LEAST_NEXT:.0%} on, of prototypes left at least {LEAST_VISITS} times. "
        f"{study.pictures.note}",
        runs,
    )


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
