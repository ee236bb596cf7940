"""Statistics with 95% intervals: means, ratios of sums by group, tests, and two algorithms over several tasks.

Three resamplings, each seeded, so that the same data give the same interval:

- of samples that are independent, such as the returns of episodes (:func:`bootstrap_mean`, :func:`mean_difference`):
  percentiles, corrected for bias and skew (BCa, Efron 1987) where there are fewer than :data:`FEW`;
- of whole groups. Consecutive states of an environment are alike, so 30,000 states are far fewer independent
  observations. What is independent are the environments (each with its own levels and dice): they are resampled whole
  (cluster bootstrap, Davison & Hinkley 1997, section 3.8), and an interval says what other environments would have
  given (:func:`sums_interval`, :func:`ratio_interval`, :func:`jackknife_interval`);
- within strata (:class:`Scores`; Agarwal et al. 2021, with rliable's very draws): of runs within tasks where every task
  has three or more, and of episodes within runs where not. The latter is about these very agents.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd

from .errors import InterpError

_ENDS = ((1 - 0.95) / 2, (1 + 0.95) / 2)
LEAST_RUNS = 3  # fewer say next to nothing about their spread
RESAMPLES = 2000  # half as many where each takes long
FEW = 50  # samples, from which on percentiles alone serve as well


class Interval(NamedTuple):
    """Mean with its 95% interval."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.2f} [{self.low:.2f}, {self.high:.2f}]"


NOTHING = Interval(math.nan, math.nan, math.nan)


def bootstrap_mean(samples: np.ndarray, *, resamples: int = 2000) -> Interval:
    """Mean of ``samples`` (N,) with its bootstrap interval: BCa for N < :data:`FEW`, else percentiles."""
    samples = np.asarray(samples, dtype=np.float64)
    mean = float(samples.mean())
    if len(samples) < 2 or np.ptp(samples) == 0:
        return Interval(mean, mean, mean)
    method = "BCa" if len(samples) < FEW else "percentile"
    return Interval(mean, *_bootstrap((samples,), np.mean, method, resamples))


def mean_difference(x: np.ndarray, y: np.ndarray, *, resamples: int | None = None) -> Interval:
    """Mean of ``x`` (N,) minus mean of ``y`` (M,), resampled separately, with its interval as of bootstrap_mean."""
    resamples = resamples or RESAMPLES
    if 1 < min(len(x), len(y)) < FEW and np.ptp(x) + np.ptp(y) > 0:
        ends = _bootstrap((x, y), lambda a, b, axis: a.mean(axis) - b.mean(axis), "BCa", resamples)
        return Interval(float(np.mean(x) - np.mean(y)), *ends)
    means = [np.random.default_rng(seed).choice(v, (resamples, len(v))).mean(1) for seed, v in enumerate((x, y))]
    low, high = np.quantile(means[0] - means[1], [0.025, 0.975])
    return Interval(float(np.mean(x) - np.mean(y)), float(low), float(high))


def _bootstrap(samples: tuple, statistic: Callable, method: str, resamples: int) -> tuple[float, float]:
    from scipy.stats import bootstrap

    rng = np.random.default_rng(0)
    result = bootstrap(samples, statistic, n_resamples=resamples, method=method, batch=100, rng=rng)
    return float(result.confidence_interval.low), float(result.confidence_interval.high)


# -- sums over groups ---------------------------------------------------------------------------------------------


def group_sums(values: np.ndarray, group: np.ndarray, num_groups: int) -> np.ndarray:
    """Sum of ``values`` (N,) in each group → float64 (num_groups,)."""
    return np.bincount(group, weights=np.asarray(values, dtype=np.float64), minlength=num_groups)


def sums_interval(
    sums: np.ndarray, statistic: Callable[[np.ndarray], np.ndarray], *, resamples: int = 2000
) -> Interval:
    """Any statistic of sums over groups, with its percentile bootstrap interval, groups resampled.

    Args:
        sums: (G, C), what each group contributes to C sums.
        statistic: (R, C) sums of R resamples → (R,); NaN where a resample has none.
    """
    sums = np.asarray(sums, dtype=np.float64)
    groups = len(sums)
    draws = np.random.default_rng(0).multinomial(groups, np.full(groups, 1 / groups), size=resamples)
    values = statistic(draws @ sums)
    value = float(statistic(sums.sum(0, keepdims=True))[0])
    if np.isnan(values).all():
        return Interval(value, np.nan, np.nan)
    return Interval(value, *map(float, np.nanquantile(values, _ENDS)))


def ratio_interval(numerator: np.ndarray, denominator: np.ndarray, *, resamples: int = 2000) -> Interval:
    """Σ numerator / Σ denominator, (G,) sums of each group, with its percentile bootstrap interval, groups resampled.

    A share of states, a mean over states, a mean over stretches: each is such a ratio of sums by group. It is NaN where
    the denominators sum to 0, and has no interval where fewer than two groups have any.
    """
    sums = np.stack([numerator, denominator], axis=1).astype(np.float64)

    def ratio(total: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(total[:, 1] != 0, total[:, 0] / total[:, 1], np.nan)

    if (sums[:, 1] != 0).sum() < 2:
        return Interval(float(ratio(sums.sum(0, keepdims=True))[0]), np.nan, np.nan)
    return sums_interval(sums, ratio, resamples=resamples)


def without_each(sums: np.ndarray) -> np.ndarray:
    """Totals over n groups of ``sums`` (n, ...), then the totals without each → (1 + n, ...)."""
    total = sums.sum(0, keepdims=True)
    return np.concatenate([total, total - sums])


def jackknife_interval(value: float, without: np.ndarray, *, bounds: tuple[float, float] = (0.0, 1.0)) -> Interval:
    """Interval of ``value`` from the values without each of n groups (Tukey 1958), by Student's t for n − 1.

    It is cut at ``bounds``, those of a share. A bootstrap draws groups twice, and where a measure rewards states
    that are alike (neighbours, variance explained) it would lie above the value itself.
    """
    from scipy.stats import t

    reach = float(t.ppf(0.975, len(without) - 1) * _jackknife_error(without))
    return Interval(value, max(value - reach, bounds[0]), min(value + reach, bounds[1]))


def jackknife_p(value: float, without: np.ndarray) -> float:
    """Two-sided p of ``value``, such as a difference, being 0: the test of :func:`jackknife_interval`; NaN: neither."""
    from scipy.stats import t

    error = _jackknife_error(without)
    return float(2 * t.sf(abs(value) / error, len(without) - 1)) if error > 0 else math.nan


def _jackknife_error(without: np.ndarray) -> float:
    n = len(without)
    return float(np.sqrt((n - 1) / n * np.square(without - without.mean()).sum()))


# -- tests --------------------------------------------------------------------------------------------------------

SIGNIFICANT = 0.05


def holm(p: Sequence[float] | np.ndarray) -> np.ndarray:
    """p-values (n,) corrected for there being n of them (Holm 1979); NaN, a test that could not be made, becomes 1."""
    p = np.nan_to_num(np.asarray(p, dtype=np.float64), nan=1.0)
    order = p.argsort()
    corrected = np.empty(len(p))
    corrected[order] = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)).clip(max=1)
    return corrected


def sign_flip_p(differences: np.ndarray) -> float:
    """Two-sided p of paired ``differences`` (N,) having mean 0: signs are flipped at random, or all ways to N = 13."""
    from scipy.stats import permutation_test

    if len(differences) < 2 or not np.any(differences) or np.isnan(differences).any():
        return 1.0
    tested = permutation_test(
        (differences,), np.mean, permutation_type="samples", n_resamples=9999, rng=np.random.default_rng(0)
    )
    return float(tested.pvalue)


class Equivalence(NamedTuple):
    """A mean with its 90% interval, and one-sided p-values against the two ends of a margin.

    Equivalent means that both ends are rejected, which at 5% is the same as that interval lying within the margin.
    """

    mean: float
    low: float
    high: float
    above_low: float  # p of "the mean is −margin or less"
    below_high: float  # p of "the mean is margin or more"

    @property
    def p(self) -> float:
        """Of equivalence: the larger of both."""
        return max(self.above_low, self.below_high)


def equivalence(differences_by_seed: Sequence[float] | np.ndarray, margin: float) -> Equivalence:
    """TOST (Schuirmann 1987): is the mean of n differences within ±``margin``? Two one-sided t-tests over n seeds.

    Two seeds give an interval 6.3 standard errors to each side, and one seed gives none (NaN).
    """
    from scipy.stats import ttest_1samp

    values = np.asarray(differences_by_seed, dtype=np.float64)
    if len(values) < 2:
        return Equivalence(float(values.mean()) if len(values) else math.nan, *[math.nan] * 4)
    above = ttest_1samp(values, -margin, alternative="greater").pvalue
    below = ttest_1samp(values, margin, alternative="less").pvalue
    ends = ttest_1samp(values, 0.0).confidence_interval(0.90)
    return Equivalence(*map(float, (values.mean(), *ends, above, below)))


def equivalence_verdicts(results: Sequence[Equivalence]) -> list[str]:
    """One verdict a result, each claim corrected by :func:`holm` over the results.

    Returns:
        ``equivalent``; ``worse by more than the margin`` or ``better by more than the margin`` where the opposite
        one-sided test shows that; else ``not shown``.
    """
    claims = {
        "equivalent": [r.p for r in results],
        "worse by more than the margin": [1 - r.above_low for r in results],
        "better by more than the margin": [1 - r.below_high for r in results],
    }
    shown = {claim: holm(p) < SIGNIFICANT for claim, p in claims.items()}
    return [next((claim for claim, of in shown.items() if of[i]), "not shown") for i in range(len(results))]


# -- intervals in tables ------------------------------------------------------------------------------------------


def columns(name: str, interval: Interval, joint: str = " ") -> dict[str, float]:
    """An interval as three columns of a table: ``name``, ``name low``, ``name high`` (``joint`` before the ends)."""
    return {name: interval.mean, f"{name}{joint}low": interval.low, f"{name}{joint}high": interval.high}


def interval_of(row: pd.Series, name: str) -> Interval:
    """The interval that :func:`columns` wrote to ``row`` under ``name``."""
    return Interval(row[name], row[f"{name} low"], row[f"{name} high"])


def readable(table: pd.DataFrame, digits: int = 2) -> pd.DataFrame:
    """``table`` for the eye: an interval becomes one column, ``0.83 [0.80, 0.86]``; other numbers are rounded."""
    result = table.copy()
    for name in table.columns:
        for joint in " _":
            low, high = f"{name}{joint}low", f"{name}{joint}high"
            if low in table and high in table:
                result[name] = [
                    ""
                    if pd.isna(m)
                    else f"{m:.{digits}f}" + ("" if pd.isna(a) else f" [{a:.{digits}f}, {b:.{digits}f}]")
                    for m, a, b in zip(table[name], table[low], table[high], strict=True)
                ]
                result = result.drop(columns=[low, high])
    return result.round(digits)


# -- algorithms over tasks ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scores:
    """Scores of several runs of one method on M tasks; each task weighs alike, however many runs it has.

    Attributes:
        episodes: float64 (E, S), E episodes of each of S runs.
        tasks: (S,), the task of each run, runs of a task side by side.
    """

    episodes: np.ndarray
    tasks: tuple[str, ...]

    @classmethod
    def of(cls, returns: Mapping[str, Sequence[np.ndarray]]) -> Scores:
        """From task → for each of its runs the scores of its episodes (N,).

        Every run enters with the same number of episodes: the first ones of those that have more.

        Raises:
            InterpError: no runs, or one with fewer than two episodes.
        """
        runs = [(task, np.asarray(run, np.float64)) for task, of_task in returns.items() for run in of_task]
        common = min((len(run) for _, run in runs), default=0)
        if common < 2:
            raise InterpError("a comparison needs runs with at least two episodes each.")
        return cls(np.stack([run[:common] for _, run in runs], axis=1), tuple(task for task, _ in runs))

    @property
    def runs(self) -> dict[str, int]:
        """Number of runs of each of the M tasks."""
        return {task: self.tasks.count(task) for task in dict.fromkeys(self.tasks)}

    @property
    def unit(self) -> str:
        """What can be resampled: ``runs`` or ``episodes`` (see the module)."""
        return "runs" if min(self.runs.values()) >= LEAST_RUNS else "episodes"

    def columns_of(self, task: str) -> np.ndarray:
        """Where the runs of ``task`` stand among the S."""
        return np.flatnonzero([name == task for name in self.tasks])

    def matrix(self, unit: str) -> np.ndarray:
        """What is resampled within columns: (E, S) episodes of runs; (R, M) means of as many runs as all tasks have."""
        if unit == "episodes":
            return self.episodes
        common = min(self.runs.values())
        return np.stack([self.episodes[:, self.columns_of(t)[:common]].mean(0) for t in self.runs], axis=1)

    def balanced(self) -> np.ndarray:
        """Indices of runs, int64 (L, M): each run of a task equally often, and as many rows for every task."""
        rows = math.lcm(*self.runs.values())
        of_tasks = [self.columns_of(task) for task in self.runs]
        return np.stack([np.repeat(runs, rows // len(runs)) for runs in of_tasks], axis=1)


def interquartile_mean(scores: Scores, *, unit: str | None = None, resamples: int | None = None) -> Interval:
    """Mean of the middle half of the runs' mean scores over all tasks.

    ``unit``, here and below, is what is resampled: by default ``scores.unit``.
    """
    from scipy.stats import trim_mean

    return _of_runs(lambda means: trim_mean(means, 0.25, axis=None), scores, unit, resamples)


def mean_score(scores: Scores, *, unit: str | None = None, resamples: int | None = None) -> Interval:
    """Mean of the runs' mean scores, tasks weighing alike."""
    return _of_runs(lambda means: means.mean(0).mean(), scores, unit, resamples)


def performance_profile(
    scores: Scores, thresholds: np.ndarray, *, unit: str | None = None, resamples: int | None = None
) -> np.ndarray:
    """Share of episodes (of runs, if those are resampled) above each of ``thresholds`` (T,), tasks weighing alike.

    Returns:
        float64 (3, T): the share and its pointwise 95% interval.
    """
    unit = unit or scores.unit
    used = scores.balanced().ravel() if unit == "episodes" else np.arange(len(scores.runs))

    def shares(matrix: np.ndarray) -> np.ndarray:
        values = np.sort(matrix[:, used], axis=None)
        return (values.size - np.searchsorted(values, thresholds, side="right")) / values.size

    return _resampled(shares, [scores.matrix(unit)], resamples or RESAMPLES // 2)


def probability_of_improvement(
    ours: Scores, theirs: Scores, *, unit: str | None = None, resamples: int | None = None
) -> tuple[Interval, dict[str, Interval]]:
    """P(an episode of ``ours`` scores more than one of ``theirs`` on the same task); ties count half.

    Where runs are resampled it is the probability for the mean scores of runs. 0.5 means neither is better.

    Returns:
        the mean over tasks and the probability of each task, with 95% intervals.

    Raises:
        InterpError: the two were not measured on the same tasks.
    """
    if list(ours.runs) != list(theirs.runs):
        raise InterpError("two algorithms can only be compared on the same tasks, in the same order.")
    unit = unit or ("runs" if ours.unit == theirs.unit == "runs" else "episodes")
    places = [
        [s.columns_of(task) if unit == "episodes" else [m] for m, task in enumerate(s.runs)] for s in (ours, theirs)
    ]

    def probabilities(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        pairs = zip(*places, strict=True)
        of_tasks = [_share_won(x[:, ours_here].ravel(), y[:, theirs_here].ravel()) for ours_here, theirs_here in pairs]
        return np.array([np.mean(of_tasks), *of_tasks])

    estimate = _resampled(probabilities, [ours.matrix(unit), theirs.matrix(unit)], resamples or RESAMPLES // 2)
    overall, *tasks = (Interval(*map(float, column)) for column in estimate.T)
    return overall, dict(zip(ours.runs, tasks, strict=True))


def _share_won(x: np.ndarray, y: np.ndarray) -> float:
    """Share of pairs of ``x`` and ``y`` in which ``x`` is larger, ties half: Mann and Whitney's U over its maximum."""
    y = np.sort(y)
    below = np.searchsorted(y, x, side="left").sum() + np.searchsorted(y, x, side="right").sum()
    return below / 2 / (len(x) * len(y))


def _of_runs(statistic: Callable, scores: Scores, unit: str | None, resamples: int | None) -> Interval:
    unit, balanced = unit or scores.unit, scores.balanced()

    def value(matrix: np.ndarray) -> np.ndarray:
        return np.array([statistic(matrix.mean(0)[balanced] if unit == "episodes" else matrix)])

    return Interval(*map(float, _resampled(value, [scores.matrix(unit)], resamples or RESAMPLES)[:, 0]))


def _resampled(statistic: Callable[..., np.ndarray], matrices: list[np.ndarray], resamples: int) -> np.ndarray:
    """``statistic`` (K,) of matrices, each resampled within its columns: the value and its 95% interval, (3, K)."""
    dice = np.random.RandomState(0)  # numpy's older generator, which rliable draws from
    values = [
        statistic(*(np.take_along_axis(m, dice.choice(len(m), m.shape), axis=0) for m in matrices))
        for _ in range(resamples)
    ]
    return np.vstack([statistic(*matrices), np.percentile(values, [100 * end for end in _ENDS], axis=0)])
