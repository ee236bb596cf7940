"""ProtoSAC and its baseline SAC as Stable-Baselines3 algorithms.

ProtoSAC is SAC (Haarnoja et al., arXiv 1812.05905) whose actor compares the state with learned prototypes and mixes
their Gaussians (actor.py). Each update takes a step on critics and actor (losses.py), and every
``projection_interval`` steps, and at the end of ``learn``, each prototype is moved onto the nearest state in the replay
buffer (projection.py), and the policy is brought back to what it was (refit.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback, ReplayBufferSamples

from ...common.compute import has_cpp_compiler, prefers_onednn
from ...common.errors import InterpError
from .actor import NEEDS_BOX, POLICY_SETTINGS, ProtoActor, ProtoCnnPolicy, ProtoSACPolicy
from .base import RunFolderSAC
from .checks import refuse_nan, refuse_nan_losses
from .kernels import EAGER, Losses, compiled_losses
from .losses import AuxiliaryWeights, draws_needed
from .projection import Projection, distinct, latest_observations, place, project, replay_observations, spread
from .settings import PROTOTYPE_DEFAULTS

_IMITATED_STATES = 20_000  # of LunarLander about eighty episodes
_COMPILING_PAYS = 100_000  # steps: some 2 ms saved in each against most of a minute


@dataclass(frozen=True)
class Explanation:
    """Why a ProtoSAC policy acts as it does, for B observations.

    Attributes:
        weights: (B, K) float32, column k belongs to prototype k; rows sum to 1.
        similarities: (B, K) float32, log((D + 1) / (D + ε)) of squared latent distances D.
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
        latents: (K, d) float32, of length 1.
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


class SAC(RunFolderSAC):
    """Stable-Baselines3's SAC, plus run folders (``save_run``, ``load_run``): the baseline."""

    algorithm: ClassVar[str] = "sac"

    def train(self, gradient_steps: int, batch_size: int = 64) -> None:
        super().train(gradient_steps, batch_size)
        recorded = self.logger.name_to_value
        refuse_nan_losses(
            {name: recorded[f"train/{name}"] for name in ("actor_loss", "critic_loss")}, self.num_timesteps
        )


class ProtoSAC(RunFolderSAC):
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

    Args:
        policy: ``"MlpPolicy"`` or ``"CnnPolicy"``.
        env: environment, VecEnv or Gymnasium id with Box observations and actions.
        n_prototypes, latent_dim, temperature, mixture, cluster_weight, coverage_weight, separation_weight,
            separation_margin, sharpness_weight, usage_weight, projection_interval, projection_candidates: as flags of
            ``interp train protosac``, whose help says what they are; their defaults are those of
            :class:`~interp_lib.agents.protosac.settings.TaskSettings` (``tau`` stays SAC's target update rate).
        final_projection: project at the end of ``learn``.
        imitation_epochs: of the final projection, in which encoder and Gaussians imitate the policy before it.
        compile: whether updates go through torch.compile, which takes most of a minute before the first; ``"auto"``:
            on a CPU, if ``learn`` is asked for 100,000 steps or more, where it was measured to pay (not where oneDNN
            multiplies, see compute.py) and there is a C++ compiler.

    Raises:
        InterpError: discrete actions, Dict observations, a setting out of range or among ``policy_kwargs``, gSDE.
    """

    algorithm: ClassVar[str] = "protosac"
    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {"MlpPolicy": ProtoSACPolicy, "CnnPolicy": ProtoCnnPolicy}
    extra_fields: ClassVar[tuple[str, ...]] = (
        *(name for name in PROTOTYPE_DEFAULTS if name != "projection_candidates"),
        *("final_projection", "imitation_epochs", "projection_candidates"),  # last in every config.json
    )
    actor: ProtoActor  # type: ignore[assignment]  # SB3 annotates its own Actor, which this replaces
    policy: ProtoSACPolicy
    n_prototypes: int
    projection_interval: int
    projection_candidates: int

    def __init__(
        self,
        policy: str | type[ProtoSACPolicy],
        env: GymEnv | str | None,
        learning_rate: Any = 3e-4,
        *,
        final_projection: bool = True,
        imitation_epochs: int = 50,
        compile: bool | Literal["auto"] = "auto",
        _init_setup_model: bool = True,
        **kwargs: Any,
    ):
        for name, default in PROTOTYPE_DEFAULTS.items():
            setattr(self, name, kwargs.pop(name, default))
        self.final_projection, self.imitation_epochs, self.compile = final_projection, imitation_epochs, compile
        self._last_projection = 0
        self._chosen_losses: Losses | None = None
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
        if self.ent_coef_optimizer is not None:
            assert self.log_ent_coef is not None
            self.ent_coef_optimizer = torch.optim.Adam([self.log_ent_coef], lr=self.lr_schedule(1), fused=True)

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
        if self.compile == "auto":
            self._chosen_losses = None  # depends on how long this is for
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
        self.policy.set_training_mode(True)
        if not self.actor.placed:
            spread(self.actor, self._replay_states(), self._numpy_rng())
        optimizers = (self.actor.optimizer, self.critic.optimizer, self.ent_coef_optimizer)
        self._update_learning_rate([optimizer for optimizer in optimizers if optimizer is not None])
        assert self.replay_buffer is not None
        updates = []
        for _ in range(gradient_steps):
            batch = self.replay_buffer.sample(batch_size, env=self._vec_normalize_env)
            updates.append(self._update(batch))
            self._n_updates += 1
            if self._n_updates % self.target_update_interval == 0:
                self._update_targets()
        self.actor.projected.fill_(False)

        # One transfer from the device for all of them.
        values = torch.stack([torch.stack(list(u.values())) for u in updates]).mean(0).tolist()
        means = dict(zip(updates[0], values, strict=True))
        for name, value in means.items():
            self.logger.record(f"train/{name}", value)
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
        refuse_nan_losses(means, self.num_timesteps)
        if self.projection_interval > 0 and self.num_timesteps - self._last_projection >= self.projection_interval:
            self.project()

    def _update(self, batch: ReplayBufferSamples) -> dict[str, torch.Tensor]:
        """One gradient step on a batch; returns detached scalars to log."""
        ent_coef = self.ent_coef_tensor if self.log_ent_coef is None else self.log_ent_coef.detach().exp()
        discounts = self.gamma if batch.discounts is None else batch.discounts
        # Drawn here, in SB3's order, so that compiled or not the same numbers are used.
        noise = torch.randn((draws_needed(self.policy), *batch.actions.shape), device=self.device)
        next_noise = torch.randn_like(batch.actions)
        loss = self._losses.critic(
            self.policy, batch.observations, batch.actions, batch.next_observations, batch.rewards, batch.dones,
            discounts, ent_coef, next_noise,
        )  # fmt: skip
        self.critic.optimizer.zero_grad()
        loss.backward()
        self.critic.optimizer.step()

        actor = self._losses.actor(self.policy, batch.observations, ent_coef, noise, self._auxiliary_weights())
        self.actor.optimizer.zero_grad()
        # Only the actor's gradients, those of the critics would be thrown away; the user may have frozen some.
        if trained := [p for p in self.policy.actor_parameters if p.requires_grad]:
            actor.total.backward(inputs=trained)
        self.actor.optimizer.step()
        self.actor.keep_in_bounds()

        logged = {"critic_loss": loss.detach(), "actor_loss": actor.policy, "ent_coef": ent_coef.mean(), **actor.terms}
        if self.ent_coef_optimizer is not None:
            assert self.log_ent_coef is not None and not isinstance(self.target_entropy, str)
            # d/d(log α) of the loss −log α · E[log π + target entropy], which is linear.
            slope = -(actor.log_prob + self.target_entropy)
            logged["ent_coef_loss"] = (self.log_ent_coef.detach() * slope).squeeze()
            self.log_ent_coef.grad = slope.reshape(1)
            self.ent_coef_optimizer.step()
        return logged

    @property
    def _losses(self) -> Losses:
        if self._chosen_losses is None:
            steps = self._total_timesteps - self._num_timesteps_at_start
            pays = self.device.type == "cpu" and steps >= _COMPILING_PAYS and not prefers_onednn()
            compiling = pays and has_cpp_compiler() if self.compile == "auto" else self.compile
            self._chosen_losses = compiled_losses() if compiling else EAGER
        return self._chosen_losses

    def _auxiliary_weights(self) -> AuxiliaryWeights:
        return AuxiliaryWeights(*(getattr(self, name) for name in AuxiliaryWeights._fields))

    def _update_targets(self) -> None:
        with torch.no_grad():
            torch._foreach_lerp_(self.policy.target_parameters, self.policy.critic_parameters, self.tau)
            for source, target in zip(self.batch_norm_stats, self.batch_norm_stats_target, strict=True):
                target.copy_(source)

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "_chosen_losses"]

    # Prototypes

    def project(self, observations: np.ndarray | None = None, *, imitation_epochs: int = 0) -> Projection | None:
        """Move each prototype onto the nearest state, no two onto the same one, and keep the policy what it was.

        Args:
            observations: states (n, *observation) to choose from and to imitate the policy in; None: a sample of the
                replay buffer, and its latest states.
            imitation_epochs: 0 refits the Gaussians; more train the encoder too (refit.py).

        Returns:
            What was chosen, how far prototypes moved and what it did to the policy; None if there are fewer different
            states than prototypes.
        """
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
            latents=_numpy(self.actor.unit_prototypes()),
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
