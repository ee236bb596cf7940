"""Fast twins of formulas: the FDR loss of :mod:`.losses`, and convolution and pool of :mod:`.network`.

Each takes what its formula takes and gives the same, which tests compare, gradients too. Who changes a formula changes
the twin after it, or imports the formula in the twin's place (:mod:`.update`, :mod:`.network`).
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...common.compute import multiply
from .losses import SMALLEST

_CPU_ROWS = 128  # of 2048 similarities: a megabyte


# -- the FDR loss (methods 2.5) -----------------------------------------------------------------------------------


def fdr_loss(
    feature: Tensor,
    fdr: Tensor,
    alpha_feature: float = 20.0,
    alpha_fdr: float = 20.0,
    own: slice | None = None,
    *,
    bf16: bool = False,
) -> Tensor:
    """:func:`.losses.fdr_loss` with its gradient by hand; ``bf16`` rounds what its two large products multiply.

    What is a column there is a row here, because rows lie together in memory.
    """
    operands = (*_kernel_operands(feature, alpha_feature, own), *_kernel_operands(fdr, alpha_fdr, own))
    powers = (-(alpha_feature + 1) / 2, -(alpha_fdr + 1) / 2)
    return _SimilarityCrossEntropy.apply(*operands, own.start if own else 0, powers, bf16)


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


# -- convolution and pool (methods 2.1) ---------------------------------------------------------------------------


def conv_pool(x: Tensor, conv: nn.Conv2d) -> Tensor:
    """:func:`.network.conv_pool`, to the bit. What is compiled, and a GPU, is fastest with the two as they are."""
    if torch.is_grad_enabled() and x.device.type == "cpu" and not torch.compiler.is_compiling():
        return _ConvMaxPool.apply(x, conv.weight, conv.bias)
    return max_pool(conv(as_float(x)))


def max_pool(x: Tensor) -> Tensor:
    """Max-pool 3, stride 2 of (n, c, h, w) with even h and w, padded after the last row and column only.

    That is TensorFlow's 'SAME', which ``ceil_mode`` gives: the last window hangs over the right and bottom edge.
    """
    if x.device.type != "cpu" or torch.is_grad_enabled():
        return F.max_pool2d(x, kernel_size=3, stride=2, ceil_mode=True)
    for dim in (3, 2):  # nobody needs the argmax here, and comparing slices is three times as fast
        even, odd = x.unflatten(dim, (-1, 2)).unbind(dim + 1)
        x = torch.maximum(even, odd)
        inner = x.narrow(dim, 0, x.shape[dim] - 1)  # the windows that reach into the next pair
        torch.maximum(inner, even.narrow(dim, 1, inner.shape[dim]), out=inner)
    return x


class _ConvMaxPool(torch.autograd.Function):
    """Convolution 3 × 3 and max-pool of (n, c, h, w) that keep for the backward pass no more than it needs.

    What lies between the two is four times as large as what comes out. PyTorch's own pool would keep it, for its shape
    alone, and where each maximum was in 8 bytes; a place in a plane of 64 × 64 takes 2. Bytes stay bytes as well.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        convolved = F.conv2d(as_float(x), weight, bias, padding=1)
        pooled, places = F.max_pool2d_with_indices(convolved, [3, 3], [2, 2], ceil_mode=True)
        ctx.save_for_backward(x, weight, bias, places.short())
        ctx.convolved_shape = convolved.shape
        return pooled

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor, Tensor]:
        x, weight, bias, places = ctx.saved_tensors
        grad = grads[0]
        shape_only = torch.empty(
            ctx.convolved_shape, dtype=grad.dtype, device=grad.device, memory_format=torch.channels_last
        )
        convolved_grad = torch.ops.aten.max_pool2d_with_indices_backward(
            grad, shape_only, [3, 3], [2, 2], [0, 0], [1, 1], True, places.long()
        )
        x_grad, weight_grad, bias_grad = torch.ops.aten.convolution_backward(
            convolved_grad, as_float(x).to(grad.dtype), weight.to(grad.dtype), [len(bias)], [1, 1], [1, 1], [1, 1],
            False, [0, 0], 1, [ctx.needs_input_grad[0], True, True],
        )  # fmt: skip
        return x_grad, weight_grad.to(weight.dtype), bias_grad.to(bias.dtype)


def as_float(x: Tensor) -> Tensor:
    """Pixels as numbers from 0 to 1; other tensors as they are."""
    return x.float() / 255 if x.dtype == torch.uint8 else x
