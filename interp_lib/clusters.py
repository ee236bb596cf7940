"""What the states of a cluster have in common: how often, how long, how good, what is done, what it looks like."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from .embedding import StateSet, return_to_go, stretches
from .envs.procgen import ACTION_NAMES
from .resampling import columns, group_sums, ratio_interval


def cluster_table(states: StateSet, descriptions: Mapping[int, str] | None = None) -> pd.DataFrame:
    """One row a cluster, over the kept states: share, dwell time, value, return to go, frequent actions, description.

    Intervals resample environments (see :mod:`.resampling`). A cluster without states has NaN and empty texts.
    """
    n = states.meta["num_envs"]
    to_go, found, actions = return_to_go(states), stretches(states), action_shares(states)
    rows = []
    for k in range(states.num_codes):
        member = states.kept & (states.code == k)
        count = int(member.sum())
        of_k = found[found["cluster"] == k]
        env = of_k["env"].to_numpy()
        dwell = ratio_interval(group_sums(of_k["length"], env, n), group_sums(np.ones(len(of_k)), env, n))
        top = [a for a in np.argsort(-actions.loc[k].to_numpy(), kind="stable")[:3] if count and actions.loc[k].iloc[a]]
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
                "frequent actions": ", ".join(f"{ACTION_NAMES[a]} {actions.loc[k].iloc[a]:.0%}" for a in top),
                "description": (descriptions or {}).get(k, ""),
            }
        )
    return pd.DataFrame(rows).set_index("cluster")


def action_shares(states: StateSet) -> pd.DataFrame:
    """How often each action was taken in each cluster, over the kept states: rows sum to 1; NaN for an empty cluster.

    The states hold what was done, random actions included.
    """
    counts = np.zeros((states.num_codes, len(ACTION_NAMES)))
    np.add.at(counts, (states.code[states.kept], states.action[states.kept]), 1)
    with np.errstate(invalid="ignore"):
        shares = counts / counts.sum(1, keepdims=True)
    return pd.DataFrame(shares, columns=list(ACTION_NAMES)).rename_axis("cluster")


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
