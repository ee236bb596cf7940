"""Where to write: labels that do not cover each other, and places that are still free. Plain geometry, any unit."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np


def spread_labels(points: np.ndarray, size: tuple[float, float]) -> np.ndarray:
    """Centres (n, 2) of labels of ``size`` (width, height) as near to ``points`` (n, 2) as it goes without overlap."""
    label = np.asarray(size, dtype=np.float64)
    # In units of the label; two on one point go different ways.
    placed = points / label + np.random.default_rng(0).normal(scale=1e-3, size=points.shape)
    for _ in range(500):
        apart = placed[:, None] - placed
        overlap = 1 - np.abs(apart)
        touching = (overlap > 1e-6).all(-1) & ~np.eye(len(placed), dtype=bool)
        if not touching.any():
            break
        along = overlap.argmin(-1)[..., None] == np.arange(2)  # the shorter way out
        placed += 0.3 * (np.where(apart < 0, -1, 1) * overlap * along * touching[..., None]).sum(1)
    return placed * label


def covered(place: np.ndarray, size: tuple[float, float], boxes: Iterable[tuple[float, float, float, float]]) -> float:
    """Area of a label of ``size`` around ``place`` that ``boxes`` (left, bottom, right, top) cover."""
    low, high = place - np.asarray(size) / 2, place + np.asarray(size) / 2
    area = 0.0
    for left, bottom, right, top in boxes:
        inside = np.minimum(high, (right, top)) - np.maximum(low, (left, bottom))
        area += float(np.prod(np.maximum(inside, 0)))
    return area


def percent(share: float, digits: int = 0) -> str:
    """``share`` in percent; what would be rounded to 0 is written as less than the smallest that is not."""
    least = 10.0 ** -(2 + digits)
    return f"{share:.{digits}%}" if share >= least or share == 0 else f"<{least:.{digits}%}"
