"""Saved outputs of :mod:`.stability` and :mod:`.retraining`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from ..common.outputs import Outputs
from ..runs.folder import Run
from .retraining import RESTARTS, Retraining, relatives
from .stability import PLACED_BY, tsne_stability
from .stability_figure import plot_agreement, plot_matched
from .states import StateSet
from .study import ClusterStudy


def save_tsne_stability(states: StateSet, outputs: Outputs, runs: Iterable[Path], **how: Any) -> pd.DataFrame:
    """Save the table of :func:`.tsne_stability`, which takes ``how``; returns it."""
    table = tsne_stability(states, **how)
    common, size = table.iloc[0][["common", "states"]]
    outputs.table(
        table,
        "map_stability",
        f"{common:,} held-out states placed in maps fitted to {size:,} states of other environments: Procrustes "
        "disparity, shared neighbours (k = 12) and adjusted Rand index of the groups that k-means finds in each map, "
        "means over all pairs of fits that differ in one thing. 95% intervals by jackknife over fits, of "
        f"perplexities over environments. FDR, which does not move, is placed by {PLACED_BY} neighbours, for "
        "what placing costs; p: against it (Holm).",
        runs,
    )
    return table


def save_retraining(study: ClusterStudy, run: Run, outputs: Outputs, *, size: int = 1000) -> Retraining:
    """Save what other trainings of the game, of ``run``'s own folder, make of ``study``'s states; returns it."""
    found = relatives(run)
    retraining = Retraining(study, found, size)
    runs = [run.path, *(other.path for _, other in found.values())]
    envs, game = study.states.meta["num_envs"], study.states.meta["game"]
    n = f"n = {len(retraining.rows):,} states of {game} on unseen levels, collected by the agent of {retraining.name}"
    outputs.table(
        retraining.table,
        "retraining",
        f"Agents of several trainings on the same states: adjusted Rand index and NMI of codes, the same of k-means on "
        "each agent's h, share of states in matched codes, Procrustes disparity of maps. Bounds: shuffled, and "
        f"{RESTARTS} starts of k-means on one h. {n}. 95% intervals by jackknife over {envs} environments, not over "
        f"seeds; p corrected (Holm). {retraining.verdict}",
        runs,
    )
    outputs.figure(
        plot_agreement(retraining.table),
        "retraining_agreement",
        f"How far two trainings agree. Left: adjusted Rand index of codes and of k-means on each agent's h (1: the "
        "same groups, 0: chance). Right: Procrustes disparity of each agent's FDR, t-SNE and PCA-2 of h (0: the same "
        f"map but for turn and scale). {n}. Bars: 95%, jackknife over {envs} environments, one agent each.",
        runs,
    )
    outputs.figure(
        plot_matched(retraining.views),
        "retraining_maps",
        "The same states in the FDR maps of several trainings. Left: the agent shown elsewhere, scaled to norm 1. "
        "Middle: another, turned and scaled to fit it best, its codes numbered and coloured as those they share most "
        f"states with (Hungarian). Right: its map in the codes of the left. {n}.",
        runs,
    )
    return retraining
