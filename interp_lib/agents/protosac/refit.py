"""After prototypes have moved: bring the policy back to what it was, without moving them off their states again.

A push changes how states compare with prototypes, and where prototypes lie close together a small move changes a
decision. ProtoPNet (arXiv 1806.10574, section 2.2) optimises its last layer after the push; here the policy before it
is known, so there is something to imitate, and KL(before ‖ after) over visited states is made small in two steps:

- :func:`refit_gaussians`, encoder and prototypes held: cheap, after every projection;
- :func:`imitate`, encoder and Gaussians, each prototype tied to the encoding of its own state: after the last one.

LunarLander (seed 0, 100 episodes): 239 before the last projection, 169 after push and refit, 233 after imitation.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from .actor import ProtoActor
from .mixtures import MIXTURES, SquashedMixture, imitation

_CHUNK = 2048


class Decisions(NamedTuple):
    """What a policy does in m states: features (m, f) the encoder sees, weights (m, K), Gaussians (K, a)."""

    features: torch.Tensor
    weights: torch.Tensor
    means: torch.Tensor
    stds: torch.Tensor
    mixture: str

    def at(self, index: torch.Tensor | slice) -> SquashedMixture:
        """The action distributions in some of the states."""
        return MIXTURES[self.mixture](self.weights[index], self.means, self.stds)


@torch.no_grad()
def decisions(actor: ProtoActor, observations: torch.Tensor) -> Decisions:
    """Record what ``actor`` does at observations (m, *observation), to be imitated later."""
    parts = (part.to(actor.device) for part in observations.split(_CHUNK))
    features = torch.cat([actor.extract_features(part, actor.features_extractor) for part in parts])
    means, stds = actor.means.detach().clone(), actor.stds().detach()
    return Decisions(features, _weights(actor, features), means, stds, actor.mixture)


@torch.no_grad()
def divergence(actor: ProtoActor, before: Decisions) -> float:
    """Mean KL(before ‖ actor), nats a decision."""
    return imitation(before.at(slice(None)))(actor.mix(_weights(actor, before.features))).item()


@torch.no_grad()
def refit_gaussians(actor: ProtoActor, before: Decisions, *, steps: int = 100) -> None:
    """Fit the prototypes' Gaussians by L-BFGS so that KL(before ‖ actor) is least; encoder and prototypes stay.

    Where nothing is gained the Gaussians stay as well.
    """
    of_actor = imitation(before.at(slice(None)))
    weights = _weights(actor, before.features)
    gaussians = [p for p in (actor.means, actor.log_stds) if p.requires_grad]  # the user may have frozen some
    if not gaussians:
        return
    start, at_start = [p.detach().clone() for p in gaussians], of_actor(actor.mix(weights)).item()
    optimizer = torch.optim.LBFGS(gaussians, max_iter=steps, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        with torch.enable_grad():
            loss = of_actor(actor.mix(weights))
            loss.backward()
        return loss

    optimizer.step(closure)
    optimizer.zero_grad()
    actor.keep_in_bounds()
    _keep_if_better(of_actor(actor.mix(weights)).item(), at_start, gaussians, start)


@torch.no_grad()
def imitate(
    actor: ProtoActor, before: Decisions, *, epochs: int = 50, batch_size: int = 1024, learning_rate: float = 1e-3
) -> None:
    """Train encoder and Gaussians by Adam to make KL(before ‖ actor) small; prototypes follow their observations.

    A feature extractor below the encoder (CarRacing's CNN) stays. The learning rate falls linearly to 0; the order of
    states has a seed of its own. Where nothing is gained everything stays.
    """
    own = decisions(actor, actor.prototype_observations).features
    trained = [p for p in (*actor.encoder.parameters(), actor.means, actor.log_stds) if p.requires_grad]
    if not trained:
        return
    parameters = [*trained, actor.prototypes]
    start, at_start = [p.detach().clone() for p in parameters], divergence(actor, before)
    optimizer = torch.optim.Adam(trained, lr=learning_rate)
    generator = torch.Generator().manual_seed(0)
    count = len(before.features)
    total, step = epochs * -(-count // batch_size), 0
    for _ in range(epochs):
        for index in torch.randperm(count, generator=generator).to(actor.device).split(batch_size):
            optimizer.param_groups[0]["lr"] = learning_rate * (1 - step / total)
            with torch.enable_grad():
                latents = actor.encode_features(torch.cat([before.features[index], own]))
                comparison = actor.compare_latents(latents[: len(index)], latents[len(index) :])
                loss = imitation(before.at(index))(actor.mix(comparison.weights))
                optimizer.zero_grad()
                loss.backward()
            optimizer.step()
            actor.keep_in_bounds()
            step += 1
    optimizer.zero_grad()
    actor.prototypes.copy_(actor.encode_features(own))
    _keep_if_better(divergence(actor, before), at_start, parameters, start)


def _keep_if_better(now: float, then: float, parameters: list[torch.nn.Parameter], start: list[torch.Tensor]) -> None:
    if not now < then:  # also where it is not finite
        for parameter, value in zip(parameters, start, strict=True):
            parameter.copy_(value)


def _weights(actor: ProtoActor, features: torch.Tensor) -> torch.Tensor:
    return torch.cat([actor.compare_latents(actor.encode_features(part)).weights for part in features.split(_CHUNK)])
