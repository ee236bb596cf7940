"""Projection: make every prototype a state that was really seen (the "push" of ProtoPNet, section 2.2; methods 3.5)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from stable_baselines3.common.buffers import ReplayBuffer

from .actor import ProtoActor
from .losses import squared_distances
from .refit import decisions, divergence, imitate, refit_gaussians


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
def encode_all(actor: ProtoActor, observations: np.ndarray, chunk: int = 2048) -> torch.Tensor:
    """Latents (n, d) of observations (n, *observation), computed in chunks."""
    parts = torch.as_tensor(observations).split(chunk)
    return torch.cat([actor.encode(part.to(actor.device)) for part in parts])


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
    chosen = nearest_distinct(actor.unit_prototypes(), latents)
    moved = ((latents[chosen] - actor.unit_prototypes()) ** 2).sum(1)
    for free, parameter in actor.free_parameters():
        free.copy_(parameter)
    divergence = place(actor, candidates[chosen], visited, imitation_epochs=imitation_epochs)
    return Projection(candidates[chosen], moved.cpu().numpy(), divergence)


@torch.no_grad()
def place(
    actor: ProtoActor, observations: np.ndarray, visited: np.ndarray | None = None, *, imitation_epochs: int = 0
) -> tuple[float, float]:
    """Put the prototypes on observations (K, *observation), and keep the policy close to what it was (refit.py).

    Args:
        visited: states (m, *observation) of the present policy, where it is imitated; None: nothing is refitted.
        imitation_epochs: how often the encoder too is trained on all of them; 0: only the Gaussians are refitted.

    Returns:
        KL(before ‖ after), nats a decision, after the move alone and in the end; NaN without visited states.
    """
    with _acting(actor):
        before = None if visited is None else decisions(actor, torch.as_tensor(visited))
        actor.prototypes.copy_(encode_all(actor, observations))
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
        latents = encode_all(actor, candidates)
    count = min(actor.n_prototypes, len(candidates))
    chosen = [int(rng.integers(len(candidates)))]
    nearest = squared_distances(latents, latents[chosen])[:, 0]
    while len(chosen) < count:
        p = nearest.double().cpu().numpy()
        p[chosen] = 0.0
        chosen.append(int(rng.choice(len(p), p=p / p.sum()) if p.sum() > 0 else rng.integers(len(p))))
        nearest = torch.minimum(nearest, squared_distances(latents, latents[chosen[-1:]])[:, 0])
    actor.prototypes[:count] = latents[chosen]
    actor.placed.fill_(True)
