"""How much of a map is the data, and how much the fit? FDR against t-SNE, over seeds, samples and sample sizes.

Each t-SNE is fitted to its own sample; all samples of one size share some states, and those are what is compared
between fits: by Procrustes disparity (Gower 1975; what is left after the best shift, rotation and scaling, 0 to 1) and
by how many of a state's neighbours among the shared states are its neighbours in the other map too. FDR is a function
of one state: the same state always gets the same place, so its disparity is 0 by construction. It is measured all the
same, by embedding the shared frames anew in the company of each sample.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations

import numpy as np
import pandas as pd
from scipy.spatial import procrustes
from sklearn.manifold import trustworthiness
from sklearn.neighbors import NearestNeighbors

from ..agents.sppo.agents import PPO
from ..common.errors import InterpError
from ..common.statistics import Interval, columns, jackknife_interval
from ..common.tsne import tsne
from .evidence import NEIGHBOURS
from .states import StateSet, clusters_of, sample_rows


def map_stability(
    agent: PPO,
    states: StateSet,
    *,
    sizes: Sequence[int] = (1000, 2000, 4000),
    fits: int = 4,
    shared: int = 500,
    seed: int = 0,
) -> pd.DataFrame:
    """Compare repeated fits of t-SNE, and FDR, on ``shared`` common states.

    Three things vary: the other states in the sample (t-SNE from its PCA start; FDR), or the seed alone on one sample
    (t-SNE from a random start, as it was defined and often is used).

    Returns:
        index map, what varies, states; disparity and shared neighbours over all pairs of ``fits`` fits, trustworthiness
        against feature space over the fits. Intervals: 95%, jackknife over fits.

    Raises:
        InterpError: too few states, fewer than three fits, or a PPO agent, which has no map of its own.
    """
    clusters_of(agent, "map")
    if fits < 3 or shared <= 2 * NEIGHBOURS or min(sizes) < shared:
        raise InterpError(f"stability needs 3 fits, over {2 * NEIGHBOURS} shared states and samples that hold them.")
    pool = sample_rows(states, int(states.kept.sum()))
    if len(pool) < max(sizes):
        raise InterpError(f"stability over {max(sizes)} states, but only {len(pool)} are kept. Collect more steps.")
    rng = np.random.default_rng(seed)
    common = rng.choice(pool, shared, replace=False)
    others = np.setdiff1d(pool, common)
    rows = []
    for size in sizes:
        samples = [np.append(common, rng.choice(others, size - shared, replace=False)) for _ in range(fits)]
        same = [samples[0]] * fits
        for name, varied, drawn, place in (
            ("FDR", "other states", samples, lambda sample, fit: _embed_anew(agent, states, sample, shared, fit)),
            ("t-SNE", "other states", samples, lambda sample, fit: tsne(states.feature[sample], seed=seed)),
            ("t-SNE", "seed", same, lambda sample, fit: tsne(states.feature[sample], seed=fit, start="random")),
        ):
            maps = [place(sample, fit) for fit, sample in enumerate(drawn)]
            trust = [
                trustworthiness(states.feature[s], states.fdr[s] if name == "FDR" else m, n_neighbors=NEIGHBOURS)
                for s, m in zip(drawn, maps, strict=True)
            ]
            heads = [points[:shared] for points in maps]
            rows.append(
                {
                    "map": name,
                    "varies": varied,
                    "states": size,
                    **columns("disparity", _over_pairs(heads, disparity)),
                    **columns("neighbours shared", _over_pairs(heads, shared_neighbours)),
                    **columns("trustworthiness", _over_fits(np.array(trust))),
                    "fits": fits,
                }
            )
    return pd.DataFrame(rows).set_index(["map", "varies", "states"]).sort_index(sort_remaining=True)


def disparity(a: np.ndarray, b: np.ndarray) -> float:
    """Procrustes disparity of two maps (m, 2) of the same states: 0: equal but for shift, rotation, scale, mirror."""
    return float(procrustes(a, b)[2])


def shared_neighbours(a: np.ndarray, b: np.ndarray, k: int = NEIGHBOURS) -> float:
    """Share of a state's ``k`` nearest neighbours in map ``a`` (m, 2) that are so in map ``b`` too, 0 to 1."""
    near_a, near_b = (
        NearestNeighbors(n_neighbors=k).fit(points).kneighbors(return_distance=False) for points in (a, b)
    )
    return float(np.mean([len(np.intersect1d(x, y)) / k for x, y in zip(near_a, near_b, strict=True)]))


def _embed_anew(agent: PPO, states: StateSet, sample: np.ndarray, shared: int, seed: int) -> np.ndarray:
    """FDR places of the shared states, from their frames, shuffled among as many other states of the sample."""
    rows = sample[: 2 * shared]
    order = np.random.default_rng(seed).permutation(len(rows))
    places = np.empty((len(rows), 2), np.float32)
    places[order] = agent.embed(states.frames(rows[order])).fdr
    return places[:shared]


def _over_pairs(maps: Sequence[np.ndarray], measure: Callable[[np.ndarray, np.ndarray], float]) -> Interval:
    """Mean over all pairs of fits. Pairs that share a fit are not independent, so fits are left out, not pairs."""
    values = {pair: measure(maps[pair[0]], maps[pair[1]]) for pair in combinations(range(len(maps)), 2)}
    without = [np.mean([v for pair, v in values.items() if i not in pair]) for i in range(len(maps))]
    return jackknife_interval(float(np.mean(list(values.values()))), np.array(without))


def _over_fits(values: np.ndarray) -> Interval:
    return jackknife_interval(float(values.mean()), (values.sum() - values) / (len(values) - 1))
