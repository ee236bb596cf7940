"""Each paper's question put to the other paper's agent.

Semantic clustering asks what a policy groups together: here of ProtoSAC, whose groups are the states that one prototype
leads. Prototypes ask what a state is compared with: here of SPPO, whose clusters get a state to stand for them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from .embedding import END, StateSet, tsne
from .explain import EpisodeTrace, PrototypeStudy, StateMap
from .transitions import transitions_between


@dataclass(frozen=True)
class LeaderGraph:
    """ProtoSAC seen as semantic clustering sees SPPO: maps, and who follows whom.

    Attributes:
        latents: t-SNE of a sample of latent states (m, 2) and of the prototypes (K, 2), embedded together.
        leading: (m,) int64, the prototype that leads in each of those states.
        transitions: as :func:`~interp_lib.transitions.transition_table`; intervals resample episodes.
        dwell: mean steps a prototype leads at a stretch, by prototype that ever leads.
        share: (K,) of all decisions, how many it leads.
    """

    latents: StateMap
    leading: np.ndarray
    transitions: pd.DataFrame
    dwell: dict[int, float]
    share: np.ndarray


def leading_stretches(traces: Sequence[EpisodeTrace]) -> pd.DataFrame:
    """The stretches of steps that one prototype leads, as :func:`~interp_lib.embedding.stretches` gives them.

    Returns:
        columns ``env`` (the episode), ``start`` (step), ``length`` (steps), ``cluster`` (the prototype) and ``next``:
        the prototype that follows, ``END`` at the episode's end.
    """
    parts = []
    for episode, trace in enumerate(traces):
        leading = trace.leading
        start = np.flatnonzero(np.append(True, leading[1:] != leading[:-1]))
        parts.append(
            pd.DataFrame(
                {
                    "env": episode,
                    "start": start,
                    "length": np.diff(np.append(start, len(leading))),
                    "cluster": leading[start],
                    "next": np.append(leading[start[1:]], END),
                }
            )
        )
    return pd.concat(parts, ignore_index=True)


def leader_graph(study: PrototypeStudy, *, most: int = 1200, seed: int = 0) -> LeaderGraph:
    """Map a ProtoSAC agent's latent states and follow its leading prototypes.

    Args:
        most: states in the map, drawn evenly from all episodes; t-SNE of 1,000 takes seconds.

    Raises:
        InterpError: fewer than about 90 states, too few for t-SNE.
    """
    leading = np.concatenate([trace.leading for trace in study.traces])
    observations = np.concatenate([trace.observations for trace in study.traces])
    rows = np.unique(np.linspace(0, len(leading) - 1, most).astype(np.int64))
    prototypes = study.agent.prototypes.latents
    points = tsne(np.concatenate([study.agent.encode(observations[rows]), prototypes]), seed=seed)
    flat = StateMap(points[: len(rows)], points[len(rows) :], ("t-SNE₁ of the latent state", "t-SNE₂"))
    found = leading_stretches(study.traces)
    return LeaderGraph(
        flat,
        leading[rows],
        transitions_between(found, len(study.traces)),
        found.groupby("cluster")["length"].mean().to_dict(),
        study.usage.led,
    )


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
