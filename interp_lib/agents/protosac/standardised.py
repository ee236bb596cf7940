"""The space of observations as prototypes are compared in it (methods 3.2), and how prototypes follow the states.

    z = √(m / d) ⊙ (x − mean) / std          x: what is observed, d numbers
    D = ‖z − p_k‖²,  w = softmax(−D / τ)

The metric m is learned with the policy. Prototypes are no parameters: online k-means (van den Oord et al., arXiv
1711.00937, appendix A.1) keeps each at the mean of the recent states that it is nearest to.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from .actor import ProtoActor

_PACE = 0.005  # of means and counts, an update, at the beginning of training
_STATISTICS_PACE = 0.001
_LEAST_SPREAD = 1e-3
_RARE = 0.05  # share of its even share of states below which a prototype is started anew
_RESEED_EVERY = 200  # updates
_SETTLED = 0.3  # the share of training in which none is started anew any more
_COOLING = (0.7, 0.2)  # the share of training to come between which the temperature falls


class StandardisedSpace(nn.Module):
    """Observations in standard deviations, each number weighted by a learned metric.

    Args:
        size: d, numbers of an observation.
    """

    centre: torch.Tensor
    variance: torch.Tensor

    def __init__(self, size: int):
        super().__init__()
        self.log_metric = nn.Parameter(torch.zeros(size))
        self.register_buffer("centre", torch.zeros(size))
        self.register_buffer("variance", torch.ones(size))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Points (B, d) of observations (B, d)."""
        spread = self.variance.sqrt().clamp_min(_LEAST_SPREAD)
        return (x - self.centre) / spread * (0.5 * self.log_metric).exp() / x.shape[1] ** 0.5

    @torch.no_grad()
    def observe(self, x: torch.Tensor, pace: float = 1.0) -> None:
        """Move mean and variance by ``pace`` towards those of observations (B, d)."""
        self.centre.lerp_(x.mean(0), pace)
        self.variance.lerp_(((x - self.centre) ** 2).mean(0), pace)

    @torch.no_grad()
    def hold(self, scale: float = 1.0) -> None:
        """Give the metric the geometric mean ``scale``, so that the temperature alone says how far likeness reaches.

        Left free it grew ninefold on LunarLander, until fewer than two prototypes shared a decision, and returned 54
        after 40,000 steps; held, and with sharpness 0 instead of 3, 148 with more than eight (one training seed).
        """
        self.log_metric.add_(math.log(scale) - self.log_metric.mean())

    def unevenness(self) -> torch.Tensor:
        """How far the metric is from weighing all numbers alike: the variance of its logarithm."""
        return self.log_metric.var(unbiased=False)


@torch.no_grad()
def follow(actor: ProtoActor, features: torch.Tensor, update: int, remaining: float = 1.0) -> None:
    """One step of online k-means: prototypes move to the mean of the states (B, d) they are nearest to.

    Now and then a prototype with hardly any states is started anew on the state that is covered worst, with the
    Gaussian that the policy has there. Both slow down to a halt: where the learning rate falls to 0 (LunarLander's
    does), Gaussians could no longer follow prototypes that go on moving, and a return of 169 fell to −287.

    Args:
        update: number of the update.
        remaining: share of training that is still to come.
    """
    assert isinstance(actor.encoder, StandardisedSpace)
    pace = _PACE * remaining
    actor.encoder.observe(features, _STATISTICS_PACE * remaining)
    comparison = actor.compare_latents(actor.encode_features(features))
    least, nearest = comparison.distances.min(1)
    counts = torch.zeros_like(actor.followers).index_add_(0, nearest, torch.ones_like(least))
    sums = torch.zeros_like(actor.prototypes).index_add_(0, nearest, features)
    actor.followers.lerp_(counts, pace)
    # The mean of all states so far, old ones forgotten: p ← p + (sum − count · p) pace / followers.
    gain = pace / actor.followers.clamp_min(1e-6)
    actor.prototypes.add_((sums - counts[:, None] * actor.prototypes) * gain[:, None])
    if update % _RESEED_EVERY == 0 and remaining > _SETTLED:
        even = len(features) / actor.n_prototypes
        rare = torch.nonzero(actor.followers < _RARE * even)[: len(features), 0]
        worst = least.argsort(descending=True)[: len(rare)]
        weights = comparison.weights[worst]
        actor.means[rare] = weights @ actor.means
        actor.log_stds[rare] = (weights @ actor.stds()).log()
        actor.prototypes[rare] = features[worst]
        actor.followers[rare] = even


def cooled(initial: float, final: float, remaining: float) -> float:
    """The temperature on its way from ``initial`` to ``final``, a straight line in its logarithm.

    Args:
        remaining: share of training that is still to come.
    """
    begin, end = _COOLING
    done = min(max((begin - remaining) / (begin - end), 0.0), 1.0)
    return initial ** (1 - done) * final**done
