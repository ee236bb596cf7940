"""ProtoSAC and its baseline SAC as Stable-Baselines3 algorithms.

ProtoSAC is SAC (Haarnoja et al., arXiv 1812.05905) whose actor compares the state with learned prototypes and mixes
their Gaussians (actor.py). Each update takes a step on critics and actor (losses.py), and every
``projection_interval`` steps, and at the end of ``learn``, each prototype is moved onto the nearest state in the replay
buffer (projection.py), and the policy is brought back to what it was.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import numpy as np
import torch
from stable_baselines3 import SAC as SB3SAC
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback, ReplayBufferSamples

from ...common.errors import InterpError
from .actor import NEEDS_BOX, POLICY_SETTINGS, ProtoCnnPolicy, ProtoSACPolicy
from .kernels import Losses
from .losses import AuxiliaryWeights, actor_loss, critic_loss, draws_needed, gaussian_actor_loss
from .policies import GaussianCnnPolicy, GaussianPolicy
from .projection import spread
from .prototyped import PrototypedSAC
from .settings import PROTOTYPE_DEFAULTS
from .standardised import StandardisedSpace, cooled, follow
from .updates import FastSAC

_RECENT = 20_000  # steps of which the states are followed by prototypes


class SAC(FastSAC):
    """Stable-Baselines3's SAC, plus run folders (``save_run``, ``load_run``): the baseline. See :class:`FastSAC`."""

    algorithm: ClassVar[str] = "sac"
    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {
        **SB3SAC.policy_aliases, "MlpPolicy": GaussianPolicy, "CnnPolicy": GaussianCnnPolicy,
    }  # fmt: skip
    _uncompiled = Losses(critic_loss, gaussian_actor_loss)


class ProtoSAC(PrototypedSAC):
    """Soft actor-critic that acts by comparing states with prototypes.

    What is not listed here is as in Stable-Baselines3's ``SAC``, with these exceptions:

    - Observations are Box (no ``MultiInputPolicy``), and there is no gSDE.
    - ``learn`` ends with a projection and an imitation of the policy before it, whatever it was asked for: with a full
      replay buffer, 20,000 states, ``learn(1)`` takes about seven seconds. Those who call it again and again set
      ``final_projection=False`` or ``imitation_epochs=0`` and call :meth:`project` once.
    - Callbacks, those that save or evaluate included, see the agent as it is while training: its prototypes have moved
      on since their last projection (``prototypes.projected`` is False), and the final one is still to come.
    - ``target_update_interval`` counts all gradient steps since the beginning. Stable-Baselines3 counts anew in every
      call of ``train``, so that with ``gradient_steps=1`` it updates targets after each step.
    - Optimisers are fused where they can be.

    Its own settings are keyword arguments (n_prototypes, latent_dim, temperature, mixture, cluster_weight,
    coverage_weight, separation_weight, separation_margin, sharpness_weight, usage_weight, metric_weight,
    gaussian_rate, projection_interval, projection_candidates): ``interp train protosac --help`` says what they are, and
    :class:`~interp_lib.agents.protosac.settings.TaskSettings` has their defaults. ``tau`` stays SAC's own.

    Args:
        policy: ``"MlpPolicy"`` or ``"CnnPolicy"``.
        env: environment, VecEnv or Gymnasium id with Box observations and actions.
        final_projection: project at the end of ``learn``.
        imitation_epochs: of the final projection, in which encoder and Gaussians imitate the policy before it.
        compile: see :class:`FastSAC`.

    Raises:
        InterpError: discrete actions, Dict observations, a setting out of range or among ``policy_kwargs``, gSDE.
    """

    algorithm: ClassVar[str] = "protosac"
    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {"MlpPolicy": ProtoSACPolicy, "CnnPolicy": ProtoCnnPolicy}
    extra_fields: ClassVar[tuple[str, ...]] = (
        *(name for name in PROTOTYPE_DEFAULTS if name != "projection_candidates"),
        *("final_projection", "imitation_epochs", "projection_candidates"),  # last in every config.json
    )
    gaussian_rate: float
    initial_temperature: float
    projection_interval: int
    temperature: float
    _uncompiled = Losses(critic_loss, actor_loss)

    def __init__(
        self,
        policy: str | type[ProtoSACPolicy],
        env: GymEnv | str | None,
        learning_rate: Any = 3e-4,
        *,
        final_projection: bool = True,
        imitation_epochs: int = 50,
        _init_setup_model: bool = True,
        **kwargs: Any,
    ):
        for name, default in PROTOTYPE_DEFAULTS.items():
            setattr(self, name, kwargs.pop(name, default))
        self.final_projection, self.imitation_epochs = final_projection, imitation_epochs
        if misplaced := set(kwargs.get("policy_kwargs") or {}) & set(POLICY_SETTINGS):
            name = sorted(misplaced)[0]
            raise InterpError(f"{name} is an argument of ProtoSAC itself. Pass {name}=…, not within policy_kwargs.")
        if policy == "MultiInputPolicy":
            raise InterpError(NEEDS_BOX)
        try:
            super().__init__(policy, env, learning_rate, _init_setup_model=_init_setup_model, **kwargs)
        except ValueError as error:
            if "MultiInputPolicy" in str(error):  # which SB3 advises for Dict observations
                raise InterpError(NEEDS_BOX) from error
            raise

    def _setup_model(self) -> None:
        with self._full_policy_kwargs():
            super()._setup_model()

    @contextmanager
    def _full_policy_kwargs(self) -> Iterator[None]:
        """The prototype settings reach the policy through its kwargs; outside of this they stay the user's own."""
        given = {name: value for name, value in self.policy_kwargs.items() if name not in POLICY_SETTINGS}
        self.policy_kwargs = given | {name: getattr(self, name) for name in POLICY_SETTINGS}
        try:
            yield
        finally:
            self.policy_kwargs = given

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Stable-Baselines3's ``save``; its own ``SAC.load`` gets the same policy from the file, prototypes and all."""
        with self._full_policy_kwargs():
            super().save(*args, **kwargs)

    # Training

    def learn(
        self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int | None = 4,
        tb_log_name: str = "ProtoSAC",
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> ProtoSAC:
        """Stable-Baselines3's ``learn``, then the final projection."""
        if reset_num_timesteps:
            self._last_projection = 0
        interval: Any = log_interval  # SB3 annotates int, and takes None
        super().learn(total_timesteps, callback, interval, tb_log_name, reset_num_timesteps, progress_bar)
        if self.final_projection:
            self.project(imitation_epochs=self.imitation_epochs)
        return self

    def train(self, gradient_steps: int, batch_size: int = 64) -> None:
        """``gradient_steps`` updates of critics, actor, prototypes and entropy coefficient.

        Raises:
            InterpError: a loss is no longer finite.
        """
        if not self.actor.placed:
            self.policy.set_training_mode(True)
            spread(self.actor, self._replay_states(), self._numpy_rng())
        super().train(gradient_steps, batch_size)
        self.actor.projected.fill_(False)
        if self.projection_interval > 0 and self.num_timesteps - self._last_projection >= self.projection_interval:
            self.project()

    def _update_learning_rate(self, optimizers: list[torch.optim.Optimizer] | torch.optim.Optimizer) -> None:
        super()._update_learning_rate(optimizers)
        self.actor.optimizer.param_groups[1]["lr"] *= self.gaussian_rate  # see ProtoSACPolicy

    def _after_update(self, batch: ReplayBufferSamples) -> None:
        self.actor.keep_in_bounds()
        if isinstance(self.actor.encoder, StandardisedSpace):
            remaining = max(self._current_progress_remaining, 0.0)
            follow(self.actor, self._recent_features(len(batch.observations)), self._n_updates, remaining)
            # D / τ: half the temperature is twice the metric, which saved weights hold.
            now = cooled(self.initial_temperature or self.temperature, self.temperature, remaining)
            self.actor.encoder.hold(self.temperature / now)

    def _draws(self) -> int:
        return draws_needed(self.policy)

    def _auxiliary_weights(self) -> AuxiliaryWeights:
        return AuxiliaryWeights(*(getattr(self, name) for name in AuxiliaryWeights._fields))

    def _recent_features(self, count: int) -> torch.Tensor:
        """What the feature extractor makes (count, f) of states drawn from the latest in the replay buffer."""
        buffer = self.replay_buffer
        assert buffer is not None
        steps = min(buffer.size(), max(1, _RECENT // buffer.n_envs))
        rows = (buffer.pos - 1 - np.random.randint(steps, size=count)) % buffer.buffer_size
        states = self._as_seen(buffer.observations[rows, np.random.randint(buffer.n_envs, size=count)])
        with torch.no_grad():
            return self.actor.extract_features(buffer.to_torch(states), self.actor.features_extractor)
