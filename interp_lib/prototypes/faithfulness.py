"""Are ProtoSAC's explanations true? What happens to the return and the actions when they are taken at their word.

The explanation of a decision names a few prototypes. If it is true, those few must be enough (:meth:`Controls.top_k`),
taking one away must matter where it leads (:meth:`Controls.ablation`), other states in the place of the prototypes must
serve worse (:meth:`Controls.placement`), states of one prototype must be treated alike (:func:`purity`), and training
again must find similar ones (:func:`stability`). Each measure stands beside a control that has the same form without
the meaning: random prototypes, k-means clusters, random states.

K prototypes. Intervals are 95% bootstraps over episodes; stability's over prototypes, purity's a jackknife
over episodes. :meth:`Controls.losses` says what is lost, tested and with a verdict; :func:`faithfulness_verdict` says
it in words.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from ..agents.protosac.projection import distinct, nearest_distinct
from ..agents.returns import evaluate_side_by_side
from ..common.errors import InterpError
from ..common.grouping import explained_variance, k_means
from ..common.statistics import NOTHING, SIGNIFICANT, Interval, bootstrap_mean, holm, jackknife_interval, sign_flip_p
from .likeness import as_compared

if TYPE_CHECKING:
    from ..agents.protosac import ProtoSAC
    from .study import PrototypeStudy

EFFECT = 5.0  # % of the range from random actions to the agent; what loses less is not needed
WeightChange = Callable[[np.ndarray], np.ndarray]


class Reweighted:
    """The agent with its prototypes' weights changed before they are mixed; deterministic actions.

    Args:
        agent: a ProtoSAC.
        change: weights (B, K) → weights (B, K); scaled to sum 1 afterwards.
    """

    def __init__(self, agent: ProtoSAC, change: WeightChange) -> None:
        self.agent, self.change = agent, change

    @torch.no_grad()
    def predict(self, observation: np.ndarray, deterministic: bool = True) -> tuple[np.ndarray, None]:
        """As Stable-Baselines3's ``predict``: one observation or (B, *observation) → actions in the task's units."""
        actor, policy = self.agent.policy.actor, self.agent.policy
        obs, vectorized = policy.obs_to_tensor(observation)
        weights = self.change(actor.compare(obs).weights.cpu().numpy().astype(np.float64))
        weights = weights / weights.sum(1, keepdims=True)
        mixed = actor.mix(torch.as_tensor(weights, dtype=torch.float32, device=self.agent.device))
        actions = policy.unscale_action(torch.tanh(mixed.mode()).cpu().numpy())
        return (actions if vectorized else actions[0]), None


def keep_top(k: int) -> WeightChange:
    """Keep the ``k`` largest weights of each decision."""

    def change(weights: np.ndarray) -> np.ndarray:
        smallest_kept = np.sort(weights, axis=1)[:, -k][:, None]
        return np.where(weights >= smallest_kept, weights, 0.0)

    return change


def keep_random(k: int, seed: int = 0) -> WeightChange:
    """Keep ``k`` prototypes drawn anew for each decision, with their weights: the control of :func:`keep_top`."""
    rng = np.random.default_rng(seed)

    def change(weights: np.ndarray) -> np.ndarray:
        kept = rng.random(weights.shape).argsort(axis=1)[:, :k]
        changed = np.zeros_like(weights)
        np.put_along_axis(changed, kept, np.take_along_axis(weights, kept, axis=1), axis=1)
        return _at_least_equal(changed)

    return change


def without(prototype: int) -> WeightChange:
    """Take one prototype away; the others share its weight in proportion."""

    def change(weights: np.ndarray) -> np.ndarray:
        return _at_least_equal(np.where(np.arange(weights.shape[1]) == prototype, 0.0, weights))

    return change


def _at_least_equal(weights: np.ndarray) -> np.ndarray:
    """Equal weights where none is left."""
    return weights + 1e-12 * (weights.sum(1, keepdims=True) == 0)


@dataclass(frozen=True)
class Controls:
    """The agent of a study played otherwise, on episodes of the same seeds, and what that costs.

    Attributes:
        study: its agent, task, states and first seed.
        episodes: of each control.
    """

    study: PrototypeStudy
    episodes: int

    def returns(self, policy: Any) -> np.ndarray:
        """Returns of a policy (None: random actions), float64 (episodes,); the seeds are the same for all."""
        task, seed = self.study.info.name, self.study.traces[0].seed
        return evaluate_side_by_side(policy, task, self.episodes, seed=seed).returns

    @cached_property
    def own(self) -> np.ndarray:
        """Returns of the agent itself."""
        return self.returns(self.study.agent)

    @cached_property
    def range(self) -> float:
        """Mean return from random actions to the agent: 100%. NaN if the agent is no better, and has none to lose."""
        gained = self.own.mean() - self.returns(None).mean()
        return float(gained) if gained > 0 else float("nan")

    def top_k(self, ks: Sequence[int] = (1, 2, 3)) -> dict[str, np.ndarray]:
        """Returns when only the k heaviest prototypes of each decision act, and when k drawn at random do.

        Raises:
            InterpError: a k that the agent hasn't.
        """
        agent, seed = self.study.agent, self.study.traces[0].seed
        if not all(1 <= k <= agent.n_prototypes for k in ks):
            raise InterpError(
                f"the agent has {agent.n_prototypes} prototypes; ask for the top 1 to {agent.n_prototypes}, "
                f"not {list(ks)}."
            )
        found = {f"top {k}": self.returns(Reweighted(agent, keep_top(k))) for k in ks}
        return found | {f"{k} at random": self.returns(Reweighted(agent, keep_random(k, seed))) for k in ks}

    def ablation(self, prototypes: Sequence[int]) -> dict[int, np.ndarray]:
        """Returns without each of ``prototypes``."""
        return {k: self.returns(Reweighted(self.study.agent, without(k))) for k in prototypes}

    def placement(self) -> tuple[dict[str, np.ndarray], dict[str, float]]:
        """Returns when the prototypes stand elsewhere: does it matter which states they are?

        As many other visited states take the prototypes' places, drawn at random or nearest to the centres of k-means
        on latents, and the Gaussians are refitted to the agent's own policy exactly as after a projection. A visited
        state may be drawn close to a prototype; nothing is trained.

        Returns:
            by placement the returns, and KL(agent ‖ placed) in nats a decision after the refit, on the study's states.

        Raises:
            InterpError: fewer different states than prototypes.
        """
        agent, count, seed = self.study.agent, self.study.agent.n_prototypes, self.study.traces[0].seed
        states = distinct(self.study.observations)
        if len(states) < count:
            raise InterpError(f"{len(states)} different states can't replace {count} prototypes. Record more episodes.")
        latents = agent.encode(states)
        centres = k_means(latents, count, seed).cluster_centers_
        placements = {
            # No state twice.
            "k-means states": nearest_distinct(torch.as_tensor(centres), torch.as_tensor(latents)),
            "random states": np.random.default_rng(seed).choice(len(states), count, replace=False),
        }
        returns, divergence = {}, {}
        for name, chosen in placements.items():
            with agent.kept():
                divergence[name] = agent.place_prototypes(states[chosen], visited=self.study.observations)
                returns[name] = self.returns(agent)
        return returns, divergence

    def losses(self, returns: Mapping[Any, np.ndarray]) -> pd.DataFrame:
        """What controls lose of the agent's return, one family of tests.

        The differences are paired by episode and in percent of :attr:`range`, which is taken as known.

        Returns:
            a row a control: mean ``return``; ``loss``, ``low``, ``high`` in %; ``p``, of a sign-flip test, corrected
            for the number of rows (Holm); ``verdict``: ``needed`` (what the control takes away; p < 0.05 and a loss of
            at least :data:`EFFECT`), ``not needed`` (the interval ends below that) or ``undecided``; ``episodes``.
        """
        # Sums of equal rewards may differ in their last bits.
        lost = [(100 * (self.own - values) / self.range).round(9) for values in returns.values()]
        rows = []
        for values, differences, p in zip(returns.values(), lost, holm([sign_flip_p(d) for d in lost]), strict=True):
            loss = bootstrap_mean(differences) if np.isfinite(self.range) else NOTHING
            verdict = "needed" if p < SIGNIFICANT and loss.mean >= EFFECT else "undecided"
            verdict = "not needed" if loss.high < EFFECT else verdict
            rows.append(
                {"return": values.mean(), "loss": loss.mean, "low": loss.low, "high": loss.high}
                | {"p": p, "verdict": verdict, "episodes": len(values)}
            )
        return pd.DataFrame(rows, index=pd.Index(list(returns), name="control"))


# What is said of a control by its verdict.
_SAID = {
    "top": ("the others are needed", "the others are not needed", "undecided whether the others are needed"),
    "at random": ("who acts matters", "who acts does not matter", "undecided whether it matters who acts"),
    "states": ("these very states are needed", "other states serve as well", "undecided whether others serve as well"),
}
_VERDICTS = ("needed", "not needed", "undecided")


def faithfulness_verdict(controls: pd.DataFrame, ablation: pd.DataFrame, pure: pd.DataFrame) -> str:
    """What was found: a Markdown list of sentences.

    Args:
        controls, ablation: from :meth:`Controls.losses`, of top k and placements, and of prototypes by number.
        pure: from :func:`purity`.
    """
    if controls["loss"].isna().all():
        return "The agent is no better than random actions: there is nothing to lose."
    lines = []
    for name, row in controls.iterrows():
        kind = next(kind for kind in _SAID if kind in str(name))
        said = _SAID[kind][_VERDICTS.index(row["verdict"])]
        lines.append(f"{name}: {_lost(row)} of the return lost, {said}.")
    for verdict in _VERDICTS:
        rows = ablation[ablation["verdict"] == verdict]
        if len(rows):
            each = ", ".join(f"P{k} {_lost(row)}" for k, row in rows.iterrows())
            lines.append(f"{verdict.capitalize()}: {len(rows)} of {len(ablation)} prototypes; without {each}.")
    for what in ("actions", "values"):
        own, *others = (Interval(*pure.loc[name, [what, f"{what}_low", f"{what}_high"]]) for name in pure.index)
        beside = [
            f"{'more than' if own.low > other.high else 'less than' if own.high < other.low else 'undecided beside'} "
            f"{name} ({other})"
            for name, other in zip(pure.index[1:], others, strict=True)
        ]
        lines.append(f"Of the variance of {what} the leading prototype explains {own}: {', '.join(beside)}.")
    return "\n".join(f"- {line}" for line in lines)


def _lost(row: pd.Series) -> str:
    loss, low, high = row[["loss", "low", "high"]].astype(float).round(1) + 0.0  # no "-0.0"
    return f"{loss:.1f}% [{low:.1f}, {high:.1f}]".replace("-", "−")


def purity(study: PrototypeStudy, *, seed: int = 0) -> pd.DataFrame:
    """Are the states that one prototype leads treated alike, and worth alike?

    The measure is the share of variance that the grouping explains, 1 − within / total (η²): of actions (mean over
    dimensions) and of the critics' values. Controls with as many groups: k-means on latent states, k-means on
    standardised observations, and a random grouping. Intervals are a jackknife over episodes.

    Returns:
        a row a grouping: ``actions``, ``actions_low``, ``actions_high``, ``values``, ``values_low``, ``values_high``.
    """
    count = study.agent.n_prototypes
    groups = min(count, len(study.leading))
    seen = as_compared(study.info, study.observations, study.observations)
    groupings = {
        "leading prototype": study.leading,
        "k-means on latents": k_means(study.latents, groups, seed).labels_,
        "k-means on observations": k_means(seen, groups, seed).labels_,
        "random": np.random.default_rng(seed).integers(0, groups, len(study.leading)),
    }
    actions = np.concatenate([trace.actions for trace in study.traces])
    measured = {"actions": actions, "values": np.concatenate(study.values)[:, None]}
    rows: dict[str, dict[str, float]] = {name: {} for name in groupings}
    for name, grouping in groupings.items():
        for what, samples in measured.items():
            interval = _explained_interval(samples, grouping, study.episode, count)
            rows[name] |= {what: interval.mean, f"{what}_low": interval.low, f"{what}_high": interval.high}
    return _table("grouping", rows)


def stability(studies: Sequence[PrototypeStudy], *, seed: int = 0) -> pd.DataFrame:
    """Do other training seeds find similar prototypes?

    For every ordered pair of agents: the distance of each prototype's state to the nearest prototype state of the
    other agent, in standard deviations of what the agents visit (root mean square over observation entries). The
    controls put as many visited states of the other agent in the place of its prototypes: random ones, and those
    nearest to the centres of k-means on observations, which know where that agent goes but nothing of what it does.

    Args:
        studies: of agents of one task, trained with different seeds.

    Returns:
        a row each for ``prototypes``, ``states nearest to k-means centres`` and ``random states``: ``mean``, ``low``,
        ``high``, ``pairs``.

    Raises:
        InterpError: fewer than two agents, or one that was never projected.
    """
    from scipy.spatial.distance import cdist

    if len(studies) < 2:
        raise InterpError("stability compares training seeds: give the agents of at least two.")
    states = [study.agent.prototypes.observations for study in studies]
    if any(observations is None for observations in states):
        raise InterpError("an agent was never projected, so its prototypes are no states. Train it longer.")
    together, info = np.concatenate([study.observations for study in studies]), studies[0].info
    own = [as_compared(info, observations, together) for observations in states]
    visited = [as_compared(info, study.observations, together) for study in studies]
    central = []
    for prototypes, points in zip(own, visited, strict=True):
        centres = k_means(points, min(len(prototypes), len(points)), seed).cluster_centers_
        central.append(points[cdist(centres, points).argmin(1)])
    rng = np.random.default_rng(seed)
    names = ("prototypes", "states nearest to k-means centres", "random states")
    found: dict[str, list[np.ndarray]] = {name: [] for name in names}
    pairs = list(itertools.permutations(range(len(studies)), 2))
    for i, j in pairs:
        drawn = visited[j][rng.choice(len(visited[j]), len(own[j]))]
        for distances, targets in zip(found.values(), (own[j], central[j], drawn), strict=True):
            distances.append(cdist(own[i], targets).min(1))
    rows = {name: bootstrap_mean(np.concatenate(distances))._asdict() for name, distances in found.items()}
    return _table("compared with", rows).assign(pairs=len(pairs))


def _table(index: str, rows: dict[Any, dict[str, float]]) -> pd.DataFrame:
    return pd.DataFrame(list(rows.values()), index=pd.Index(list(rows), name=index))


def _explained_interval(samples: np.ndarray, grouping: np.ndarray, episode: np.ndarray, count: int) -> Interval:
    whole, episodes = explained_variance(samples, grouping, count), np.unique(episode)
    if len(episodes) < 2:
        return Interval(whole, float("nan"), float("nan"))
    without = [explained_variance(samples[episode != e], grouping[episode != e], count) for e in episodes]
    return jackknife_interval(whole, np.array(without))
