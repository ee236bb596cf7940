"""How many prototypes an agent uses, over all its decisions and in each of them.

N decisions, T steps of an episode, K prototypes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..common.errors import InterpError
from ..common.statistics import Interval, ratio_interval, sums_interval
from ..common.style import cluster_color


@dataclass(frozen=True)
class Usage:
    """How N decisions use K prototypes.

    Attributes:
        led: (K,) share of decisions in which the prototype has the largest weight; sums to 1.
        mean_weight: (K,) mean weight; sums to 1.
        per_decision: (N,) how many prototypes share each decision: exp of the entropy of its weights, from 1 to K.
        in_use: how many prototypes are used over all decisions: exp of the entropy of ``mean_weight``. Over evaluation
            episodes this is what cards call prototypes in use, because it counts what the finished agent relies on.
            ``prototypes_used`` of progress.csv is the same over a batch of replay and comes out larger: replay also
            holds early exploration, and the usage loss maximises that very number. A task that stays in one situation
            keeps in_use low with no prototype idle: Pendulum's agents balance in 86% of their decisions.
        order: (K,) int64, prototypes by falling mean weight, then by falling share led.
    """

    led: np.ndarray
    mean_weight: np.ndarray
    per_decision: np.ndarray
    in_use: float
    order: np.ndarray


def prototype_usage(weights: np.ndarray) -> Usage:
    """Usage over decisions with ``weights`` (N, K), rows summing to 1; see :class:`Usage`.

    Raises:
        InterpError: no decisions.
    """
    weights = np.asarray(weights, dtype=np.float64)
    if not len(weights):
        raise InterpError("there are no decisions to count. Record at least one episode.")
    led = np.bincount(weights.argmax(1), minlength=weights.shape[1]) / len(weights)
    mean_weight = weights.mean(0)
    order = np.lexsort((-led, -mean_weight))
    return Usage(led, mean_weight, effective_number(weights), float(effective_number(mean_weight)), order)


def usage_interval(episodes: Sequence[np.ndarray]) -> Interval:
    """``Usage.in_use`` with its 95% interval, a bootstrap over whole episodes.

    Args:
        episodes: weights (T, K) of each episode; decisions of one episode are too alike to be resampled alone.

    Raises:
        InterpError: no episodes.
    """
    if not len(episodes):
        raise InterpError("there are no decisions to count. Record at least one episode.")
    sums = np.stack([np.sum(weights, axis=0, dtype=np.float64) for weights in episodes])
    return sums_interval(sums, lambda total: effective_number(total / total.sum(1, keepdims=True)))


def sharing_interval(episodes: Sequence[np.ndarray]) -> Interval:
    """The mean of ``Usage.per_decision`` with its 95% interval; as :func:`usage_interval`."""
    sums = np.array([effective_number(weights).sum() for weights in episodes])
    return ratio_interval(sums, np.array([len(weights) for weights in episodes]))


def effective_number(weights: np.ndarray) -> np.ndarray:
    """exp of the Shannon entropy over the last axis: n equal weights give n, a single one gives 1."""
    weights = np.asarray(weights, dtype=np.float64)
    return np.exp(-(weights * np.log(np.where(weights > 0, weights, 1.0))).sum(-1))


def prototype_colors(usage: Usage) -> list[str]:
    """One colour a prototype (K), distinct for the eight with the largest mean weight."""
    return [cluster_color(int(rank)) for rank in np.argsort(usage.order)]
