"""Weights of the reference implementation: which of its TensorFlow variables is which of our parameters."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from ..errors import InterpError
from .network import ActorCritic


def reference_name_map(network: ActorCritic, scope: str = "sppo2_model") -> dict[str, Tensor]:
    """Map each variable name of the reference to our parameter tensor (a live view, not a copy)."""
    convs = [
        conv
        for stage in network.encoder.stages
        for conv in (stage.conv, stage.block1.conv1, stage.block1.conv2, stage.block2.conv1, stage.block2.conv2)
    ]
    layers = [*convs, network.encoder.dense]
    if network.semantic is not None:
        layers += [network.semantic.hidden, network.semantic.reduce]
    names: dict[str, Tensor] = {}
    for i, layer in enumerate(layers):
        names[f"{scope}/pi/layer_{i}/kernel:0"] = layer.weight
        names[f"{scope}/pi/layer_{i}/bias:0"] = layer.bias
    if network.semantic is not None:
        names[f"{scope}/pi/embeddings_vqvae:0"] = network.semantic.codebook
    for head, short in ((network.policy, "pi"), (network.value, "vf")):
        names[f"{scope}/{short}/w:0"] = head.weight
        names[f"{scope}/{short}/b:0"] = head.bias
    return names


@torch.no_grad()
def load_reference_weights(network: ActorCritic, weights: Mapping[str, np.ndarray], scope: str = "sppo2_model") -> None:
    """Copy reference variables into ``network``; TensorFlow shapes are transposed to PyTorch's.

    Raises:
        InterpError: a variable is missing or has the wrong shape.
    """
    for name, parameter in reference_name_map(network, scope).items():
        if name not in weights:
            raise InterpError(f"the checkpoint has no variable {name}: not a released SPPO or PPO checkpoint?")
        value = torch.as_tensor(np.asarray(weights[name], dtype=np.float32))
        value = value.permute(3, 2, 0, 1) if value.ndim == 4 else value.T if value.ndim == 2 else value
        if value.shape != parameter.shape:
            raise InterpError(f"variable {name} has shape {tuple(value.shape)}, expected {tuple(parameter.shape)}.")
        parameter.copy_(value)
