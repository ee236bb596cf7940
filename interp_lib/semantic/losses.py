"""The losses of PPO and of semantic clustering (DESIGN 2.5–2.8), each a pure function of tensors."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


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


def similarity(x: Tensor, alpha: float, columns: slice | None = None) -> Tensor:
    """Student-t similarities between the rows of ``x`` (B, d), each column normalised to sum 1 → (B, B).

    q_ij ∝ (1 + ‖x_i − x_j‖² / α)^(−(α+1)/2), diagonal 0, clamped to [1e-10, 1] (paper, equation of the FDR loss).
    One matrix product replaces the reference's B × B × d tiles. With ``columns``, only those are computed.
    """
    x = x - x.mean(0)  # distances don't change, and the difference of squares below loses fewer digits
    squares = x.square().sum(1)
    own, own_squares = (x, squares) if columns is None else (x[columns], squares[columns])
    distances = (squares[:, None] + own_squares[None, :] - 2 * x @ own.T).clamp(min=0)
    kernel = torch.exp(torch.log1p(distances / alpha) * (-(alpha + 1) / 2))
    diagonal = torch.eye(len(x), device=x.device, dtype=x.dtype)
    kernel = kernel * (1 - (diagonal if columns is None else diagonal[:, columns]))
    return (kernel / kernel.sum(0)).clamp(1e-10, 1)


def fdr_loss(
    feature: Tensor,
    fdr: Tensor,
    alpha_feature: float = 20.0,
    alpha_fdr: float = 20.0,
    columns: slice | None = None,
) -> Tensor:
    """L_FDR = −(1/B²) Σ_ij p_ij log q_ij: the 2-D map keeps the neighbours of the feature space.

    Args:
        feature: h (B, 256). fdr: z (B, 2). Gradients flow through both, as in the reference.
        columns: j runs over these only, and the mean too: a worker's share. The loss is the mean of all shares.
    """
    p = similarity(feature, alpha_feature, columns)
    q = similarity(fdr, alpha_fdr, columns)
    return -(p * q.log()).mean()


def vq_loss(fdr: Tensor, code_vector: Tensor, beta: float = 0.25) -> Tensor:
    """L_VQ = mean ‖e_k − sg(z)‖² + β mean ‖sg(e_k) − z‖², means over batch and both dimensions."""
    return F.mse_loss(code_vector, fdr.detach()) + beta * F.mse_loss(fdr, code_vector.detach())
