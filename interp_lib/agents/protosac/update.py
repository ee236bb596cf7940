"""What one update of ProtoSAC minimises, as functions of a batch that can be compiled.

    L_critic = ½ Σ_j E[(Q_j(s, a) − r − γ (min_j Q̄_j(s', a') − α log π(a'|s')))²]
    L_actor  = E[α log π(a|s) − min_j Q_j(s, a)] + Σ weight · auxiliary loss     (losses.py)

(Haarnoja et al., arXiv 1812.05905, equations 5 and 7.) An update on a CPU is half small operations, five hundred of
them; compiled (torch.compile), those that follow one another become one. On one thread of a Xeon without bf16,
benchmarks/protosac_throughput.py counted 1.29 times the gradient steps of Stable-Baselines3's SAC on HalfCheetah and
1.34 times on Pendulum; not compiled, 0.99 and 0.97 times.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F

from . import losses
from .actor import Comparison, ProtoSACPolicy
from .mixtures import choice_gradient


@dataclass(frozen=True)
class AuxiliaryWeights:
    """Weights of the auxiliary losses, and the margin prototypes are kept apart by (see ProtoSAC)."""

    cluster: float
    coverage: float
    separation: float
    separation_margin: float
    sharpness: float
    usage: float


class ActorLoss(NamedTuple):
    """Scalars; all but the first are detached."""

    total: torch.Tensor  # its gradient is the actor's
    policy: torch.Tensor  # without the auxiliary losses
    log_prob: torch.Tensor  # mean log-density of the actions drawn
    terms: dict[str, torch.Tensor]  # auxiliary losses and what usage they show, to log


def critic_loss(
    policy: ProtoSACPolicy,
    observations: torch.Tensor,
    actions: torch.Tensor,
    next_observations: torch.Tensor,
    rewards: torch.Tensor,
    dones: torch.Tensor,
    discounts: torch.Tensor | float,
    ent_coef: torch.Tensor,
    noise: torch.Tensor,
) -> torch.Tensor:
    """L_critic of B transitions; rewards, dones and discounts are (B, 1), the next actions' noise (B, a)."""
    with torch.no_grad():
        next_actions, next_log_prob = policy.actor.action_log_prob(next_observations, noise)
        next_q = torch.cat(policy.critic_target(next_observations, next_actions), 1).amin(1, keepdim=True)
        target = rewards + (1 - dones) * discounts * (next_q - ent_coef * next_log_prob.unsqueeze(1))
    each = [F.mse_loss(q, target) for q in policy.critic(observations, actions)]
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


def auxiliary_loss(
    policy: ProtoSACPolicy, comparison: Comparison, weights: AuxiliaryWeights
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The weighted sum of the auxiliary losses, and the terms to log."""
    decision_entropy = losses.decision_entropy(comparison.weights)
    usage_gap = losses.usage_gap(comparison.weights)
    cluster = losses.cluster_loss(comparison.distances)
    coverage = losses.coverage_loss(comparison.distances)
    separation = losses.separation_loss(policy.actor.unit_prototypes(), weights.separation_margin)
    total = (
        weights.cluster * cluster
        + weights.coverage * coverage
        + weights.separation * separation
        + weights.sharpness * decision_entropy
        + weights.usage * usage_gap
    )
    terms = {
        "cluster_loss": cluster,
        "coverage_loss": coverage,
        "separation_loss": separation,
        "prototypes_per_decision": decision_entropy.exp(),
        "prototypes_used": policy.actor.n_prototypes * (-usage_gap).exp(),
    }
    return total, {name: value.detach() for name, value in terms.items()}


class Compiled:
    """A loss through torch.compile; as it is where compiling fails, which is said once.

    The gradient is compiled when it is first asked for, so the first call asks for it: later would be too late to turn
    back. What that leaves in the parameters' ``grad`` is for an optimiser's ``zero_grad`` to clear.

    Args:
        function: what to compile.
        loss: the scalar to differentiate in what it returns.
    """

    def __init__(
        self, function: Callable[..., Any], loss: Callable[[Any], torch.Tensor] = lambda result: result
    ) -> None:
        self._plain, self._function = function, torch.compile(function, dynamic=False)
        self._loss, self._tried = loss, False

    def __call__(self, *args: Any) -> Any:
        if not self._tried:
            self._try(*args)
        return self._function(*args)

    def _try(self, *args: Any) -> None:
        self._tried = True
        try:
            # PyTorch's compiler warns of its own deprecated parts. The numbers drawn here are drawn again.
            with warnings.catch_warnings(), torch.random.fork_rng():
                warnings.filterwarnings("ignore", category=FutureWarning, module="torch")
                self._loss(self._function(*args)).backward()
        except torch._dynamo.exc.TorchDynamoException as error:  # no compiler that works, an operation it can't
            reason = str(error).strip().splitlines()[0]
            warnings.warn(f"the update could not be compiled and runs as it is, slower: {reason}", stacklevel=4)
            self._function = self._plain


class Losses(NamedTuple):
    """The two functions an update differentiates."""

    critic: Callable[..., torch.Tensor]  # as critic_loss
    actor: Callable[..., ActorLoss]  # as actor_loss


EAGER = Losses(critic_loss, actor_loss)


def compiled_losses() -> Losses:
    """:data:`EAGER`, to be compiled at the first call."""
    return Losses(Compiled(critic_loss), Compiled(actor_loss, lambda result: result.total))
