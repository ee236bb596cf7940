"""Intervals for quantities of states that come in groups.

Consecutive states of an environment are alike, so 30,000 states are far fewer independent observations. What is
independent are the environments (each with its own levels and dice): they are resampled whole (cluster bootstrap,
Davison & Hinkley 1997, section 3.8), and an interval says what other environments would have given.
"""

from __future__ import annotations

import contextlib
import importlib.util
import math
import sys
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from .errors import InterpError


def bootstrap_mean(samples: np.ndarray, *, confidence: float = 0.95, resamples: int = 2000) -> Interval:
    """Percentile bootstrap interval of the mean of ``samples`` (N,), seeded: the same data give the same interval."""
    from scipy.stats import bootstrap

    samples = np.asarray(samples, dtype=np.float64)
    mean = float(samples.mean())
    if len(samples) < 2 or np.ptp(samples) == 0:
        return Interval(mean, mean, mean)
    result = bootstrap(
        (samples,),
        np.mean,
        confidence_level=confidence,
        n_resamples=resamples,
        method="percentile",
        batch=100,
        random_state=np.random.default_rng(0),
    )
    return Interval(mean, float(result.confidence_interval.low), float(result.confidence_interval.high))


class Interval(NamedTuple):
    """Mean with its 95% interval."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.2f} [{self.low:.2f}, {self.high:.2f}]"


def ratio_interval(
    numerator: np.ndarray, denominator: np.ndarray, *, confidence: float = 0.95, resamples: int = 2000
) -> Interval:
    """Σ numerator / Σ denominator with its percentile bootstrap interval, groups resampled.

    A share of states, a mean over states, a mean over stretches: each is such a ratio of sums by group.

    Args:
        numerator, denominator: (G,), sums of each group.

    Returns:
        NaNs where the denominators sum to 0; an interval of NaNs where fewer than two groups have any.
    """
    sums = np.stack([numerator, denominator], axis=1).astype(np.float64)

    def ratio(total: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(total[:, 1] != 0, total[:, 0] / total[:, 1], np.nan)

    if (sums[:, 1] != 0).sum() < 2:
        return Interval(float(ratio(sums.sum(0, keepdims=True))[0]), np.nan, np.nan)
    return sums_interval(sums, ratio, confidence=confidence, resamples=resamples)


def sums_interval(
    sums: np.ndarray,
    statistic: Callable[[np.ndarray], np.ndarray],
    *,
    confidence: float = 0.95,
    resamples: int = 2000,
) -> Interval:
    """Any statistic of sums over groups, with its percentile bootstrap interval; the same data give the same.

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
    low, high = np.nanquantile(values, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(value, float(low), float(high))


def jackknife_interval(value: float, without: np.ndarray) -> Interval:
    """95% interval of ``value`` from the values without each of n groups (Tukey 1958), by Student's t for n − 1.

    For measures between 0 and 1, where it is cut. A bootstrap draws groups twice, and where a measure rewards states
    that are alike (neighbours, variance explained) it would lie above the value itself.
    """
    from scipy.stats import t

    n = len(without)
    error = np.sqrt((n - 1) / n * np.square(without - without.mean()).sum())
    reach = float(t.ppf(0.975, n - 1) * error)
    return Interval(value, max(value - reach, 0.0), min(value + reach, 1.0))


def group_sums(values: np.ndarray, group: np.ndarray, num_groups: int) -> np.ndarray:
    """Sum of ``values`` (N,) in each group → float64 (num_groups,)."""
    return np.bincount(group, weights=np.asarray(values, dtype=np.float64), minlength=num_groups)


def columns(name: str, interval: Interval) -> dict[str, float]:
    """An interval as three columns of a table: ``name``, ``name low``, ``name high``."""
    return {name: interval.mean, f"{name} low": interval.low, f"{name} high": interval.high}


def readable(table: pd.DataFrame, digits: int = 2) -> pd.DataFrame:
    """``table`` for the eye: an interval becomes one column, ``0.83 [0.80, 0.86]``; other numbers are rounded."""
    result = table.copy()
    for name in table.columns:
        low, high = f"{name} low", f"{name} high"
        if low in table and high in table:
            result[name] = [
                "" if pd.isna(m) else f"{m:.{digits}f}" + ("" if pd.isna(a) else f" [{a:.{digits}f}, {b:.{digits}f}]")
                for m, a, b in zip(table[name], table[low], table[high], strict=True)
            ]
            result = result.drop(columns=[low, high])
    return result.round(digits)


LEAST_RUNS = 3  # fewer say next to nothing about their spread


RESAMPLES = 2000  # half as many where each takes long


@dataclass(frozen=True)
class Scores:
    """Normalised returns of one algorithm's trained runs on M tasks; each task weighs alike, however many runs it has.

    Attributes:
        episodes: float64 (E, S), E episodes of each of S runs.
        tasks: (S,), the task of each run, runs of a task side by side.
    """

    episodes: np.ndarray
    tasks: tuple[str, ...]

    @classmethod
    def of(cls, returns: Mapping[str, Sequence[np.ndarray]]) -> Scores:
        """From task → for each of its runs the normalised returns of its episodes (N,).

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
    def task_names(self) -> tuple[str, ...]:
        """The M tasks."""
        return tuple(dict.fromkeys(self.tasks))

    @property
    def runs(self) -> dict[str, int]:
        """Number of runs of each task."""
        return {task: self.tasks.count(task) for task in self.task_names}

    @property
    def unit(self) -> str:
        """What can be resampled: ``runs`` or ``episodes`` (see the module)."""
        return "runs" if min(self.runs.values()) >= LEAST_RUNS else "episodes"

    def columns_of(self, task: str) -> np.ndarray:
        """Where the runs of ``task`` stand among the S."""
        return np.flatnonzero([name == task for name in self.tasks])

    def matrix(self, unit: str) -> np.ndarray:
        """What rliable resamples within columns.

        Returns:
            ``episodes``: (E, S), a column a run. ``runs``: (R, M), mean returns, a column a task, R the number of runs
            that every task has.
        """
        if unit == "episodes":
            return self.episodes
        common = min(self.runs.values())
        return np.stack([self.episodes[:, self.columns_of(t)[:common]].mean(0) for t in self.task_names], axis=1)

    def balanced(self) -> np.ndarray:
        """Indices of runs, int64 (L, M): each run of a task equally often, and as many rows for every task."""
        rows = math.lcm(*self.runs.values())
        columns = [self.columns_of(task) for task in self.task_names]
        return np.stack([np.repeat(column, rows // len(column)) for column in columns], axis=1)


def interquartile_mean(scores: Scores, *, unit: str | None = None, resamples: int | None = None) -> Interval:
    """Mean of the middle half of the runs' mean returns over all tasks, with its 95% interval.

    Args:
        unit: what is resampled; ``scores.unit`` if None.
    """
    _, metrics = _rliable()
    return _of_runs(metrics.aggregate_iqm, scores, unit, resamples)


def mean_score(scores: Scores, *, unit: str | None = None, resamples: int | None = None) -> Interval:
    """Mean of the runs' mean returns, tasks weighing alike, with its 95% interval."""
    _, metrics = _rliable()
    return _of_runs(metrics.aggregate_mean, scores, unit, resamples)


def performance_profile(
    scores: Scores, thresholds: np.ndarray, *, unit: str | None = None, resamples: int | None = None
) -> np.ndarray:
    """Share of episodes (or of runs, if those are resampled) that score above each threshold, tasks weighing alike.

    Args:
        thresholds: (T,).

    Returns:
        float64 (3, T): the share and its pointwise 95% interval.
    """
    library, _ = _rliable()
    unit = unit or scores.unit
    columns = scores.balanced().ravel() if unit == "episodes" else np.arange(len(scores.task_names))
    return _estimate(
        lambda matrix: library.score_distributions(matrix[:, columns], thresholds),
        [scores.matrix(unit)],
        resamples or RESAMPLES // 2,
    )


def probability_of_improvement(
    ours: Scores, theirs: Scores, *, unit: str | None = None, resamples: int | None = None
) -> tuple[Interval, dict[str, Interval]]:
    """P(an episode of ``ours`` returns more than one of ``theirs`` on the same task); ties count half.

    Where runs are resampled it is the probability for the mean returns of runs. 0.5 means neither is better.

    Returns:
        the mean over tasks and the probability of each task, with 95% intervals.

    Raises:
        InterpError: the two were not measured on the same tasks.
    """
    if ours.task_names != theirs.task_names:
        raise InterpError("two algorithms can only be compared on the same tasks, in the same order.")
    _, metrics = _rliable()
    both_have_runs = ours.unit == theirs.unit == "runs"
    unit = unit or ("runs" if both_have_runs else "episodes")

    def by_task(scores: Scores, matrix: np.ndarray) -> list[np.ndarray]:
        if unit == "runs":
            return [matrix[:, [m]] for m in range(matrix.shape[1])]
        return [matrix[:, scores.columns_of(task)].reshape(-1, 1) for task in scores.task_names]

    def probabilities(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore", divide="ignore"):  # of the test's p-value, which is not used
            of_tasks = [
                metrics.probability_of_improvement(a, b)
                for a, b in zip(by_task(ours, x), by_task(theirs, y), strict=True)
            ]
        return np.array([np.mean(of_tasks), *of_tasks])

    estimate = _estimate(probabilities, [ours.matrix(unit), theirs.matrix(unit)], resamples or RESAMPLES // 2)
    overall, *tasks = (Interval(*map(float, column)) for column in estimate.T)
    return overall, dict(zip(ours.task_names, tasks, strict=True))


def mean_difference(x: np.ndarray, y: np.ndarray, *, resamples: int | None = None) -> Interval:
    """Mean of ``x`` (N,) minus mean of ``y`` (M,) with its 95% percentile bootstrap interval, resampled separately."""
    resamples = resamples or RESAMPLES
    means = [np.random.default_rng(seed).choice(v, (resamples, len(v))).mean(1) for seed, v in enumerate((x, y))]
    low, high = np.quantile(means[0] - means[1], [0.025, 0.975])
    return Interval(float(np.mean(x) - np.mean(y)), float(low), float(high))


def between(returns: np.ndarray, low: float, high: float) -> np.ndarray:
    """Returns on a scale of two policies: 0 at the mean return ``low`` of one, 1 at ``high`` of the other.

    Raises:
        InterpError: the second is no better than the first, so there is no scale.
    """
    if not high > low:
        raise InterpError(f"no scale from {low:.2f} to {high:.2f}: the reference is no better than its zero.")
    return (np.asarray(returns, np.float64) - low) / (high - low)


def _of_runs(statistic: Callable, scores: Scores, unit: str | None, resamples: int | None) -> Interval:
    unit = unit or scores.unit
    balanced = scores.balanced()

    def value(matrix: np.ndarray) -> np.ndarray:
        return np.array([statistic(matrix.mean(0)[balanced] if unit == "episodes" else matrix)])

    return Interval(*map(float, _estimate(value, [scores.matrix(unit)], resamples or RESAMPLES)[:, 0]))


def _estimate(statistic: Callable[..., np.ndarray], matrices: list[np.ndarray], resamples: int) -> np.ndarray:
    """``statistic`` (K,) of matrices, each resampled within its columns: the value and its 95% interval, (3, K)."""
    library, _ = _rliable()
    data: Any = matrices[0] if len(matrices) == 1 else matrices
    with _numpy_seeded():
        values, intervals = library.get_interval_estimates({"": data}, statistic, reps=resamples)
    return np.vstack([values[""], intervals[""]])


@contextlib.contextmanager
def _numpy_seeded() -> Iterator[None]:
    """rliable draws from numpy's global generator, whatever ``random_state`` it is given; put that back afterwards."""
    state = np.random.get_state()
    np.random.seed(0)
    try:
        yield
    finally:
        np.random.set_state(state)


def _rliable() -> tuple[types.ModuleType, types.ModuleType]:
    """rliable's modules ``library`` and ``metrics``.

    rliable takes its bootstrap from arch, and only works with arch < 8, whose time-series models fail to import under
    pandas 3. The bootstrap doesn't need them: for the time of the import a package that holds nothing but arch's
    folder stands in for it, so that its ``__init__``, which imports those models, isn't run.
    """
    stand_in = "rliable.library" not in sys.modules and "arch" not in sys.modules
    if stand_in:
        found = importlib.util.find_spec("arch")
        if found is None:
            raise InterpError("arch is not installed, which rliable needs. Run `make install`.")
        sys.modules["arch"] = types.ModuleType("arch")
        sys.modules["arch"].__path__ = list(found.submodule_search_locations or [])
    try:
        from rliable import library, metrics
    except ImportError as error:
        raise InterpError(f"rliable is not installed ({error}). Run `make install`.") from error
    finally:
        if stand_in:
            del sys.modules["arch"]
    return library, metrics
