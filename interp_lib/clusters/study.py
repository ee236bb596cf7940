"""What the states of a cluster have in common: how often, how long, how good, what is done, what it looks like."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from ..agents.sppo.agents import PPO
from ..common.statistics import columns, group_sums, ratio_interval
from ..envs.actions import ACTION_EFFECTS
from .groups import effect_probabilities
from .states import StateSet, return_to_go, stretches


def cluster_table(agent: PPO, states: StateSet, descriptions: Mapping[int, str] | None = None) -> pd.DataFrame:
    """One row a cluster, over the kept states: share, dwell time, value, return to go, likely actions, description.

    Intervals resample environments (see :mod:`.resampling`). A cluster without states has NaN and empty texts.
    """
    n = states.meta["num_envs"]
    to_go, found, actions = return_to_go(states), stretches(states), action_table(agent, states)
    rows = []
    for k in range(states.num_codes):
        member = states.kept & (states.code == k)
        count = int(member.sum())
        of_k = found[found["cluster"] == k]
        env = of_k["env"].to_numpy()
        dwell = ratio_interval(group_sums(of_k["length"], env, n), group_sums(np.ones(len(of_k)), env, n))
        likely = actions.loc[k].sort_values(ascending=False, kind="stable")[:3] if count else {}
        rows.append(
            {
                "cluster": k,
                "states": count,
                "share": count / max(int(states.kept.sum()), 1),
                **columns("mean dwell (steps)", dwell),
                "value": float(states.value[member].mean()) if count else np.nan,
                "value std": float(states.value[member].std()) if count else np.nan,
                "return to go": float(to_go[member].mean()) if count else np.nan,
                "return to go std": float(to_go[member].std()) if count else np.nan,
                "likely actions": ", ".join(f"{effect} {share:.0%}" for effect, share in likely.items()),
                "description": (descriptions or {}).get(k, ""),
            }
        )
    return pd.DataFrame(rows).set_index("cluster")


def action_table(agent: PPO, states: StateSet) -> pd.DataFrame:
    """What the policy does in each cluster: its mean probability of each effect (envs.actions) over the kept states.

    Probabilities, and not what was done: some actions in the states were random. Rows sum to 1; NaN for an empty
    cluster.
    """
    rows = np.flatnonzero(states.kept)
    probabilities = pd.DataFrame(
        effect_probabilities(agent, states, rows), columns=[*ACTION_EFFECTS[states.meta["game"]]]
    )
    means = probabilities.astype(float).groupby(states.code[rows]).mean()
    return means.reindex(range(states.num_codes)).rename_axis("cluster")


def mean_images(states: StateSet, *, per_cluster: int = 500, seed: int = 0) -> dict[int, np.ndarray]:
    """Mean observation of each cluster that has states → uint8 (64, 64, 3) by cluster."""
    rng = np.random.default_rng(seed)
    images = {}
    for k in range(states.num_codes):
        rows = np.flatnonzero(states.kept & (states.code == k))
        if len(rows):
            rows = rng.choice(rows, min(per_cluster, len(rows)), replace=False)
            images[k] = states.frames(rows).mean(0).round().astype(np.uint8)
    return images


def representative_rows(states: StateSet, k: int, count: int = 4) -> np.ndarray:
    """States of cluster ``k`` nearest to its median in FDR space, at most one a level → int64 (m ≤ count,)."""
    rows = np.flatnonzero(states.kept & (states.code == k))
    if not len(rows):
        return rows
    centre = np.median(states.fdr[rows], axis=0)
    order = rows[np.argsort(np.square(states.fdr[rows] - centre).sum(1), kind="stable")]
    _, first = np.unique(states.level[order], return_index=True)
    return order[np.sort(first)][:count]
