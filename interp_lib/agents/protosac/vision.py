"""The feature extractors of image tasks."""

from __future__ import annotations

import torch
from gymnasium import spaces
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import nn
from torch.nn.functional import avg_pool2d

_BLOCK = 8


class SmallCNN(BaseFeaturesExtractor):
    """The two convolutions of the first DQN (Mnih et al., arXiv 1312.5602, section 4.1), then SAC-AE's narrow head.

    On a CPU an update of images is convolutions and little else: a forward pass takes a third of the multiplications
    of Stable-Baselines3's NatureCNN, and half precision weights take 0.2 MB.

    Images of a task are much alike. Through PyTorch's own initialisation the latents of 1,000 states of CarRacing had a
    mean squared distance of 0.00006 from their mean on the unit sphere (Hopper's: 0.2), and all prototypes fell
    together. It is 0.1 with what SAC-AE does (Yarats et al., arXiv 1910.01741: pixels around 0, layer norm, tanh) and
    weights that keep the variance through ReLUs (He et al., arXiv 1502.01852).

    Args:
        observation_space: of images (channels, height, width), scaled to [0, 1] before they get here.
        features_dim: outputs.
    """

    def __init__(self, observation_space: spaces.Box, features_dim: int = 64) -> None:
        super().__init__(observation_space, features_dim)
        channels = observation_space.shape[0]
        convolutions = nn.Sequential(
            nn.Conv2d(channels, 16, kernel_size=8, stride=4), nn.ReLU(),
            nn.Conv2d(16, 32, kernel_size=4, stride=2), nn.ReLU(), nn.Flatten(),
        )  # fmt: skip
        with torch.no_grad():
            width = convolutions(torch.zeros(1, *observation_space.shape)).shape[1]
        # Channels last: gradients take half the time, here and wherever oneDNN convolves.
        self.convolutions = convolutions.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.head = nn.Sequential(nn.Linear(width, features_dim), nn.LayerNorm(features_dim), nn.Tanh())
        for name, parameter in self.named_parameters():
            if parameter.ndim > 1:
                nn.init.kaiming_normal_(parameter, nonlinearity="relu")
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        """Features (B, features_dim) in (−1, 1) of images (B, channels, height, width)."""
        centred = (observations - 0.5).contiguous(memory_format=torch.channels_last)
        return self.head(self.convolutions(centred))


class CoarseFrames(BaseFeaturesExtractor):
    """Images as they look from afar: means of blocks of 8 by 8 pixels. Nothing is learned.

    Args:
        observation_space: of images (channels, height, width), scaled to [0, 1] before they get here.
    """

    def __init__(self, observation_space: spaces.Box) -> None:
        channels, height, width = observation_space.shape
        super().__init__(observation_space, channels * (height // _BLOCK) * (width // _BLOCK))

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        """Features (B, channels · blocks) in [0, 1] of images (B, channels, height, width)."""
        return avg_pool2d(observations, _BLOCK).flatten(1)
