"""Auxiliary losses that keep prototypes apart, occupied and few at a time (after ProtoPNet, arXiv 1806.10574).

Shapes: B states, K prototypes, d latent dimensions. Distances are squared and Euclidean.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F


def squared_distances(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """‖x_i − y_j‖² (B, K) of unit vectors x (B, d) and y (K, d), as 2 − 2 x·y: one matrix product."""
    return (2.0 - 2.0 * (x @ y.T)).clamp_min(0.0)


def similarities(distances: torch.Tensor, epsilon: float = 1e-4) -> torch.Tensor:
    """s = log((D + 1) / (D + ε)) of squared distances D, any shape (ProtoPNet, section 2.1). Largest at D = 0."""
    return torch.log((distances + 1.0) / (distances + epsilon))


def cluster_loss(distances: torch.Tensor) -> torch.Tensor:
    """mean_i min_k D_ik: every state is near some prototype. ``distances`` is (B, K)."""
    return distances.amin(1).mean()


def coverage_loss(distances: torch.Tensor) -> torch.Tensor:
    """mean_k min_i D_ik: every prototype is near some state. ``distances`` is (B, K)."""
    return distances.amin(0).mean()


def separation_loss(prototypes: torch.Tensor, margin: float) -> torch.Tensor:
    """Mean over pairs of max(0, margin − ‖p_i − p_j‖²): no two prototypes (K, d), unit vectors, coincide."""
    k = len(prototypes)
    if k < 2:
        return prototypes.new_zeros(())
    hinge = F.relu(margin - squared_distances(prototypes, prototypes))
    # The diagonal always pays the full margin, which is constant and taken off again.
    return (hinge.sum() - hinge.diagonal().sum()) / (k * (k - 1))


def entropy(weights: torch.Tensor) -> torch.Tensor:
    """Shannon entropy in nats over the last axis."""
    return torch.special.entr(weights).sum(-1)


def decision_entropy(weights: torch.Tensor) -> torch.Tensor:
    """mean_i H(w_i), nats: its exponential is the number of prototypes that share a decision. ``weights`` is (B, K)."""
    return entropy(weights).mean()


def usage_gap(weights: torch.Tensor) -> torch.Tensor:
    """log K − H(mean_i w_i), nats: 0 when all prototypes are used equally over the batch. ``weights`` is (B, K)."""
    return math.log(weights.shape[1]) - entropy(weights.mean(0))
