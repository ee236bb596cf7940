"""The losses of PPO and of semantic clustering (DESIGN 2.5–2.8), each a pure function of tensors."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..compute import multiply

LOG_SMALLEST = math.log(1e-10)  # similarities are clamped to 1e-10 from below


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


def log_similarity(x: Tensor, alpha: float, rows: slice | None = None) -> Tensor:
    """Logarithm of the Student-t similarities of the rows of ``x`` (B, d) to each other → (B, B).

    p_ij ∝ (1 + ‖x_i − x_j‖² / α)^(−(α+1)/2), diagonal 0, each row normalised to sum 1, clamped to [1e-10, 1] (paper,
    equation of the FDR loss; it normalises columns, and this is the transpose, because rows lie together in memory).
    One matrix product replaces the reference's B × B × d tiles, and logarithms keep four B × B matrices fewer for the
    backward pass. With ``rows``, only those are computed.
    """
    x = (x - x.mean(0)) / math.sqrt(alpha)  # centred: the difference of squares below loses fewer digits
    squares, one = x.square().sum(1, keepdim=True), torch.ones_like(x[:, :1])
    own = torch.cat([-2 * x, squares + 1, one], dim=1)
    others = torch.cat([x.T, one.T, squares.T])  # laid out as the backward pass multiplies fastest
    log_kernel = _LogKernel.apply(own[rows or slice(None)], others, rows.start if rows else 0, -(alpha + 1) / 2)
    # The same as clamp(min=…), whose backward pass takes a fifth of the whole loss.
    return F.threshold(F.log_softmax(log_kernel, dim=1), LOG_SMALLEST, LOG_SMALLEST)


class _LogKernel(torch.autograd.Function):
    """power · log(x @ y), −∞ on the diagonal from column ``first`` on; x @ y is 1 + ‖x_i − x_j‖² / α.

    One node instead of three: the matrices are B × B, and each that autograd would keep or make costs a millisecond.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, first: int, power: float) -> Tensor:
        kernel = multiply(x, y).clamp_(min=1)  # only rounding gets below
        kernel.diagonal(first).fill_(math.inf)
        ctx.save_for_backward(x, y, kernel)
        ctx.power = power
        return kernel.log().mul_(power)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, y, kernel = ctx.saved_tensors
        grad = (grad / kernel).mul_(ctx.power)
        return multiply(grad, y.t()), multiply(x.t(), grad), None, None


def fdr_loss(
    feature: Tensor, fdr: Tensor, alpha_feature: float = 20.0, alpha_fdr: float = 20.0, rows: slice | None = None
) -> Tensor:
    """L_FDR = −(1/B²) Σ_ij p_ij log q_ij: the 2-D map keeps the neighbours of the feature space.

    Args:
        feature: h (B, 256). fdr: z (B, 2). Gradients flow through both, as in the reference.
        rows: i runs over these only, and the mean too: a worker's share. The loss is the mean of all shares.
    """
    p = log_similarity(feature, alpha_feature, rows).exp()
    return -(p * log_similarity(fdr, alpha_fdr, rows)).sum() / p.numel()  # mean() would divide B × B gradients


def vq_loss(fdr: Tensor, code_vector: Tensor, beta: float = 0.25) -> Tensor:
    """L_VQ = mean ‖e_k − sg(z)‖² + β mean ‖sg(e_k) − z‖², means over batch and both dimensions."""
    return F.mse_loss(code_vector, fdr.detach()) + beta * F.mse_loss(fdr, code_vector.detach())
