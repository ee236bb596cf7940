"""SAC's update as Stable-Baselines3 makes it, with fewer and faster operations; SAC and ProtoSAC share it.

On a GPU an update is hundreds of operations that take less time than launching them. Those between a batch and the
gradients of critics and actor are captured, a graph each; optimisers, which are fused, and targets stay outside, so
that learning rates, schedules and saved states are what they are elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, ClassVar

import torch
from stable_baselines3.common.type_aliases import MaybeCallback, ReplayBufferSamples

from ...common.acceleration import EXACT, ROUNDED, Capture, Checked, Compile, captured, cuda_graph
from ...common.compute import has_cpp_compiler, has_fast_bf16, prefers_onednn
from .base import RunFolderSAC
from .checks import refuse_nan_losses
from .kernels import Losses
from .losses import AuxiliaryWeights
from .policies import FastSACPolicy

_COMPILING_PAYS = 100_000  # steps: some 2 ms saved in each against most of a minute


class FastSAC(RunFolderSAC):
    """Updates of a :class:`FastSACPolicy`, compiled where that pays; another policy's are Stable-Baselines3's own.

    Args:
        compile: on a GPU: whether gradients are captured (``"auto"``: yes). On a CPU: whether they go through
            torch.compile, which takes most of a minute before the first; ``"auto"``: if ``learn`` is asked for 100,000
            steps or more, where it was measured to pay (not where oneDNN multiplies, see compute.py) and there is a
            C++ compiler. On CPUs with hardware for it, compiled updates multiply their large matrices in bf16. The
            first update checks that both give what the plain one gives. What was captured keeps the settings that are
            no argument of a loss, such as the actor's temperature, until the next ``learn``.
    """

    policy: FastSACPolicy
    _uncompiled: ClassVar[Losses]

    def __init__(self, *args: Any, compile: Compile = "auto", **kwargs: Any):
        self.compile = compile
        self._gradients: tuple[Callable[..., Any], Callable[..., Any]] | None = None
        super().__init__(*args, **kwargs)

    def _setup_model(self) -> None:
        super()._setup_model()
        if self.ent_coef_optimizer is not None:
            assert self.log_ent_coef is not None
            self.ent_coef_optimizer = torch.optim.Adam([self.log_ent_coef], lr=self.lr_schedule(1), fused=True)

    def learn(self, total_timesteps: int, callback: MaybeCallback = None, *args: Any, **kwargs: Any) -> Any:
        """Stable-Baselines3's ``learn``."""
        if self.compile == "auto":
            self._gradients = None  # depends on how long this is for
        return super().learn(total_timesteps, callback, *args, **kwargs)

    def train(self, gradient_steps: int, batch_size: int = 64) -> None:
        """``gradient_steps`` updates of critics, actor and entropy coefficient.

        Raises:
            InterpError: a loss is no longer finite.
        """
        if not isinstance(self.policy, FastSACPolicy) or self.use_sde:  # gSDE, Dict observations, another's zip
            super().train(gradient_steps, batch_size)
            both = ("actor_loss", "critic_loss")
            refuse_nan_losses({n: self.logger.name_to_value[f"train/{n}"] for n in both}, self.num_timesteps)
            return
        self.policy.set_training_mode(True)
        optimizers = (self.actor.optimizer, self.critic.optimizer, self.ent_coef_optimizer)
        self._update_learning_rate([optimizer for optimizer in optimizers if optimizer is not None])
        assert self.replay_buffer is not None
        names: list[str] = []
        updates = []
        for _ in range(gradient_steps):
            batch = self.replay_buffer.sample(batch_size, env=self._vec_normalize_env)
            losses = self._update(batch)
            names = list(losses)
            updates.append(torch.stack(list(losses.values())))  # the next update overwrites what was captured
            self._n_updates += 1
            if self._n_updates % self.target_update_interval == 0:
                self._update_targets()

        # One transfer from the device for all of them.
        means = dict(zip(names, torch.stack(updates).mean(0).tolist(), strict=True))
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
        if self._gradients is None:
            self._gradients = self._choose_gradients()
        of_critic, of_actor = self._gradients
        critics, actors = self.policy.critic_parameters, self.policy.actor_parameters
        loss = _step(self.critic.optimizer, critics, of_critic, self.policy, batch, discounts, ent_coef, next_noise)
        states, weights = batch.observations, self._auxiliary_weights()
        actor = _step(self.actor.optimizer, actors, of_actor, self.policy, states, ent_coef, noise, weights)
        self._after_update(batch)

        logged = {"critic_loss": loss, "actor_loss": actor.policy, "ent_coef": ent_coef.mean(), **actor.terms}
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

    def _choose_gradients(self, capture: Capture | None = None) -> tuple[Callable[..., Any], Callable[..., Any]]:
        """What computes loss and gradients of the critics, and of the actor; ``capture`` (None: a CUDA graph)."""
        plain = [partial(_gradients, loss) for loss in self._uncompiled]
        on_gpu = capture is not None or self.device.type == "cuda"
        steps = self._total_timesteps - self._num_timesteps_at_start
        pays = on_gpu or (steps >= _COMPILING_PAYS and not prefers_onednn() and has_cpp_compiler())
        if not (pays if self.compile == "auto" else self.compile):
            return plain[0], plain[1]
        fast: list[Callable[..., Any]]
        if on_gpu:
            fast = [captured(function, capture or cuda_graph) for function in plain]
        else:
            fast = [lambda *_, loss=loss: partial(_gradients, loss) for loss in self._uncompiled.compiled()]
        tolerance = ROUNDED if not on_gpu and has_fast_bf16(self.device) else EXACT
        how = "captured" if on_gpu else "compiled"
        of_critics, of_actor = (
            Checked(function, make, f"the {whose} gradient could not be {how} and", tolerance)
            for function, make, whose in zip(plain, fast, ("critics'", "actor's"), strict=True)
        )
        return of_critics, of_actor

    def _update_targets(self) -> None:
        with torch.no_grad():
            torch._foreach_lerp_(self.policy.target_parameters, self.policy.critic_parameters, self.tau)
            for source, target in zip(self.batch_norm_stats, self.batch_norm_stats_target, strict=True):
                target.copy_(source)

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "_gradients"]


def _step(
    optimizer: torch.optim.Optimizer, parameters: Sequence[torch.Tensor], gradients: Callable[..., Any], *args: Any
) -> Any:
    """A step of ``optimizer`` by what ``gradients`` computes of the arguments; returns the loss, detached."""
    trained = tuple(p for p in parameters if p.requires_grad)  # the user may have frozen some
    loss, found = gradients(trained, *args)
    optimizer.zero_grad()
    for parameter, gradient in zip(trained, found, strict=True):
        parameter.grad = gradient
    optimizer.step()
    return loss


def _gradients(loss: Callable[..., Any], trained: Sequence[torch.Tensor], *args: Any) -> tuple[Any, list[Any]]:
    """What ``loss`` returns for the other arguments, detached, and its gradients with respect to ``trained`` only."""
    result = loss(*args)
    total = result if isinstance(result, torch.Tensor) else result.total
    for parameter in trained:
        parameter.grad = None
    if trained:
        total.backward(inputs=list(trained))
    detached = total.detach() if result is total else result._replace(total=total.detach())
    return detached, [parameter.grad for parameter in trained]
