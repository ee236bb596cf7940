"""How much of a map is the data, and how much the fit? t-SNE over disjoint samples, perplexities and starts.

One thing varies at a time. Environments, each with its own levels, are split: a quarter gives *common* states, which no
map is fitted to, the others a sample each. Common states are placed in every map, and what two maps say of them is
compared: Procrustes disparity (Gower 1975; what is left after the best shift, turn and scale, 0 to 1), the share of
nearest neighbours that are so in both, and the groups that k-means reads off each map (fitted to its sample).

FDR is a function, so it would pass by construction. What it can do is to show what the comparison itself costs: it is
placed like t-SNE, by neighbours in each sample, as if it were not known. What can change FDR is training:
:mod:`.retraining`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pandas as pd
from scipy.spatial import procrustes
from sklearn.decomposition import PCA
from sklearn.metrics import adjusted_rand_score
from sklearn.neighbors import NearestNeighbors

from ..common.errors import InterpError
from ..common.grouping import k_means
from ..common.statistics import SIGNIFICANT, columns, holm, interval_of, jackknife_interval, jackknife_p
from ..common.tsne import tsne_with
from .evidence import NEIGHBOURS
from .states import StateSet

PERPLEXITY, PLACED_BY = 30.0, 5  # of the maps in which something else varies; neighbours that place a state in FDR
MEASURES = {"disparity": (0.0, 1.0), "neighbours shared": (0.0, 1.0), "groups alike": (-1.0, 1.0)}  # and their ends
FIRST, *_ = MEASURES  # less is better
PLACED, SAMPLE, START = "FDR, placed by neighbours", "sample", "start"
ONLY_GROUPS = "k-means' seed"
T = TypeVar("T")


class Placed(NamedTuple):
    """The common states in one map: places (m, 2), and groups that k-means finds there, int (m,)."""

    points: np.ndarray
    groups: np.ndarray


def tsne_stability(
    states: StateSet,
    *,
    size: int = 700,
    common: int = 500,
    samples: int = 4,
    perplexities: Sequence[float] = (10.0, PERPLEXITY, 100.0),
    starts: int = 3,
    seed: int = 0,
) -> pd.DataFrame:
    """Compare maps of ``common`` held-out states that differ in one thing.

    Args:
        size: states of every sample, from environments of its own.
        samples: disjoint samples: t-SNE (perplexity 30, PCA start), PCA-2 and FDR placed by neighbours.
        perplexities: of t-SNE on one sample, every two of them compared.
        starts: random starts of t-SNE on one sample.

    Returns:
        index ``map``, ``varies``; the means over all pairs of ``fits`` fits of disparity, neighbours shared (k = 12)
        and groups alike (adjusted Rand index), with 95% intervals by jackknife over what ``interval over`` says: fits,
        or, where nothing was drawn by chance but the states, the common states' environments; ``greatest disparity`` of
        a pair. ``p`` of each measure, of t-SNE over samples: of being what it is for FDR, placed by neighbours;
        corrected (Holm).

    Raises:
        InterpError: fewer than three fits, too few states, or states of a PPO agent, which has no map of its own.
    """
    if states.map != "FDR":
        raise InterpError("a ppo run has no map to compare with t-SNE. Choose an sppo run.")
    if min(samples, starts) < 3 or len(perplexities) < 2 or common <= 2 * NEIGHBOURS:
        raise InterpError(f"stability needs 3 samples and starts, 2 perplexities and {2 * NEIGHBOURS + 1} states.")
    rng = np.random.default_rng(seed)
    held, pools = _split(states, samples, rng)
    if len(held) < common or min(map(len, pools)) < size:
        left = f"{len(held)} and {', '.join(str(len(pool)) for pool in pools)}"
        raise InterpError(f"stability over {common} and {samples} × {size} states, but {left} are kept. Collect more.")
    held, drawn = (np.sort(rng.choice(rows, n, replace=False)) for rows, n in ((held, common), (pools[0], size)))
    parts = [drawn, *(np.sort(rng.choice(pool, size, replace=False)) for pool in pools[1:])]
    h, env, k = states.feature, states.env[held], states.num_codes

    def read(fit: np.ndarray, points: np.ndarray, dice: int = seed) -> Placed:
        return Placed(points, k_means(fit, min(k, len(fit)), dice).predict(points.astype(fit.dtype)))

    def by_tsne(part: np.ndarray, **how: Any) -> tuple[np.ndarray, np.ndarray]:
        return tsne_with(h[part], h[held], **{"seed": seed, "perplexity": PERPLEXITY, "jobs": 1, **how})

    def by_pca(part: np.ndarray) -> Placed:
        fit = PCA(2).fit(h[part])
        return read(fit.transform(h[part]), fit.transform(h[held]))

    def by_neighbours(part: np.ndarray) -> Placed:
        near = NearestNeighbors(n_neighbors=PLACED_BY).fit(h[part]).kneighbors(h[held], return_distance=False)
        return read(states.fdr[part], states.fdr[part][near].mean(1))

    first = by_tsne(parts[0])
    fdr, tsne = [by_neighbours(part) for part in parts], [read(*first), *(read(*by_tsne(p)) for p in parts[1:])]
    over_samples, floor = over_pairs(tsne, _compare), over_pairs(fdr, _compare)
    rows = {
        (PLACED, SAMPLE): _row(floor, samples),
        ("PCA", SAMPLE): _row(over_pairs([by_pca(part) for part in parts], _compare), samples),
        ("t-SNE", SAMPLE): _row(over_samples, samples),
        ("t-SNE", START): _row(
            over_pairs([read(*by_tsne(parts[0], start="random", seed=s)) for s in range(starts)], _compare), starts
        ),
    }
    apart = over_samples[0] - floor[0]
    corrected = holm([jackknife_p(float(of[0]), of[1:]) for of in apart.T])
    rows["t-SNE", SAMPLE] |= dict(zip((f"p {measure}" for measure in MEASURES), corrected, strict=True))
    given = {p: tsne[0] if p == PERPLEXITY else read(*by_tsne(parts[0], perplexity=p)) for p in perplexities}
    for (p, a), (q, b) in combinations(given.items(), 2):
        rows["t-SNE", f"perplexity {p:g} to {q:g}"] = _row(_over_environments(a, b, env), 2, "environments")
    again = [read(*first, dice=seed + s) for s in range(starts)]
    rows["t-SNE", ONLY_GROUPS] = _row(over_pairs(again, _compare), starts)
    return pd.DataFrame(rows).T.rename_axis(["map", "varies"]).infer_objects().assign(states=size, common=common)


def stability_verdict(table: pd.DataFrame) -> str:
    """What :func:`tsne_stability` found about t-SNE."""

    def said(*row: str) -> str:
        of = table.loc[row]
        near, alike = interval_of(of, "neighbours shared"), interval_of(of, "groups alike")
        return f"neighbours shared {near}, groups alike {alike}, disparity {interval_of(of, 'disparity')}"

    sample, floor = table.loc[("t-SNE", SAMPLE)], table.loc[(PLACED, SAMPLE)]
    tests = {m: f"{m} (p = {sample[f'p {m}']:.2g})" for m in MEASURES}
    worse = [m for m in MEASURES if sample[f"p {m}"] < SIGNIFICANT and (sample[m] > floor[m]) == (m == FIRST)]
    found = [f"less stable than that by {' and '.join(tests[m] for m in worse)}"] if worse else []
    if len(worse) < len(MEASURES):
        found.append(f"not shown to be less stable by {' and '.join(tests[m] for m in MEASURES if m not in worse)}")
    perplexity = table[table.index.get_level_values("varies").str.startswith("perplexity")]["groups alike"]
    again = table.loc[("t-SNE", ONLY_GROUPS), "groups alike"]
    return (
        f"t-SNE over {sample['fits']:.0f} disjoint samples of {sample['states']:,.0f} states: {said('t-SNE', SAMPLE)}. "
        f"FDR placed by neighbours, which does not move: {said(PLACED, SAMPLE)}. t-SNE is {', and '.join(found)} "
        f"(jackknife over samples, Holm). Over {table.loc[('t-SNE', START), 'fits']:.0f} random starts on one sample: "
        f"{said('t-SNE', START)}. Groups alike over perplexities: {perplexity.min():.2f} to {perplexity.max():.2f}; "
        f"where only k-means starts anew on the same map: {again:.2f}."
    )


def disparity(a: np.ndarray, b: np.ndarray) -> float:
    """Procrustes disparity of two maps (m, 2) of the same states: 0: equal but for shift, rotation, scale, mirror."""
    return float(procrustes(a, b)[2])


def shared_neighbours(a: np.ndarray, b: np.ndarray, k: int = NEIGHBOURS) -> float:
    """Share of a state's ``k`` nearest neighbours in map ``a`` (m, 2) that are so in map ``b`` too, 0 to 1."""
    near_a, near_b = (
        NearestNeighbors(n_neighbors=k).fit(points).kneighbors(return_distance=False) for points in (a, b)
    )
    return float(np.mean([len(np.intersect1d(x, y)) / k for x, y in zip(near_a, near_b, strict=True)]))


def _split(states: StateSet, samples: int, rng: np.random.Generator) -> tuple[np.ndarray, list[np.ndarray]]:
    """Kept rows of a quarter of the environments, and those of ``samples`` parts of the others."""
    envs = rng.permutation(states.meta["num_envs"])
    parts = [envs[: len(envs) // 4], *np.array_split(envs[len(envs) // 4 :], samples)]
    held, *pools = (np.flatnonzero(states.kept & np.isin(states.env, part)) for part in parts)
    return held, pools


def _compare(a: Placed, b: Placed) -> tuple[float, ...]:
    alike = adjusted_rand_score(a.groups, b.groups)
    return disparity(a.points, b.points), shared_neighbours(a.points, b.points), float(alike)


def over_pairs(
    fits: Sequence[T], measure: Callable[[T, T], Sequence[float]]
) -> tuple[np.ndarray, Mapping[tuple[int, int], Sequence[float]]]:
    """Means over all pairs of n fits, then those without each fit, float64 (1 + n, measures); and the pairs' own.

    Pairs that share a fit are not independent, so fits are left out, not pairs.
    """
    values = {(i, j): measure(fits[i], fits[j]) for i, j in combinations(range(len(fits)), 2)}
    without = [np.mean([v for pair, v in values.items() if i not in pair], axis=0) for i in range(len(fits))]
    return np.array([np.mean(list(values.values()), axis=0), *without]), values


def _over_environments(
    a: Placed, b: Placed, env: np.ndarray
) -> tuple[np.ndarray, Mapping[tuple[int, int], Sequence[float]]]:
    """The same of one pair, then without each environment of the states (m,)."""
    keeps = [np.ones(len(env), bool), *(env != e for e in np.unique(env))]
    found = [_compare(*(Placed(x.points[keep], x.groups[keep]) for x in (a, b))) for keep in keeps]
    return np.array(found), {(0, 1): found[0]}


def _row(
    found: tuple[np.ndarray, Mapping[tuple[int, int], Sequence[float]]], fits: int, over: str = "fits"
) -> dict[str, float | str]:
    (value, *without), pairs = found
    row: dict[str, float | str] = {}
    for i, (name, bounds) in enumerate(MEASURES.items()):
        row |= columns(name, jackknife_interval(float(value[i]), np.array(without)[:, i], bounds=bounds))
    greatest = max(pair[0] for pair in pairs.values())
    return {**row, "greatest disparity": greatest, "fits": fits, "interval over": over}
