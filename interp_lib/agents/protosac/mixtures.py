"""Two ways of turning prototype weights into one action distribution, both squashed by tanh to [-1, 1].

Shapes: B states, K prototypes, a action dimensions. u is the action before the squash, tanh(u) the action.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F

_LOG_SQRT_2PI = 0.5 * math.log(2 * math.pi)


def log_tanh_slope(u: torch.Tensor) -> torch.Tensor:
    """log(1 − tanh²u), elementwise, without the cancellation of the literal formula."""
    return 2.0 * (math.log(2.0) - u - F.softplus(-2.0 * u))


def log_density(u: torch.Tensor, mean: torch.Tensor, std: torch.Tensor) -> torch.Tensor:
    """Exact log-density (B,) of the action tanh(u) where u ~ N(mean, std²), all (B, a)."""
    normal = -0.5 * ((u - mean) / std) ** 2 - std.log() - _LOG_SQRT_2PI
    return (normal - log_tanh_slope(u)).sum(-1)


class Blend:
    """u ~ N(Σ_k w_k μ_k, (Σ_k w_k σ_k)²): prototypes vote on one Gaussian. Reparameterised.

    Args:
        weights: (B, K), rows sum to 1.
        means, stds: (K, a), of the prototypes' Gaussians before the squash.
    """

    def __init__(self, weights: torch.Tensor, means: torch.Tensor, stds: torch.Tensor):
        self.mean = weights @ means
        self.std = weights @ stds

    @classmethod
    def of(cls, mean: torch.Tensor, std: torch.Tensor) -> Blend:
        """One Gaussian a state, mean and deviation (B, a), whatever it comes from."""
        blend = cls.__new__(cls)
        blend.mean, blend.std = mean, std
        return blend

    def __getitem__(self, index: torch.Tensor | slice) -> Blend:
        """The distributions of some of the states."""
        return Blend.of(self.mean[index], self.std[index])

    def sample(self, noise: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Draw u (B, a). The second value, if any, is the log-weight (B,) of the component it was drawn from.

        ``noise`` (B, a) replaces the standard normal numbers that would be drawn.
        """
        return self.mean + self.std * (torch.randn_like(self.mean) if noise is None else noise), None

    def log_prob(self, u: torch.Tensor) -> torch.Tensor:
        """Exact log-density (B,) of the action tanh(u)."""
        return log_density(u, self.mean, self.std)

    def mode(self) -> torch.Tensor:
        """The deterministic u (B, a)."""
        return self.mean


class GaussianMixture:
    """u ~ Σ_k w_k N(μ_k, σ_k²): one prototype is drawn by weight and acts alone. Arguments and methods as Blend's.

    The Gaussians are reparameterised, but the choice of a component has no pathwise gradient: :meth:`sample` also
    returns the log-weight of the choice, for :func:`choice_gradient`.
    """

    def __init__(self, weights: torch.Tensor, means: torch.Tensor, stds: torch.Tensor):
        self.weights, self.means, self.stds = weights, means, stds
        self.log_weights = weights.clamp_min(torch.finfo(weights.dtype).tiny).log()

    def __getitem__(self, index: torch.Tensor | slice) -> GaussianMixture:
        return GaussianMixture(self.weights[index], self.means, self.stds)

    def sample(self, noise: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        component = torch.multinomial(self.weights.detach(), 1)
        mean, std = self.means[component[:, 0]], self.stds[component[:, 0]]
        noise = torch.randn_like(mean) if noise is None else noise
        return mean + std * noise, self.log_weights.gather(1, component)[:, 0]

    def log_prob(self, u: torch.Tensor) -> torch.Tensor:
        normal = -0.5 * ((u.unsqueeze(-2) - self.means) / self.stds) ** 2 - self.stds.log() - _LOG_SQRT_2PI
        return torch.logsumexp(self.log_weights + normal.sum(-1), -1) - log_tanh_slope(u).sum(-1)

    def mode(self) -> torch.Tensor:
        # The mean may lie where no prototype would act; the leading prototype's own action always is one.
        return self.means[self.weights.argmax(-1)]


SquashedMixture = Blend | GaussianMixture
MIXTURES: dict[str, type[Blend] | type[GaussianMixture]] = {"blend": Blend, "gmm": GaussianMixture}


def choice_gradient(costs: list[torch.Tensor], log_weights: list[torch.Tensor]) -> torch.Tensor:
    """A scalar whose gradient is that of E[cost] through the choice of components; add it to the mean cost.

    Score function with each draw's mean cost of the others as baseline (leave-one-out), which is unbiased.

    Args:
        costs: one (B,) for each of two or more independent draws at the same states.
        log_weights: of the components those draws came from, as :meth:`GaussianMixture.sample` returns them.
    """
    cost, log_weight = torch.stack(costs).detach(), torch.stack(log_weights)
    n = len(cost)
    advantage = (cost - cost.mean(0)) * (n / (n - 1))
    return (advantage * log_weight).mean()


def imitation(target: SquashedMixture, *, draws: int = 4) -> Callable[[SquashedMixture], torch.Tensor]:
    """How to measure mean KL(target ‖ mixed), nats a state, of mixtures at the same states as ``target``.

    Exact for blends, whose squash cancels. A GaussianMixture's is estimated with ``draws`` actions a state, the same
    ones at every call; they have a seed of their own, so that the caller's random numbers stay as they are.
    """
    if isinstance(target, Blend):

        def exact(mixed: SquashedMixture) -> torch.Tensor:
            assert isinstance(mixed, Blend)  # an actor keeps its kind of mixture
            squares = (target.std**2 + (target.mean - mixed.mean) ** 2) / mixed.std**2
            return (torch.log(mixed.std / target.std) + 0.5 * squares - 0.5).sum(-1).mean()

        return exact

    with torch.random.fork_rng():
        torch.manual_seed(0)
        taken = [target.sample()[0] for _ in range(draws)]
    own = torch.stack([target.log_prob(u) for u in taken]).mean()
    return lambda mixed: own - torch.stack([mixed.log_prob(u) for u in taken]).mean()
