"""The IMPALA actor-critic and the semantic clustering module (methods 2.1–2.4; paper section 4).

    obs ─ IMPALA ─ h (256) ─┬────────────── + k/K ── policy and value heads
                            └ FDR ─ z (2) ─ VQ ─ k ─┘

PPO is the same network without the lower branch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import kernels

FEATURE_SIZE = 256


class NetworkOutput(NamedTuple):
    """Everything one forward pass of n observations gives; the last three are None without a semantic module."""

    logits: Tensor  # (n, num_actions)
    value: Tensor  # (n,)
    feature: Tensor  # (n, 256), h
    fdr: Tensor | None  # (n, 2), z: the feature dimensionality reduction
    code: Tensor | None  # (n,) int64, k(z)
    code_vector: Tensor | None  # (n, 2), e_k


def conv_pool(x: Tensor, conv: nn.Conv2d) -> Tensor:
    """Convolution, then a max-pool of 3 with stride 2 that pads after the last row and column only (methods 2.1).

    That is TensorFlow's 'SAME', which ``ceil_mode`` gives. The network takes the fast twin (:mod:`.kernels`).
    """
    return F.max_pool2d(conv(kernels.as_float(x)), kernel_size=3, stride=2, ceil_mode=True)


class ResidualBlock(nn.Module):
    """relu, conv, relu, conv, add."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(self.conv1(F.relu(x)).relu_())


class ImpalaStage(nn.Module):
    """conv, max-pool 3 stride 2, two residual blocks. uint8 input counts as pixels and is divided by 255."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.block1 = ResidualBlock(out_channels)
        self.block2 = ResidualBlock(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.block2(self.block1(kernels.conv_pool(x, self.conv)))  # conv_pool gives the same


class ImpalaEncoder(nn.Module):
    """IMPALA CNN: uint8 observations (n, 64, 64, 3) → feature h (n, 256), float32.

    Args:
        chunk: observations that go through the convolutions together. On a CPU, small chunks stay in cache.
        bf16: run the convolutions in bfloat16 (weights, their gradients and everything after them stay float32).
    """

    def __init__(self, *, chunk: int = 128, bf16: bool = False) -> None:
        super().__init__()
        self.chunk, self.bf16 = chunk, bf16
        self.stages = nn.Sequential(ImpalaStage(3, 16), ImpalaStage(16, 32), ImpalaStage(32, 32))
        self.dense = nn.Linear(32 * 8 * 8, FEATURE_SIZE)
        for module in self.modules():  # TensorFlow's default initialisation: Glorot uniform, zero bias
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                nn.init.xavier_uniform_(module.weight)
                assert module.bias is not None
                nn.init.zeros_(module.bias)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs don't know it alone

    def forward(self, obs: Tensor) -> Tensor:
        with torch.autocast(obs.device.type, torch.bfloat16, enabled=self.bf16):
            return torch.cat([self._encode(part) for part in obs.split(self.chunk)])

    def exactly(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """``function`` with convolutions in float32, whatever training does."""

        def exact(*args: Any) -> Any:
            before, self.bf16 = self.bf16, False
            try:
                return function(*args)
            finally:
                self.bf16 = before

        return exact

    def _encode(self, obs: Tensor) -> Tensor:
        x = F.relu(self.stages(obs.permute(0, 3, 1, 2)))  # the permuted view is channels-last already: no copy
        x = x.permute(0, 2, 3, 1).flatten(1)  # height, width, channel: the reference's order
        return F.relu(self.dense(x)).float()


class SemanticModule(nn.Module):
    """Feature dimensionality reduction to 2-D and vector quantisation with K codes (paper section 4.2).

    ``forward`` maps features h (n, 256) to ``(z (n, 2), k (n,) int64, e_k (n, 2))``.
    """

    def __init__(self, num_codes: int = 8) -> None:
        super().__init__()
        self.num_codes = num_codes
        self.hidden = nn.Linear(FEATURE_SIZE, 128)
        self.reduce = nn.Linear(128, 2)
        for layer in (self.hidden, self.reduce):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
        self.codebook = nn.Parameter(torch.empty(num_codes, 2).uniform_(-1 / num_codes, 1 / num_codes))

    def forward(self, feature: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        z = self.reduce(self.hidden(feature))
        with torch.no_grad():
            code = (z[:, None, :] - self.codebook).square().sum(-1).argmin(1)
        return z, code, self.codebook[code]


class ActorCritic(nn.Module):
    """Policy and value heads on the IMPALA feature, shifted by k/K where there is a semantic module.

    Args:
        num_actions: size of the discrete action space.
        chunk, bf16: see :class:`ImpalaEncoder`.
        semantic: what :class:`SemanticModule` takes; nothing builds the plain PPO network.
    """

    def __init__(self, num_actions: int, *, chunk: int = 128, bf16: bool = False, **semantic: Any) -> None:
        super().__init__()
        self.encoder = ImpalaEncoder(chunk=chunk, bf16=bf16)
        self.semantic = SemanticModule(**semantic) if semantic else None
        self.policy = nn.Linear(FEATURE_SIZE, num_actions)
        self.value = nn.Linear(FEATURE_SIZE, 1)
        for head, gain in ((self.policy, 0.01), (self.value, 1.0)):
            nn.init.orthogonal_(head.weight, gain)
            nn.init.zeros_(head.bias)

    def forward(self, obs: Tensor) -> NetworkOutput:
        """Run uint8 observations (n, 64, 64, 3) through the network."""
        feature = self.encoder(obs)
        fdr, code, code_vector = (None, None, None) if self.semantic is None else self.semantic(feature)
        return NetworkOutput(*self.heads(feature, code), feature, fdr, code, code_vector)

    def heads(self, feature: Tensor, code: Tensor | None) -> tuple[Tensor, Tensor]:
        """Logits (n, num_actions) and values (n,) of features h (n, 256) with codes k (n,): linear in h + k/K."""
        if self.semantic is not None and code is not None:
            feature = feature + (code.float() / self.semantic.num_codes)[:, None]
        return self.policy(feature), self.value(feature).squeeze(-1)
