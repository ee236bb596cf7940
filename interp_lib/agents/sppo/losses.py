"""The losses of PPO and of semantic clustering (methods 2.5–2.8), each a pure function of tensors."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ...common.compute import multiply

SMALLEST = 1e-10  # similarities are clamped to this from below
_CPU_ROWS = 128  # of 2048 similarities: a megabyte


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
    rows: slice | None = None,
    *,
    bf16: bool = False,
) -> Tensor:
    """L_FDR = −(1/B²) Σ_ij p_ij log q_ij: the 2-D map keeps the neighbours of the feature space.

    p are the similarities of features to each other, q those of map points (paper, equation of the FDR loss):
    p_ij ∝ (1 + ‖h_i − h_j‖² / α)^(−(α+1)/2), diagonal 0, each row normalised to sum 1 (the paper normalises columns;
    this is the transpose, because rows lie together in memory), clamped to [1e-10, 1].

    Args:
        feature: h (B, 256). fdr: z (B, 2). Gradients flow through both, as in the reference.
        rows: i runs over these only, and the mean too: a worker's share. The loss is the mean of all shares.
        bf16: round to bfloat16 what the two large products of the gradient multiply; the loss stays float32.
    """
    operands = (*_kernel_operands(feature, alpha_feature, rows), *_kernel_operands(fdr, alpha_fdr, rows))
    powers = (-(alpha_feature + 1) / 2, -(alpha_fdr + 1) / 2)
    return _SimilarityCrossEntropy.apply(*operands, rows.start if rows else 0, powers, bf16)


def _kernel_operands(x: Tensor, alpha: float, rows: slice | None) -> tuple[Tensor, Tensor]:
    """Matrices (rows, d + 2) and (d + 2, B) whose product is 1 + ‖x_i − x_j‖² / α: no B × B × d tiles."""
    x = (x - x.mean(0)) / math.sqrt(alpha)  # centred: the difference of squares below loses fewer digits
    squares, one = x.square().sum(1, keepdim=True), torch.ones_like(x[:, :1])
    own = torch.cat([-2 * x, squares + 1, one], dim=1)
    others = torch.cat([x.T, one.T, squares.T])  # laid out as the gradient's products are fastest
    return own[rows or slice(None)], others


class _SimilarityCrossEntropy(torch.autograd.Function):
    """−mean p log q, where p and q are similarities of kernels 1 + D/α given as products of two matrices each.

    One node with its gradient by hand, because everything is B × B: autograd would keep or make some 25 such matrices
    where this fills two, and on a CPU does all but the products in blocks of rows that stay in cache. With
    s = softmax(power · log k) before the clamp, m_h = p log q where s_h is not clamped and m_z = p where s_z is not,
    the gradient of both kernels is power/B² · (s Σ_j m − m) / k.
    """

    @staticmethod
    def forward(
        ctx: Any,
        own_h: Tensor,
        others_h: Tensor,
        own_z: Tensor,
        others_z: Tensor,
        first: int,
        powers: tuple[float, float],
        bf16: bool,
    ) -> Tensor:
        kernels_h, kernels_z = multiply(own_h, others_h), multiply(own_z, others_z)
        total = own_h.new_zeros(())
        block = _CPU_ROWS if own_h.device.type == "cpu" else len(own_h)
        for kernel_h, kernel_z in zip(kernels_h.split(block), kernels_z.split(block), strict=True):
            s_h, s_z = (_similarity(k, first, power) for k, power in zip((kernel_h, kernel_z), powers, strict=True))
            p, log_q = s_h.clamp(min=SMALLEST), s_z.clamp(min=SMALLEST).log_()
            total -= torch.dot(p.view(-1), log_q.view(-1))
            # From here on the kernels' memory holds the gradient with respect to them, but for power/B².
            m_h, m_z = F.threshold(s_h, SMALLEST, 0.0).mul_(log_q), p.mul_(s_z > SMALLEST)
            for kernel, s, m in ((kernel_h, s_h, m_h), (kernel_z, s_z, m_z)):
                torch.div(s.mul_(m.sum(1, keepdim=True)).sub_(m), kernel, out=kernel)
            first += block
        scales = [power / kernels_h.numel() for power in powers]
        ctx.save_for_backward(
            *_product_gradients(kernels_h, own_h, others_h, scales[0], bf16),
            *_product_gradients(kernels_z, own_z, others_z, scales[1], bf16=False),
        )
        return total / kernels_h.numel()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return *(grad * saved for saved in ctx.saved_tensors), None, None, None


def _similarity(kernel: Tensor, first: int, power: float) -> Tensor:
    """softmax(power · log k) of rows ``first`` … of a kernel, which is changed: 1 from below, ∞ on the diagonal."""
    kernel.clamp_(min=1).diagonal(first).fill_(math.inf)  # only rounding gets below
    return kernel.log().mul_(power).softmax(1)


def _product_gradients(grad: Tensor, x: Tensor, y: Tensor, scale: float, bf16: bool) -> tuple[Tensor, Tensor]:
    """scale times the gradients of x and y from ``grad``, that of x @ y."""
    dtype = x.dtype
    if bf16:
        grad, x, y = grad.bfloat16(), x.bfloat16(), y.bfloat16()
    return multiply(grad, y.t()).to(dtype).mul_(scale), multiply(x.t(), grad).to(dtype).mul_(scale)


def vq_loss(fdr: Tensor, code_vector: Tensor, beta: float = 0.25) -> Tensor:
    """L_VQ = mean ‖e_k − sg(z)‖² + β mean ‖sg(e_k) − z‖², means over batch and both dimensions."""
    return F.mse_loss(code_vector, fdr.detach()) + beta * F.mse_loss(fdr, code_vector.detach())
