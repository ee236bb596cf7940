"""Intervals for quantities of states that come in groups.

Consecutive states of an environment are alike, so 30,000 states are far fewer independent observations. What is
independent are the environments (each with its own levels and dice): they are resampled whole (cluster bootstrap,
Davison & Hinkley 1997, section 3.8), and an interval says what other environments would have given.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd

from .evaluation import Interval


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
