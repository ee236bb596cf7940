"""One optimiser step of PPO or SPPO (methods 2.7–2.8), with TensorFlow's Adam."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

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
        self.optimizer = torch.optim.Adam(network.parameters(), lr=config.learning_rate, eps=ADAM_EPSILON)
        self.steps = 0

    def step(self, batch: Minibatch, skill_weight: float = 0.0) -> dict[str, float]:
        """Take one step on ``batch`` with λ = ``skill_weight``; returns the losses before the step, by csv column."""
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
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        workers.average_gradients(self.network.parameters())
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), cfg.max_grad_norm)
        self._adam_step()
        losses = {
            "loss": loss,
            "policy_entropy": ppo.entropy,
            "policy_loss": ppo.policy_loss,
            "value_loss": ppo.value_loss,
            **semantic,
            "approxkl": ppo.approxkl,
            "clipfrac": ppo.clipfrac,
        }
        values = workers.mean(torch.stack([x.detach() for x in losses.values()]))
        return dict(zip(losses, values.tolist(), strict=True))

    def _adam_step(self) -> None:
        # TensorFlow adds ε outside the bias correction; PyTorch inside. Early on, with clipped gradients, it matters.
        self.steps += 1
        for group in self.optimizer.param_groups:
            group["eps"] = ADAM_EPSILON / math.sqrt(1 - group["betas"][1] ** self.steps)
        self.optimizer.step()
