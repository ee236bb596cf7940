"""Groups of samples: k-means, and how much of a variance a grouping explains."""

from __future__ import annotations

from typing import Any

import numpy as np


def k_means(points: np.ndarray, count: int, seed: int) -> Any:
    """scikit-learn's k-means of ``points`` (n, d) in ``count`` clusters."""
    from sklearn.cluster import KMeans

    return KMeans(count, n_init=3, random_state=seed).fit(points)


def explained_variance(samples: np.ndarray, grouping: np.ndarray, count: int) -> float:
    """1 − within-group / total variance of ``samples`` (N, d) by ``grouping`` (N,), mean over dimensions that vary."""
    total = ((samples - samples.mean(0)) ** 2).sum(0)
    sizes = np.bincount(grouping, minlength=count)
    sums = np.stack([np.bincount(grouping, weights=column, minlength=count) for column in samples.T], axis=1)
    means = sums / np.maximum(sizes, 1)[:, None]
    within = ((samples - means[grouping]) ** 2).sum(0)
    varies = total > 0
    return float((1 - within[varies] / total[varies]).mean()) if varies.any() else float("nan")
