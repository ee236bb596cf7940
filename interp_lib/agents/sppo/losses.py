"""The losses of PPO and of semantic clustering (methods 2.5–2.8), each a pure function of tensors and as it reads."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

SMALLEST = 1e-10  # similarities are clamped to this from below


@dataclass
class PPOLoss:
    """Parts of the clipped PPO objective on one minibatch, all scalars.

    ``approxkl`` and ``clipfrac`` are diagnostics without gradient: half the mean squared log-ratio, and the share of
    samples whose ratio is clipped.
    """

    policy_loss: Tensor
    value_loss: Tensor
    entropy: Tensor
    approxkl: Tensor
    clipfrac: Tensor

    def total(self, value_coef: float, entropy_coef: float) -> Tensor:
        """L_PPO = policy loss + c_v · value loss − c_e · entropy."""
        return self.policy_loss + value_coef * self.value_loss - entropy_coef * self.entropy


def ppo_loss(
    logits: Tensor,
    value: Tensor,
    actions: Tensor,
    old_log_prob: Tensor,
    old_value: Tensor,
    returns: Tensor,
    clip_range: float,
    population: Tensor | None = None,
) -> PPOLoss:
    """Clipped surrogate, clipped value loss and entropy (Schulman et al. 2017, as in OpenAI Baselines).

    Args:
        logits: (B, num_actions). The other tensors: (B,); ``actions`` int64.
        population: the advantages of the whole minibatch where these B samples are a worker's share of it.

    Advantages are ``returns − old_value``, normalised over the minibatch (population std, + 1e-8).
    """
    advantages = returns - old_value
    population = advantages if population is None else population
    advantages = (advantages - population.mean()) / (population.std(correction=0) + 1e-8)
    log_probs = F.log_softmax(logits, dim=-1)
    log_ratio = log_probs.gather(1, actions[:, None]).squeeze(1) - old_log_prob
    ratio = log_ratio.exp()
    surrogate = torch.minimum(advantages * ratio, advantages * ratio.clamp(1 - clip_range, 1 + clip_range))
    clipped_value = old_value + (value - old_value).clamp(-clip_range, clip_range)
    value_error = torch.maximum((value - returns).square(), (clipped_value - returns).square())
    return PPOLoss(
        policy_loss=-surrogate.mean(),
        value_loss=0.5 * value_error.mean(),
        entropy=-(log_probs.exp() * log_probs).sum(-1).mean(),
        approxkl=0.5 * log_ratio.detach().square().mean(),
        clipfrac=((ratio.detach() - 1).abs() > clip_range).float().mean(),
    )


def fdr_loss(
    feature: Tensor,
    fdr: Tensor,
    alpha_feature: float = 20.0,
    alpha_fdr: float = 20.0,
    own: slice | None = None,
    *,
    bf16: bool = False,
) -> Tensor:
    """The FDR loss (methods 2.5): the map keeps the neighbours of the feature space. Training takes its fast twin.

    Args:
        feature: h (B, 256). fdr: z (B, 2). Gradients flow through both, as in the reference.
        own: j runs over these only, and the mean too: a worker's share. The loss is the mean of all shares.
        bf16: changes nothing here; the twin rounds by it.
    """
    p, q = similarities(feature, alpha_feature), similarities(fdr, alpha_fdr)
    return -(p * q.log())[:, own or slice(None)].mean()


def similarities(x: Tensor, alpha: float) -> Tensor:
    """By Student's t, of rows (B, d) to each other: 0 for a row itself, columns sum to 1, then clamped → (B, B)."""
    distances = torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist").square()
    kernel = (1 + distances / alpha) ** (-(alpha + 1) / 2) * (1 - torch.eye(len(x), dtype=x.dtype, device=x.device))
    return (kernel / kernel.sum(0)).clamp(SMALLEST, 1)


def vq_loss(fdr: Tensor, code_vector: Tensor, beta: float = 0.25) -> Tensor:
    """The codebook loss (methods 2.6): e_k moves to z, and β times as much z to e_k."""
    return F.mse_loss(code_vector, fdr.detach()) + beta * F.mse_loss(fdr, code_vector.detach())
