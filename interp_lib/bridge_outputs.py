"""The outputs of notebook 04 that put each paper's question to the other paper's agent, saved with captions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from .bridge import cluster_medoids, leader_graph
from .clusters import action_table
from .embedding import StateSet
from .explain import PrototypeStudy
from .outputs import Outputs
from .plots.bridge import LEAST_NEXT, LEAST_SHARE, plot_leader_graph, plot_medoids
from .plots.transitions import LEAST_VISITS
from .semantic.agents import PPO


def save_leader_graph(study: PrototypeStudy, outputs: Outputs, runs: Sequence[Path], *, seed: int = 0) -> None:
    """Save ProtoSAC's latent states as semantic clustering shows SPPO's, and which prototype follows which.

    Raises:
        InterpError: too few states for t-SNE.
    """
    graph = leader_graph(study, seed=seed)
    outputs.figure(
        plot_leader_graph(graph, study.pictures, study.usage),
        "leader_graph",
        f"Left: t-SNE of {len(graph.leading):,} latent states of the {study.info.gym_id} agent with its prototypes, "
        f"coloured by leading prototype. Right: prototypes that lead in at least {LEAST_SHARE:.0%} of "
        f"n = {len(study.usage.per_decision):,} decisions in {len(study.traces)} episodes, with that share and the "
        f"mean steps they lead at a stretch; arrows: who leads next, from {LEAST_NEXT:.0%} on, of prototypes "
        f"left at least {LEAST_VISITS} times. {study.pictures.note}",
        runs,
    )


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
