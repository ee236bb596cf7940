"""One optimiser step of PPO or SPPO (methods 2.7–2.8), with TensorFlow's Adam."""

from __future__ import annotations

import math
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...common.acceleration import Checked
from .config import PPOConfig, SPPOConfig
from .kernels import fdr_loss  # the fast twin: that of .losses trains the same, slowly
from .losses import ppo_loss, vq_loss
from .network import ActorCritic
from .parallel import Workers

ADAM_EPSILON = 1e-5


class Minibatch(NamedTuple):
    """B transitions of a rollout."""

    obs: Tensor  # uint8 (B, 64, 64, 3)
    actions: Tensor  # int64 (B,)
    old_log_prob: Tensor  # float32 (B,)
    old_value: Tensor  # float32 (B,)
    returns: Tensor  # float32 (B,)


class Updater:
    """Computes losses on minibatches and steps the optimiser; works for PPO and SPPO networks.

    With several ``workers``, each steps on its share of a minibatch, and all take the step of the whole one.
    """

    def __init__(self, network: ActorCritic, config: PPOConfig, workers: Workers | None = None) -> None:
        self.network, self.config, self.workers = network, config, workers or Workers()
        self.parameters = list(network.parameters())
        self.device = self.parameters[0].device
        # None is PyTorch's choice, which on a CPU is the faster one.
        self.fused = True if self.device.type == "cuda" else None
        self.optimizer = torch.optim.Adam(self.parameters, lr=config.learning_rate, eps=ADAM_EPSILON, fused=self.fused)
        self.steps = 0
        self.accelerate(compile=False)

    def accelerate(self, *, compile: bool) -> None:
        """From now on compute losses and gradients by torch.compile, once it gave the same; or as they stand here."""
        self.gradients: Any = self._gradients
        if compile:
            one = torch.ones((), device=self.device)
            self.gradients = Checked(
                self._gradients,
                lambda *_: partial(self._gradients, losses=torch.compile(self._losses, dynamic=False)),
                "learning could not be compiled and",
                reference=self.network.encoder.exactly(self._gradients),
                # Without weight, as at the beginning, what the semantic module learns would not be looked at.
                examples=lambda batch, weight: [(batch, 0 * one), (batch, one)],
            )

    def step(self, batch: Minibatch, skill_weight: Tensor | float = 0.0) -> dict[str, Tensor]:
        """Take one step on ``batch`` with λ = ``skill_weight``; returns the losses before the step, by csv column.

        With several workers they are those of this one's share.
        """
        losses, gradients = self.gradients(batch, torch.as_tensor(skill_weight, device=self.device))
        for parameter, gradient in zip(self.parameters, gradients, strict=True):
            parameter.grad = gradient
        self.workers.average_gradients(self.parameters)
        torch.nn.utils.clip_grad_norm_(self.parameters, self.config.max_grad_norm)
        self._adam_step()
        return losses

    def _gradients(
        self, batch: Minibatch, skill_weight: Tensor, losses: Any = None
    ) -> tuple[dict[str, Tensor], list[Tensor | None]]:
        values = (losses or self._losses)(batch, skill_weight)
        self.optimizer.zero_grad(set_to_none=True)
        values["loss"].backward()
        return {name: value.detach() for name, value in values.items()}, [p.grad for p in self.parameters]

    def _losses(self, batch: Minibatch, skill_weight: Tensor) -> dict[str, Tensor]:
        cfg, workers = self.config, self.workers
        out = self.network(batch.obs)
        ppo = ppo_loss(
            out.logits, out.value, batch.actions, batch.old_log_prob, batch.old_value, batch.returns, cfg.clip_range,
            population=workers.gather(batch.returns - batch.old_value),
        )  # fmt: skip
        loss = ppo.total(cfg.value_coef, cfg.entropy_coef)
        semantic: dict[str, Tensor] = {}
        if isinstance(cfg, SPPOConfig):
            feature, fdr = workers.gather(out.feature), workers.gather(out.fdr)  # the loss compares all pairs
            rows = workers.share(len(feature)) if workers.size > 1 else None
            bf16 = self.network.encoder.bf16
            skill = fdr_loss(feature, fdr, cfg.alpha_feature, cfg.alpha_fdr, rows, bf16=bf16)
            vq = vq_loss(out.fdr, out.code_vector, cfg.vq_beta)
            loss = loss + skill_weight * (cfg.fdr_coef * skill + cfg.vq_coef * vq)
            semantic = {"skill_loss": skill, "vq_loss": vq}
        return {
            "loss": loss,
            "policy_entropy": ppo.entropy,
            "policy_loss": ppo.policy_loss,
            "value_loss": ppo.value_loss,
            **semantic,
            "approxkl": ppo.approxkl,
            "clipfrac": ppo.clipfrac,
        }

    def _adam_step(self) -> None:
        # TensorFlow adds ε outside the bias correction; PyTorch inside. Early on, with clipped gradients, it matters.
        self.steps += 1
        for group in self.optimizer.param_groups:
            group["eps"] = ADAM_EPSILON / math.sqrt(1 - group["betas"][1] ** self.steps)
        self.optimizer.step()

    def load_state_dict(self, state: dict[str, Any], steps: int) -> None:
        """Go on with the moments of an optimiser, wherever it was; whether the step is fused depends on the device."""
        groups = [{**group, "fused": self.fused} for group in state["param_groups"]]
        self.optimizer.load_state_dict({**state, "param_groups": groups})
        self.steps = steps
