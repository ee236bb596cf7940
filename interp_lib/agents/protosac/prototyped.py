"""What an agent's prototypes are, and what they say: projecting, placing and explaining, for ProtoSAC."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch

from ...common.errors import InterpError
from .actor import ProtoActor, ProtoSACPolicy
from .checks import refuse_nan
from .projection import Projection, distinct, latest_observations, place, project, replay_observations
from .updates import FastSAC

_IMITATED_STATES = 20_000  # of LunarLander about eighty episodes


@dataclass(frozen=True)
class Explanation:
    """Why a ProtoSAC policy acts as it does, for B observations.

    Attributes:
        weights: (B, K) float32, column k belongs to prototype k; rows sum to 1.
        similarities: (B, K) float32, of squared distances D in the actor's space (actor.py).
        prototype_ids: (B, K) int64, prototypes by falling weight: the first column leads.
        component_means: (K, a) float32, each prototype's Gaussian mean before the squash.
        component_stds: (K, a) float32, its standard deviation.
        action: (B, *action) float32, the deterministic action in the environment's units and shape. With
            ``mixture="blend"`` it is tanh(weights @ component_means), rescaled; with ``"gmm"`` the leading prototype's
            own action.
    """

    weights: np.ndarray
    similarities: np.ndarray
    prototype_ids: np.ndarray
    component_means: np.ndarray
    component_stds: np.ndarray
    action: np.ndarray


@dataclass(frozen=True)
class Prototypes:
    """The K prototypes of a policy.

    Attributes:
        latents: (K, d) float32, where they lie in the actor's space.
        observations: (K, *observation), the state each prototype was last projected on; None before that.
        action_means: (K, a) float32, Gaussian means before the squash.
        action_stds: (K, a) float32, standard deviations before the squash.
        actions: (K, *action) float32, what each prototype does alone: tanh(action_means) in the environment's units.
        projected: whether each prototype still is the encoding of its observation (training moves them on).
    """

    latents: np.ndarray
    observations: np.ndarray | None
    action_means: np.ndarray
    action_stds: np.ndarray
    actions: np.ndarray
    projected: bool


class PrototypedSAC(FastSAC):
    """An agent whose actor compares states with prototypes; ProtoSAC adds how it learns."""

    actor: ProtoActor  # type: ignore[assignment]  # SB3 annotates its own Actor, which this replaces
    policy: ProtoSACPolicy
    n_prototypes: int
    projection_candidates: int
    _last_projection: int = 0

    def project(self, observations: np.ndarray | None = None, *, imitation_epochs: int = 0) -> Projection | None:
        """Move each prototype onto the nearest state, no two onto the same one, and keep the policy what it was.

        Args:
            observations: states (n, *observation) to choose from and to imitate the policy in; None: a sample of the
                replay buffer, and its latest states.
            imitation_epochs: 0 refits the Gaussians; more train the encoder too.

        Returns:
            What was chosen, how far prototypes moved and what it did to the policy; None if there are fewer different
            states than prototypes.
        """
        if observations is None and self.replay_buffer is None:
            return None  # a run folder's agent has seen nothing yet
        if observations is None:
            assert self.replay_buffer is not None
            latest = latest_observations(self.replay_buffer, min(_IMITATED_STATES, self.projection_candidates))
            candidates, visited = self._replay_states(), self._as_seen(latest)
        else:
            visited = np.asarray(observations)
            candidates = distinct(visited)
        self._last_projection = self.num_timesteps
        if len(candidates) < self.n_prototypes:
            return None
        return project(self.actor, candidates, visited, imitation_epochs=imitation_epochs)

    def place_prototypes(self, observations: np.ndarray, *, visited: np.ndarray | None = None) -> float:
        """Put prototype k on ``observations[k]``: for controls such as random states (within :meth:`kept`).

        Args:
            observations: (K, *observation).
            visited: states (m, *observation) on which the Gaussians are refitted to the policy as it was, as after a
                projection; None: they stay.

        Returns:
            KL(policy before ‖ after), nats a decision, mean over ``visited``; NaN without them.

        Raises:
            InterpError: not K observations, or NaN among them.
        """
        refuse_nan(observations)
        expected, given = tuple(self.actor.prototype_observations.shape), np.shape(observations)
        if given != expected:
            raise InterpError(f"observations have shape {given}; {expected} is needed, one a prototype.")
        return place(self.actor, np.asarray(observations), visited)[1]

    @contextmanager
    def kept(self) -> Iterator[None]:
        """After the context the actor is as it was before, whatever was placed or projected in it."""
        state = {name: value.clone() for name, value in self.actor.state_dict().items()}
        try:
            yield
        finally:
            self.actor.load_state_dict(state)

    @contextmanager
    def free_prototypes(self) -> Iterator[None]:
        """Within the context the policy acts as it did before the last projection: prototypes and Gaussians."""
        with self.kept():
            for free, parameter in self.actor.free_parameters():
                parameter.data.copy_(free)
            yield

    @torch.no_grad()
    def explain(self, observations: np.ndarray) -> Explanation:
        """Say which prototypes the deterministic action comes from.

        Args:
            observations: (B, *observation), or one (*observation), which makes B = 1.

        Raises:
            InterpError: an observation holds NaN.
        """
        refuse_nan(observations)
        self.policy.set_training_mode(False)
        tensor, _ = self.policy.obs_to_tensor(observations)
        comparison = self.actor.compare(tensor)
        action = torch.tanh(self.actor.mix(comparison.weights).mode())
        return Explanation(
            weights=_numpy(comparison.weights),
            similarities=_numpy(comparison.similarities),
            prototype_ids=_numpy(comparison.weights.argsort(dim=1, descending=True, stable=True)),
            component_means=_numpy(self.actor.means),
            component_stds=_numpy(self.actor.stds()),
            action=self._in_units(_numpy(action)),
        )

    @torch.no_grad()
    def encode(self, observations: np.ndarray) -> np.ndarray:
        """Latents (B, d) float32 of observations (B, *observation)."""
        refuse_nan(observations)
        self.policy.set_training_mode(False)
        return _numpy(self.actor.encode(self.policy.obs_to_tensor(observations)[0]))

    @property
    def prototypes(self) -> Prototypes:
        """The prototypes as arrays (copies)."""
        means = _numpy(self.actor.means)
        return Prototypes(
            latents=_numpy(self.actor.located()),
            observations=_numpy(self.actor.prototype_observations) if self.actor.observed else None,
            action_means=means,
            action_stds=_numpy(self.actor.stds()),
            actions=self._in_units(np.tanh(means)),
            projected=bool(self.actor.projected),
        )

    def _in_units(self, actions: np.ndarray) -> np.ndarray:
        """Actions (B, a) in [−1, 1] in the environment's units and shape, (B, *action)."""
        return self.policy.unscale_action(actions.reshape(-1, *(self.action_space.shape or ())))

    def _replay_states(self) -> np.ndarray:
        """Different states (n, *observation) from the replay buffer, as the policy sees them."""
        assert self.replay_buffer is not None
        return self._as_seen(replay_observations(self.replay_buffer, self.projection_candidates, self._numpy_rng()))

    def _as_seen(self, states: np.ndarray) -> np.ndarray:
        # The buffer keeps the environment's own observations; under VecNormalize the policy sees others.
        return states if self._vec_normalize_env is None else np.asarray(self._vec_normalize_env.normalize_obs(states))

    @staticmethod
    def _numpy_rng() -> np.random.Generator:
        # Follows SB3's seeding, which is that of numpy's global generator.
        return np.random.default_rng(np.random.randint(2**31))


def _numpy(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().cpu().numpy().copy()
