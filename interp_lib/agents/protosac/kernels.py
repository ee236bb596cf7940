"""The fast twins of formulas: the same numbers, to rounding, from networks (:func:`run_mlp`) and losses (compiled).

Networks of Linear and ReLU, :func:`run_mlp` instead of ``network(x)``. Two things make it faster on a CPU:

- oneDNN multiplies matrices of hidden-layer size; PyTorch's default, MKL, is slow on CPUs that are not Intel's. On one
  thread of an AMD EPYC with AVX-512 (256, 256) by (256, 256) took 0.16 ms instead of 0.32 ms.
- One autograd node for the whole network, whose backward pass computes the gradients that are asked for and no others.

Nearly all of the gain is the first. On one thread of that machine, which other training kept busy,
benchmarks/protosac_throughput.py counted 1.32 times the gradient steps of Stable-Baselines3's SAC on HalfCheetah and
1.33 times on Pendulum, and without oneDNN's products 1.01 and 1.02 times.

On Intel's CPUs, where MKL is at home, long runs gain by compiling the update instead (:meth:`Losses.compiled`). An
update on a CPU is half small operations, five hundred of them; compiled, those that follow one another become one. On
one thread of a Xeon without bf16 the same benchmark counted 1.29 and 1.34 times; not compiled, 0.99 and 0.97 times.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from stable_baselines3.common.policies import ContinuousCritic
from torch import nn

from ...common import compute
from ...common.compute import NARROW, has_fast_bf16, multiply
from .losses import ActorLoss

_FEW_ROWS = 32  # a single decision gains nothing


def layers_of(network: nn.Sequential) -> tuple[nn.Linear, ...] | None:
    """The Linear layers of a network that is Linear, ReLU, Linear, …, Linear; None for any other network."""
    modules = tuple(network)
    linear = tuple(m for m in modules[0::2] if type(m) is nn.Linear and m.bias is not None)
    between = tuple(m for m in modules[1::2] if type(m) is nn.ReLU)
    usual = len(linear) + len(between) == len(modules) and len(linear) == len(between) + 1
    return linear if usual else None


def run_mlp(network: nn.Sequential, x: torch.Tensor, *, frozen: bool = False) -> torch.Tensor:
    """``network(x)`` (B, out) of x (B, in).

    Args:
        frozen: compute no gradients of the network's parameters, only of ``x``.
    """
    layers = layers_of(network)
    compiling = torch.compiler.is_compiling()
    if layers is None or not compiling and (x.device.type != "cpu" or len(x) < _FEW_ROWS or x.dtype != torch.float32):
        return network(x)
    parameters = [p.detach() if frozen else p for layer in layers for p in (layer.weight, layer.bias)]
    if not compiling:
        return _MLP.apply(x, *parameters)
    # What is compiled is differentiated operation by operation: layer by layer, then, frozen ones left out.
    for i in range(len(layers)):
        weight, bias = parameters[2 * i : 2 * i + 2]
        x = _FloatReLU.apply(x) if i else x
        if min(weight.shape) >= NARROW and x.device.type == "cpu" and _multiplies_bf16():
            x = F.linear(x.bfloat16(), weight.bfloat16()).float() + bias
        else:
            x = F.linear(x, weight, bias)
    return x


@torch.compiler.assume_constant_result
def _multiplies_bf16() -> bool:
    return has_fast_bf16(torch.device("cpu"))


class _FloatReLU(torch.autograd.Function):
    """relu, whose gradient is written without booleans: storing those takes compiled code ten times as long."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        y = x.clamp_min(0)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> torch.Tensor:
        (y,) = ctx.saved_tensors
        return grads[0] * y.sign()


class _MLP(torch.autograd.Function):
    """x, W₁, b₁, W₂, b₂, … ↦ W_n relu(… relu(W₁ x + b₁) …) + b_n."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, *parameters: torch.Tensor) -> torch.Tensor:
        weights, biases = parameters[0::2], parameters[1::2]
        inputs = [x]
        for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
            inputs.append(_linear(inputs[-1], weight, bias, relu=True))
        ctx.save_for_backward(*inputs, *weights)
        return _linear(inputs[-1], weights[-1], biases[-1])

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        n = len(ctx.saved_tensors) // 2
        inputs, weights = ctx.saved_tensors[:n], ctx.saved_tensors[n:]
        grads: list[torch.Tensor | None] = [None] * (2 * n + 1)
        for i in reversed(range(n)):
            if ctx.needs_input_grad[2 * i + 1]:
                grads[2 * i + 1] = multiply(grad.t(), inputs[i])
            if ctx.needs_input_grad[2 * i + 2]:
                grads[2 * i + 2] = grad.sum(0)
            if i > 0:
                grad = multiply(grad, weights[i])
                grad = torch.ops.aten.threshold_backward(grad, inputs[i], 0)
            elif ctx.needs_input_grad[0]:
                grads[0] = multiply(grad, weights[0])
        return tuple(grads)


def _linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, relu: bool = False) -> torch.Tensor:
    if min(weight.shape) >= NARROW and compute.prefers_onednn():
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "relu" if relu else "none", [], "")
    y = F.linear(x, weight, bias)
    return y.relu_() if relu else y


class FastCritic(ContinuousCritic):
    """Stable-Baselines3's twin critics, with the same parameters under the same names."""

    def forward(self, obs: torch.Tensor, actions: torch.Tensor, *, frozen: bool = False) -> tuple[torch.Tensor, ...]:
        """Q (B, 1) of each critic; with ``frozen`` gradients reach the actions and nothing else."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not (self.share_features_extractor or frozen)):
            features = self.extract_features(obs, self.features_extractor)
        x = torch.cat([features, actions], dim=1)
        return tuple(run_mlp(cast(nn.Sequential, network), x, frozen=frozen) for network in self.q_networks)


class Losses(NamedTuple):
    """The two functions an update differentiates (losses.py)."""

    critic: Callable[..., torch.Tensor]
    actor: Callable[..., ActorLoss]

    def compiled(self) -> Losses:
        """Their twins, to be compiled at the first call."""
        return Losses(torch.compile(self.critic, dynamic=False), torch.compile(self.actor, dynamic=False))
