"""What one update of ProtoSAC minimises (methods 3.4; Haarnoja et al., arXiv 1812.05905, equations 5 and 7).

    L_critic = ½ Σ_j E[(Q_j(s, a) − r − γ (min_j Q̄_j(s', a') − α log π(a'|s')))²]
    L_actor  = E[α log π(a|s) − min_j Q_j(s, a)] + Σ weight · auxiliary loss

The auxiliary losses keep prototypes apart, occupied and few at a time (after ProtoPNet, arXiv 1806.10574). kernels.py
has what computes all of this faster. Shapes: B states, K prototypes, d latent dimensions, a action dimensions.
Distances are squared and Euclidean.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F

from .mixtures import choice_gradient
from .standardised import StandardisedSpace

if TYPE_CHECKING:
    from stable_baselines3.common.type_aliases import ReplayBufferSamples

    from .actor import Comparison, ProtoSACPolicy
    from .policies import FastSACPolicy


def squared_distances(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """‖x_i − y_j‖² (B, K) of x (B, d) and y (K, d), as ‖x‖² + ‖y‖² − 2 x·y: one matrix product."""
    return ((x * x).sum(1, keepdim=True) + (y * y).sum(1) - 2.0 * (x @ y.T)).clamp_min(0.0)


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
    # Weights of far prototypes underflow to 0, where the slope of w log w is infinite.
    return -(weights * weights.clamp_min(1e-30).log()).sum(-1)


def decision_entropy(weights: torch.Tensor) -> torch.Tensor:
    """mean_i H(w_i), nats: its exponential is the number of prototypes that share a decision. ``weights`` is (B, K)."""
    return entropy(weights).mean()


def sharing_loss(weights: torch.Tensor, few: float = 3.0) -> torch.Tensor:
    """mean_i max(0, H(w_i) − log few), nats: what decisions are shared by beyond ``few``. ``weights`` is (B, K)."""
    return F.relu(entropy(weights) - math.log(few)).mean()


def usage_gap(weights: torch.Tensor) -> torch.Tensor:
    """log K − H(mean_i w_i), nats: 0 when all prototypes are used equally over the batch. ``weights`` is (B, K)."""
    return math.log(weights.shape[1]) - entropy(weights.mean(0))


class AuxiliaryWeights(NamedTuple):
    """Weights of the auxiliary losses, and the margin prototypes are kept apart by, as ProtoSAC's settings."""

    cluster_weight: float
    coverage_weight: float
    separation_weight: float
    separation_margin: float
    sharpness_weight: float
    usage_weight: float
    metric_weight: float


class ActorLoss(NamedTuple):
    """Scalars; all but the first are detached."""

    total: torch.Tensor  # its gradient is the actor's
    policy: torch.Tensor  # without the auxiliary losses
    log_prob: torch.Tensor  # mean log-density of the actions drawn
    terms: dict[str, torch.Tensor]  # auxiliary losses and what usage they show, to log


def critic_loss(
    policy: FastSACPolicy,
    batch: ReplayBufferSamples,
    discounts: torch.Tensor | float,
    ent_coef: torch.Tensor,
    noise: torch.Tensor,
) -> torch.Tensor:
    """L_critic of B transitions; rewards, dones and discounts are (B, 1), the next actions' noise (B, a)."""
    with torch.no_grad():
        next_actions, next_log_prob = policy.actor.action_log_prob(batch.next_observations, noise)
        next_q = torch.cat(policy.critic_target(batch.next_observations, next_actions), 1).amin(1, keepdim=True)
        target = batch.rewards + (1 - batch.dones) * discounts * (next_q - ent_coef * next_log_prob.unsqueeze(1))
    each = [F.mse_loss(q, target) for q in policy.critic(batch.observations, batch.actions)]
    return 0.5 * sum(each[1:], start=each[0])


def draws_needed(policy: ProtoSACPolicy) -> int:
    """Actions :func:`actor_loss` draws in a state: choosing a component needs a baseline for its score function."""
    return 2 if policy.actor.mixture == "gmm" else 1


def actor_loss(
    policy: ProtoSACPolicy,
    observations: torch.Tensor,
    ent_coef: torch.Tensor,
    noise: torch.Tensor,
    weights: AuxiliaryWeights,
) -> ActorLoss:
    """L_actor of states (B, *observation), with noise (draws, B, a) for the actions."""
    # One encoder pass serves the policy, its log-probability and the auxiliary losses.
    comparison = policy.actor.compare(observations)
    mixed = policy.actor.mix(comparison.weights)
    draws = [mixed.sample(each) for each in noise]
    log_probs = [mixed.log_prob(u) for u, _ in draws]
    costs = []
    for (u, _), log_prob in zip(draws, log_probs, strict=True):
        q = torch.cat(policy.critic(observations, torch.tanh(u), frozen=True), 1).amin(1)
        costs.append(ent_coef * log_prob - q)
    cost = torch.cat(costs).mean()
    auxiliary, terms = auxiliary_loss(policy, comparison, weights)
    total = cost + auxiliary
    if len(draws) > 1:
        total = total + choice_gradient(costs, [weight for _, weight in draws if weight is not None])
    return ActorLoss(total, cost.detach(), torch.cat(log_probs).detach().mean(), terms)


def gaussian_actor_loss(
    policy: FastSACPolicy, observations: torch.Tensor, ent_coef: torch.Tensor, noise: torch.Tensor, _: None = None
) -> ActorLoss:
    """L_actor of SAC itself, without prototypes; arguments as :func:`actor_loss`."""
    actions, log_prob = policy.actor.action_log_prob(observations, noise[0])
    q = torch.cat(policy.critic(observations, actions, frozen=True), 1).amin(1)
    cost = (ent_coef * log_prob - q).mean()
    return ActorLoss(cost, cost.detach(), log_prob.detach().mean(), {})


def auxiliary_loss(
    policy: ProtoSACPolicy, comparison: Comparison, weights: AuxiliaryWeights
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The weighted sum of the auxiliary losses of the actor's space, and the terms to log."""
    actor, gap = policy.actor, usage_gap(comparison.weights)
    cluster, coverage = cluster_loss(comparison.distances), coverage_loss(comparison.distances)
    total = weights.sharpness_weight * sharing_loss(comparison.weights) + weights.usage_weight * gap
    terms = {"cluster_loss": cluster, "coverage_loss": coverage}
    if isinstance(actor.encoder, StandardisedSpace):
        # Near the states prototypes are by construction: asked of the metric, it would shrink.
        terms["metric_loss"] = actor.encoder.unevenness()
        total = total + weights.metric_weight * terms["metric_loss"]
    else:
        separation = terms["separation_loss"] = separation_loss(actor.located(), weights.separation_margin)
        total = total + weights.cluster_weight * cluster + weights.coverage_weight * coverage
        total = total + weights.separation_weight * separation
    terms["prototypes_per_decision"] = decision_entropy(comparison.weights).exp()
    terms["prototypes_used"] = actor.n_prototypes * (-gap).exp()
    return total, {name: value.detach() for name, value in terms.items()}
