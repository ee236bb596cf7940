"""SAC's update as Stable-Baselines3 makes it, with fewer and faster operations; SAC and ProtoSAC share it."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from stable_baselines3.common.type_aliases import MaybeCallback, ReplayBufferSamples

from ...common.compute import has_cpp_compiler, prefers_onednn
from .base import RunFolderSAC
from .checks import refuse_nan_losses
from .kernels import Losses
from .losses import AuxiliaryWeights
from .policies import FastSACPolicy

_COMPILING_PAYS = 100_000  # steps: some 2 ms saved in each against most of a minute


class FastSAC(RunFolderSAC):
    """Updates of a :class:`FastSACPolicy`, compiled where that pays; another policy's are Stable-Baselines3's own.

    Args:
        compile: whether updates go through torch.compile, which takes most of a minute before the first; ``"auto"``:
            on a CPU, if ``learn`` is asked for 100,000 steps or more, where it was measured to pay (not where oneDNN
            multiplies, see compute.py) and there is a C++ compiler. On CPUs with hardware for it, compiled updates
            multiply their large matrices in bf16.
    """

    policy: FastSACPolicy
    _uncompiled: ClassVar[Losses]

    def __init__(self, *args: Any, compile: bool | Literal["auto"] = "auto", **kwargs: Any):
        self.compile = compile
        self._chosen_losses: Losses | None = None
        super().__init__(*args, **kwargs)

    def _setup_model(self) -> None:
        super()._setup_model()
        if self.ent_coef_optimizer is not None:
            assert self.log_ent_coef is not None
            self.ent_coef_optimizer = torch.optim.Adam([self.log_ent_coef], lr=self.lr_schedule(1), fused=True)

    def learn(self, total_timesteps: int, callback: MaybeCallback = None, *args: Any, **kwargs: Any) -> Any:
        """Stable-Baselines3's ``learn``."""
        if self.compile == "auto":
            self._chosen_losses = None  # depends on how long this is for
        return super().learn(total_timesteps, callback, *args, **kwargs)

    def train(self, gradient_steps: int, batch_size: int = 64) -> None:
        """``gradient_steps`` updates of critics, actor and entropy coefficient.

        Raises:
            InterpError: a loss is no longer finite.
        """
        if not isinstance(self.policy, FastSACPolicy) or self.use_sde:  # gSDE, Dict observations, another's zip
            super().train(gradient_steps, batch_size)
            names = ("actor_loss", "critic_loss")
            refuse_nan_losses({n: self.logger.name_to_value[f"train/{n}"] for n in names}, self.num_timesteps)
            return
        self.policy.set_training_mode(True)
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

        # One transfer from the device for all of them.
        values = torch.stack([torch.stack(list(u.values())) for u in updates]).mean(0).tolist()
        means = dict(zip(updates[0], values, strict=True))
        for name, value in means.items():
            self.logger.record(f"train/{name}", value)
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
        refuse_nan_losses(means, self.num_timesteps)

    def _update(self, batch: ReplayBufferSamples) -> dict[str, torch.Tensor]:
        """One gradient step on a batch; returns detached scalars to log."""
        ent_coef = self.ent_coef_tensor if self.log_ent_coef is None else self.log_ent_coef.detach().exp()
        discounts = self.gamma if batch.discounts is None else batch.discounts
        # Drawn here, in SB3's order, so that compiled or not the same numbers are used.
        noise = torch.randn((self._draws(), *batch.actions.shape), device=self.device)
        next_noise = torch.randn_like(batch.actions)
        loss = self._losses.critic(self.policy, batch, discounts, ent_coef, next_noise)
        self.critic.optimizer.zero_grad()
        loss.backward()
        self.critic.optimizer.step()

        actor = self._losses.actor(self.policy, batch.observations, ent_coef, noise, self._auxiliary_weights())
        self.actor.optimizer.zero_grad()
        # Only the actor's gradients, those of the critics would be thrown away; the user may have frozen some.
        if trained := [p for p in self.policy.actor_parameters if p.requires_grad]:
            actor.total.backward(inputs=trained)
        self.actor.optimizer.step()
        self._after_update(batch)

        logged = {"critic_loss": loss.detach(), "actor_loss": actor.policy, "ent_coef": ent_coef.mean(), **actor.terms}
        if self.ent_coef_optimizer is not None:
            assert self.log_ent_coef is not None and not isinstance(self.target_entropy, str)
            # d/d(log α) of the loss −log α · E[log π + target entropy], which is linear.
            slope = -(actor.log_prob + self.target_entropy)
            logged["ent_coef_loss"] = (self.log_ent_coef.detach() * slope).squeeze()
            self.log_ent_coef.grad = slope.reshape(1)
            self.ent_coef_optimizer.step()
        return logged

    def _draws(self) -> int:
        """Actions an actor loss draws in a state."""
        return 1

    def _auxiliary_weights(self) -> AuxiliaryWeights | None:
        return None

    def _after_update(self, batch: ReplayBufferSamples) -> None:
        """What follows the actor's step."""

    @property
    def _losses(self) -> Losses:
        if self._chosen_losses is None:
            steps = self._total_timesteps - self._num_timesteps_at_start
            pays = self.device.type == "cpu" and steps >= _COMPILING_PAYS and not prefers_onednn()
            compiling = pays and has_cpp_compiler() if self.compile == "auto" else self.compile
            self._chosen_losses = self._uncompiled.compiled() if compiling else self._uncompiled
        return self._chosen_losses

    def _update_targets(self) -> None:
        with torch.no_grad():
            torch._foreach_lerp_(self.policy.target_parameters, self.policy.critic_parameters, self.tau)
            for source, target in zip(self.batch_norm_stats, self.batch_norm_stats_target, strict=True):
                target.copy_(source)

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "_chosen_losses"]
