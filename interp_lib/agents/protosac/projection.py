"""Projection: make every prototype a state that was really seen (the "push" of ProtoPNet, section 2.2; methods 3.5).

Then the policy is brought back to what it was, without moving prototypes off their states again.

A push changes how states compare with prototypes, and where prototypes lie close together a small move changes a
decision. ProtoPNet (arXiv 1806.10574, section 2.2) optimises its last layer after the push; here the policy before it
is known, so there is something to imitate, and KL(before ‖ after) over visited states is made small in two steps:

- :func:`refit_gaussians`, encoder and prototypes held: cheap, after every projection;
- :func:`imitate`, encoder and Gaussians, each prototype tied to the encoding of its own state: after the last one.

LunarLander (seed 0, 100 episodes): 239 before the last projection, 169 after push and refit, 233 after imitation.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from stable_baselines3.common.buffers import ReplayBuffer

from .actor import ProtoActor
from .losses import squared_distances
from .mixtures import MIXTURES, SquashedMixture, imitation
from .standardised import StandardisedSpace

_CHUNK = 2048


@dataclass(frozen=True)
class Projection:
    """What a projection did.

    Attributes:
        observations: (K, *observation), the state each prototype now is.
        distances: (K,) squared latent distance each prototype was moved.
        divergence: KL(before ‖ after) of the policy, nats a decision, after the push alone and in the end, mean over
            the visited states; NaN without them.
    """

    observations: np.ndarray
    distances: np.ndarray
    divergence: tuple[float, float] = (math.nan, math.nan)


def replay_observations(buffer: ReplayBuffer, count: int, rng: np.random.Generator) -> np.ndarray:
    """Up to ``count`` different observations (n, *observation), drawn from a replay buffer without replacement."""
    total = buffer.size() * buffer.n_envs
    flat = rng.choice(total, size=min(count, total), replace=False)
    return distinct(buffer.observations[flat // buffer.n_envs, flat % buffer.n_envs])


def latest_observations(buffer: ReplayBuffer, count: int) -> np.ndarray:
    """The last ``count`` observations (n, *observation) that went into a replay buffer, or all if there are fewer."""
    steps = min(buffer.size(), math.ceil(count / buffer.n_envs))
    rows = np.arange(buffer.pos - steps, buffer.pos) % buffer.buffer_size
    return buffer.observations[rows].reshape(-1, *buffer.obs_shape)


def distinct(observations: np.ndarray) -> np.ndarray:
    """The observations (n, ...) without exact repetitions, in their first order."""
    first: dict[bytes, int] = {}
    for i, observation in enumerate(observations):
        first.setdefault(observation.tobytes(), i)
    return observations[list(first.values())]


@contextmanager
def _acting(actor: ProtoActor) -> Iterator[None]:
    """Dropout and batch norm as when the policy acts: what prototypes are compared with then, they are made of."""
    training = actor.training
    actor.set_training_mode(False)
    try:
        yield
    finally:
        actor.set_training_mode(training)


@torch.no_grad()
def encode_all(actor: ProtoActor, observations: np.ndarray) -> torch.Tensor:
    """Latents (n, d) of observations (n, *observation), computed in chunks."""
    parts = torch.as_tensor(observations).split(_CHUNK)
    return torch.cat([actor.encode(part.to(actor.device)) for part in parts])


@torch.no_grad()
def features_of(actor: ProtoActor, observations: torch.Tensor) -> torch.Tensor:
    """What the feature extractor makes (n, f) of observations (n, *observation), in chunks."""
    parts = (part.to(actor.device) for part in observations.split(_CHUNK))
    return torch.cat([actor.extract_features(part, actor.features_extractor) for part in parts])


def nearest_distinct(prototypes: torch.Tensor, latents: torch.Tensor) -> np.ndarray:
    """Give each prototype (K, d) a latent (n, d) of its own, n ≥ K, at least total squared distance: indices (K,)."""
    return linear_sum_assignment(squared_distances(prototypes, latents).cpu().numpy())[1]


@torch.no_grad()
def project(
    actor: ProtoActor, candidates: np.ndarray, visited: np.ndarray | None = None, *, imitation_epochs: int = 0
) -> Projection:
    """Move each prototype to the nearest encoded candidate, no two to the same one, and remember the observation.

    Args:
        candidates: different observations (n, *observation), n ≥ K.
        visited, imitation_epochs: see :func:`place`.

    Raises:
        ValueError: fewer candidates than prototypes.
    """
    if len(candidates) < actor.n_prototypes:
        raise ValueError(f"{len(candidates)} different states cannot hold {actor.n_prototypes} prototypes.")
    with _acting(actor):
        latents = encode_all(actor, candidates)
    chosen = nearest_distinct(actor.located(), latents)
    moved = ((latents[chosen] - actor.located()) ** 2).sum(1)
    for free, parameter in actor.free_parameters():
        free.copy_(parameter)
    diverged = place(actor, candidates[chosen], visited, imitation_epochs=imitation_epochs)
    return Projection(candidates[chosen], moved.cpu().numpy(), diverged)


@torch.no_grad()
def place(
    actor: ProtoActor, observations: np.ndarray, visited: np.ndarray | None = None, *, imitation_epochs: int = 0
) -> tuple[float, float]:
    """Put the prototypes on observations (K, *observation), and keep the policy close to what it was.

    Args:
        visited: states (m, *observation) of the present policy, where it is imitated; None: nothing is refitted.
        imitation_epochs: how often the encoder too is trained on all of them; 0: only the Gaussians are refitted.

    Returns:
        KL(before ‖ after), nats a decision, after the move alone and in the end; NaN without visited states.
    """
    with _acting(actor):
        before = None if visited is None else decisions(actor, torch.as_tensor(visited))
        actor.move_prototypes(features_of(actor, torch.as_tensor(observations)))
        actor.prototype_observations.copy_(torch.as_tensor(observations))
        for flag in (actor.placed, actor.observed, actor.projected):
            flag.fill_(True)
        if before is None:
            return math.nan, math.nan
        moved = divergence(actor, before)
        refit_gaussians(actor, before)
        if imitation_epochs:
            imitate(actor, before, epochs=imitation_epochs)
        return moved, divergence(actor, before)


@torch.no_grad()
def spread(actor: ProtoActor, candidates: np.ndarray, rng: np.random.Generator) -> None:
    """Start the prototypes on candidates (n, *observation) that are far apart (k-means++ seeding).

    With fewer candidates than prototypes the rest keep their random directions.
    """
    with _acting(actor):
        features = features_of(actor, torch.as_tensor(candidates))
        if isinstance(actor.encoder, StandardisedSpace):
            actor.encoder.observe(features)
            actor.followers.fill_(1.0)
        latents = actor.encode_features(features)
    count = min(actor.n_prototypes, len(candidates))
    chosen = [int(rng.integers(len(candidates)))]
    nearest = squared_distances(latents, latents[chosen])[:, 0]
    while len(chosen) < count:
        p = nearest.double().cpu().numpy()
        p[chosen] = 0.0
        chosen.append(int(rng.choice(len(p), p=p / p.sum()) if p.sum() > 0 else rng.integers(len(p))))
        nearest = torch.minimum(nearest, squared_distances(latents, latents[chosen[-1:]])[:, 0])
    actor.move_prototypes(features[chosen], slice(count))
    actor.placed.fill_(True)


class Decisions(NamedTuple):
    """What a policy does in m states: features (m, f) the encoder sees, and how actions are distributed there."""

    features: torch.Tensor
    mixed: SquashedMixture


@torch.no_grad()
def decisions(actor: ProtoActor, observations: torch.Tensor) -> Decisions:
    """Record what ``actor`` does at observations (m, *observation), to be imitated later."""
    features = features_of(actor, observations)
    means, stds = actor.means.detach().clone(), actor.stds().detach()
    return Decisions(features, MIXTURES[actor.mixture](_weights(actor, features), means, stds))


@torch.no_grad()
def divergence(actor: ProtoActor, before: Decisions) -> float:
    """Mean KL(before ‖ actor), nats a decision."""
    return imitation(before.mixed)(actor.mix(_weights(actor, before.features))).item()


@torch.no_grad()
def refit_gaussians(actor: ProtoActor, before: Decisions, *, steps: int = 100) -> None:
    """Fit the prototypes' Gaussians by L-BFGS so that KL(before ‖ actor) is least; encoder and prototypes stay.

    Where nothing is gained the Gaussians stay as well.
    """
    of_actor = imitation(before.mixed)
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
                loss = imitation(before.mixed[index])(actor.mix(comparison.weights))
                optimizer.zero_grad()
                loss.backward()
            optimizer.step()
            actor.keep_in_bounds()
            step += 1
    optimizer.zero_grad()
    actor.move_prototypes(own)
    _keep_if_better(divergence(actor, before), at_start, parameters, start)


def _keep_if_better(now: float, then: float, parameters: list[torch.nn.Parameter], start: list[torch.Tensor]) -> None:
    if not now < then:  # also where it is not finite
        for parameter, value in zip(parameters, start, strict=True):
            parameter.copy_(value)


def _weights(actor: ProtoActor, features: torch.Tensor) -> torch.Tensor:
    return torch.cat([actor.compare_latents(actor.encode_features(part)).weights for part in features.split(_CHUNK)])
