"""Are the clusters what the paper says they are? Numbers with intervals for what a picture can't settle.

Every table answers one question. Intervals are 95% and resample environments (:mod:`.resampling`): they speak about
other levels and dice for this agent. Other training seeds are another question, which one run can't answer.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from sklearn.manifold import trustworthiness
from sklearn.metrics import silhouette_samples

from ..common.statistics import Interval, columns, group_sums, ratio_interval, sums_interval
from ..common.tsne import tsne
from .states import StateSet, sample_rows

NEIGHBOURS = 12


def code_usage(states: StateSet) -> pd.DataFrame:
    """How many of the K codes are in use: those that occur, and exp of the entropy of their shares (1 to K)."""
    kept = states.kept
    counts = np.zeros((states.meta["num_envs"], states.num_codes))
    np.add.at(counts, (states.env[kept], states.code[kept]), 1)
    perplexity = sums_interval(counts, _perplexity)
    occurring = int((counts.sum(0) > 0).sum())
    row = {"codes": states.num_codes, "codes that occur": occurring, **columns("perplexity", perplexity)}
    return pd.DataFrame([row], index=pd.Index([states.meta["game"]], name="game"))


def two_spaces(states: StateSet, size: int, *, seed: int = 0) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Up to ``size`` kept states → their rows, int64 (m,), and where they are.

    That is FDR (PPO: PCA) and t-SNE (m, 2), and features (m, 256).
    """
    rows = sample_rows(states, size, seed=seed)
    features = states.feature[rows]
    spaces = {states.map: states.fdr[rows], "t-SNE": tsne(features, seed=seed), "features (256-D)": features}
    return rows, spaces


def code_separation(
    states: StateSet, rows: np.ndarray, spaces: Mapping[str, np.ndarray], *, most: int = 6_400
) -> pd.DataFrame:
    """Do the codes lie apart, and are neighbours in a map neighbours in feature space? A row for each space.

    Silhouette of the codes (Rousseeuw 1987): 1, clusters are compact and far apart; 0, they touch; below, they mix. Its
    interval averages the silhouettes of the states of resampled environments. Trustworthiness (Venna & Kaski 2001), for
    2-D spaces: 1, no false neighbours.

    Args:
        rows: the states, int64 (m,).
        spaces: name → coordinates (m, d) of those states.
        most: states that are compared, drawn from ``rows``: each with each, which took 11.6 GB for 25,600.
    """
    if len(rows) > most:
        chosen = np.sort(np.random.default_rng(0).choice(len(rows), most, replace=False))
        rows, spaces = rows[chosen], {name: points[chosen] for name, points in spaces.items()}
    code, n = states.code[rows], states.meta["num_envs"]
    several = 1 < len(np.unique(code)) < len(code)
    table = {}
    for name, points in spaces.items():
        silhouette = Interval(np.nan, np.nan, np.nan)
        if several:
            silhouette = _mean_by_env(silhouette_samples(points, code), states.env[rows], n)
        enough = points.shape[1] == 2 and len(rows) > 2 * NEIGHBOURS
        table[name] = {
            **columns("silhouette of codes", silhouette),
            f"trustworthiness (k={NEIGHBOURS})": trustworthiness(states.feature[rows], points, n_neighbors=NEIGHBOURS)
            if enough
            else np.nan,
        }
    return pd.DataFrame(table).T.rename_axis("space")


def temporal_coherence(states: StateSet) -> pd.DataFrame:
    """Does the agent stay in a cluster? Share of steps after which the cluster is the same; a row for all and for each.

    Shuffled: the same, expected over all orders of the states within each episode, Σ_k n_k (n_k − 1) / L over
    Σ_k n_k (L − 1) / L for an episode of L states of which n_k are in k: no dice needed. A cluster that merely is
    frequent in an episode would stay just as often there.
    """
    n, num_codes = states.meta["num_envs"], states.num_codes
    code, done = (column.reshape(-1, n).T.ravel() for column in (states.code, states.done))
    env = np.repeat(np.arange(n), len(code) // n)
    last = done.astype(bool) | np.append(env[1:] != env[:-1], True)
    episode = np.append(0, np.cumsum(last)[:-1])
    counts = np.zeros((episode[-1] + 1, num_codes))
    np.add.at(counts, (episode, code), 1)
    length = counts.sum(1, keepdims=True)
    shuffled, pairs_shuffled = counts * (counts - 1) / length, counts * (length - 1) / length

    first = np.flatnonzero(~last)
    stays = code[first] == code[first + 1]
    observed, pairs = np.zeros((n, num_codes)), np.zeros((n, num_codes))
    np.add.at(observed, (env[first], code[first]), stays)
    np.add.at(pairs, (env[first], code[first]), 1)
    env_of = env[np.append(True, last[:-1])]
    by_env = [np.stack([group_sums(c, env_of, n) for c in table.T], 1) for table in (shuffled, pairs_shuffled)]

    rows = {}
    for name, part in [("all", slice(None)), *((k, [k]) for k in range(num_codes))]:
        totals = [table[:, part].sum(1) for table in (observed, pairs, *by_env)]
        rows[name] = {
            "pairs": int(totals[1].sum()),
            **columns("stays", ratio_interval(*totals[:2])),
            **columns("stays, shuffled in its episode", ratio_interval(*totals[2:])),
        }
    return pd.DataFrame(rows).T.rename_axis("cluster").astype({"pairs": int})


def _perplexity(counts: np.ndarray) -> np.ndarray:
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    log = np.log(share, where=share > 0, out=np.zeros_like(share))
    return np.exp(-(share * log).sum(1))


def _mean_by_env(values: np.ndarray, env: np.ndarray, num_envs: int) -> Interval:
    return ratio_interval(group_sums(values, env, num_envs), group_sums(np.ones(len(values)), env, num_envs))
