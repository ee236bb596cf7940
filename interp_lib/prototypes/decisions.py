"""Single decisions: the action distributions of the prototypes, their mixture, and the steps worth explaining.

K prototypes, a action dimensions. u is the action before the squash, action = low + (tanh(u) + 1)/2 · (high − low), in
the environment's units.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from ..common.errors import InterpError
from .traces import EpisodeTrace

if TYPE_CHECKING:
    from ..agents.protosac import ProtoSAC


def squash(u: Any, low: Any, high: Any) -> Any:
    """The action of u, elementwise: low + (tanh(u) + 1)/2 · (high − low)."""
    return low + (np.tanh(u) + 1) / 2 * (high - low)


def action_density(actions: np.ndarray, mean: Any, std: Any, low: Any, high: Any) -> np.ndarray:
    """Density of an action whose u ~ N(mean, std²), per unit of action; 0 outside (low, high). Broadcasts.

    p(action) = N(u; mean, std²) / |d action / du|, u = artanh(2 (action − low)/(high − low) − 1).
    """
    t = 2 * (np.asarray(actions, dtype=np.float64) - low) / (np.asarray(high, dtype=np.float64) - low) - 1
    inside = np.abs(t) < 1
    t = np.where(inside, t, 0.0)
    slope = (1 - t**2) * (np.asarray(high) - low) / 2
    return np.where(inside, _normal(np.arctanh(t), mean, std) / slope, 0.0)


def action_interval(
    mean: Any, std: Any, low: Any, high: Any, *, coverage: float = 0.9
) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper end of the central ``coverage`` of a prototype's actions (quantiles survive the squash)."""
    from scipy.stats import norm

    reach = norm.ppf(0.5 + coverage / 2) * np.asarray(std)
    return squash(mean - reach, low, high), squash(mean + reach, low, high)


@dataclass(frozen=True)
class Decision:
    """One step of an episode, explained.

    Attributes:
        step: of the episode.
        weights: (K,).
        order: (K,) int64, prototypes by falling weight.
        means, stds: (K, a), the prototypes' Gaussians of u.
        low, high: (a,), action bounds.
        action: (a,), the deterministic action.
        mixture: ``"blend"`` or ``"gmm"``, how weights and Gaussians make one distribution.
    """

    step: int
    weights: np.ndarray
    order: np.ndarray
    means: np.ndarray
    stds: np.ndarray
    low: np.ndarray
    high: np.ndarray
    action: np.ndarray
    mixture: str

    def density_u(self, u: np.ndarray, dim: int) -> np.ndarray:
        """Density of the mixed distribution before the squash at ``u``, in action dimension ``dim``."""
        return self._mixed(_normal, u, dim)

    def density(self, actions: np.ndarray, dim: int) -> np.ndarray:
        """The same after the squash, per unit of action."""
        return self._mixed(partial(action_density, low=self.low[dim], high=self.high[dim]), actions, dim)

    def _mixed(self, density: Callable[..., np.ndarray], x: np.ndarray, dim: int) -> np.ndarray:
        means, stds = self.means[:, dim], self.stds[:, dim]
        if self.mixture == "blend":
            return density(x, self.weights @ means, self.weights @ stds)
        return density(np.asarray(x)[:, None], means, stds) @ self.weights


def explain_decision(agent: ProtoSAC, trace: EpisodeTrace, step: int) -> Decision:
    """Explain one step of a recorded episode.

    Raises:
        InterpError: the episode has no such step.
    """
    if not 0 <= step < len(trace):
        raise InterpError(f"step {step} is not in this episode: it has {len(trace)} steps, the first is 0.")
    prototypes, weights, bounds = agent.prototypes, trace.weights[step], agent.action_space
    order = np.argsort(-weights, kind="stable")
    gaussians = prototypes.action_means, prototypes.action_stds
    return Decision(step, weights, order, *gaussians, bounds.low, bounds.high, trace.actions[step], agent.mixture)


def clearest_step(trace: EpisodeTrace) -> int:
    """The step at which one prototype has most of the weight."""
    return int(trace.weights.max(1).argmax())


def most_divided_step(trace: EpisodeTrace) -> int:
    """The step at which the two largest weights together are large and nearly equal: a hand-over between prototypes."""
    second = np.sort(trace.weights, axis=1)[:, -2:].min(1)
    return int(second.argmax())


def _normal(x: np.ndarray, mean: Any, std: Any) -> np.ndarray:
    return np.exp(-0.5 * ((x - mean) / std) ** 2) / (np.sqrt(2 * np.pi) * std)
