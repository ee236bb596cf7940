"""t-SNE, the map that both papers draw of high-dimensional states."""

from __future__ import annotations

from typing import Any

import numpy as np

from .errors import InterpError


def tsne(features: np.ndarray, **how: Any) -> np.ndarray:
    """t-SNE of ``features`` (n, d) → float64 (n, 2); ``how`` as of :func:`tsne_with`.

    By openTSNE: with one thread each it took 3.7 s for 1,000 and 19.2 s for 3,000 FruitBot states, scikit-learn 5.8 s
    and 36.3 s, for the same exact divergence (0.639 against 0.642; 0.964 against 0.967) and trustworthiness (0.984 and
    0.985; 0.991 and 0.991), on 2 busy cores (``benchmarks/embedding.py --threads 1``).
    """
    return tsne_with(features, None, **how)[0]


def tsne_with(
    features: np.ndarray,
    others: np.ndarray | None,
    *,
    seed: int = 0,
    perplexity: float = 30.0,
    start: str = "pca",
    jobs: int | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """t-SNE of ``features`` (n, d), and places in that map of ``others`` (m, d), which have no say in it.

    Each of them is placed by itself, at first between its neighbours in ``features``, then where its own divergence is
    least while the map stays (Poličar et al. 2023).

    Args:
        start: ``pca``, so that the global layout means something, or ``random``, where the seed decides it.
        jobs: threads; by default PyTorch's, which OMP_NUM_THREADS sets.

    Returns:
        float64 (n, 2) and (m, 2).

    Raises:
        InterpError: too few states for the perplexity.
    """
    import openTSNE
    import torch

    if len(features) <= 3 * perplexity:
        raise InterpError(f"t-SNE with perplexity {perplexity:g} needs more than {3 * perplexity:g} states.")
    jobs = torch.get_num_threads() if jobs is None else jobs
    fit = openTSNE.TSNE(perplexity=perplexity, initialization=start, random_state=seed, n_jobs=jobs).fit(features)
    return np.asarray(fit), np.zeros((0, 2)) if others is None else np.asarray(fit.transform(others))
