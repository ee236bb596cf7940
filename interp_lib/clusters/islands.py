"""Is a cluster one place in the map, or several?"""

from __future__ import annotations

import numpy as np

LEAST_STATES = 30  # fewer say nothing about a density


def islands(points: np.ndarray, *, share: float = 0.8, least: float = 0.1, cells: int = 80, most: int = 2000) -> int:
    """Into how many connected parts the smallest area with ``share`` of ``points`` (m, 2) falls.

    The area is where a kernel density estimate (Gaussian, Scott's bandwidth) on a grid of ``cells`` squared is highest;
    parts with less than ``least`` of the mass are not counted. Below :data:`LEAST_STATES` points it is one.
    """
    from scipy.ndimage import label
    from scipy.stats import gaussian_kde

    points = np.random.default_rng(0).permutation(np.asarray(points, dtype=np.float64))[:most]
    if len(points) < LEAST_STATES or np.linalg.matrix_rank(points - points.mean(0)) < 2:
        return 1
    density = gaussian_kde(points.T)
    low, extent = points.min(0), np.ptp(points, axis=0)
    sides = [np.linspace(a - 0.1 * b, a + 1.1 * b, cells) for a, b in zip(low, extent, strict=True)]
    grid = density(np.stack(np.meshgrid(*sides, indexing="ij")).reshape(2, -1)).reshape(cells, cells)
    parts, _ = label(grid >= np.quantile(density(points.T), 1 - share))
    mass = np.bincount(parts.ravel(), weights=grid.ravel())[1:] / grid.sum()
    return max(int((mass >= least).sum()), 1)
