"""Are ProtoSAC's explanations true? What happens to the return and the actions when they are taken at their word.

The explanation of a decision names a few prototypes. If it is true, those few must be enough (:func:`top_k_returns`),
taking one away must matter where it leads (:func:`ablation_returns`), other states in the place of the prototypes must
serve worse (:func:`placement_returns`), states of one prototype must be treated alike (:func:`purity`), and training
again must find similar ones (:func:`stability`). Each measure stands beside a control that has the same form without
the meaning: random prototypes, k-means clusters, random states.

K prototypes. Intervals are 95% percentile bootstraps over episodes; stability's over prototypes, purity's a jackknife
over episodes.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from ..agents.protosac.projection import distinct, nearest_distinct
from ..common.errors import InterpError
from ..common.statistics import Interval, bootstrap_mean, jackknife_interval

if TYPE_CHECKING:
    from ..agents.protosac import ProtoSAC
    from .study import PrototypeStudy

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


def top_k_returns(study: PrototypeStudy, ks: Sequence[int] = (1, 2, 3)) -> pd.DataFrame:
    """Return when only the k heaviest prototypes of each decision act, beside k random ones and the whole mixture.

    Returns:
        a row a policy: ``prototypes``, ``mean``, ``low``, ``high``, ``episodes``; the same seeds for all of them.

    Raises:
        InterpError: a k that the agent hasn't.
    """
    agent, count, seed = study.agent, study.agent.n_prototypes, study.traces[0].seed
    if not all(1 <= k <= count for k in ks):
        raise InterpError(f"the agent has {count} prototypes; ask for the top 1 to {count}, not {list(ks)}.")
    returns = {"all (the agent)": study.own_returns}
    returns |= {f"top {k}": study.returns(Reweighted(agent, keep_top(k))) for k in ks}
    returns |= {f"{k} at random": study.returns(Reweighted(agent, keep_random(k, seed))) for k in ks}
    returns["random actions"] = study.returns(None)
    return _table("prototypes", {name: _mean(values) for name, values in returns.items()})


def ablation_returns(study: PrototypeStudy, prototypes: Sequence[int] | None = None) -> pd.DataFrame:
    """What the agent loses without each prototype, paired by episode seed.

    Args:
        prototypes: which to ablate, one at a time; None: all.

    Returns:
        a row a prototype: ``loss`` (mean return of the agent minus that without it), ``low``, ``high``, ``episodes``.
    """
    rows = {}
    for k in range(study.agent.n_prototypes) if prototypes is None else prototypes:
        lost = study.own_returns - study.returns(Reweighted(study.agent, without(k)))
        rows[k] = _mean(lost.round(9))  # sums of equal rewards may differ in their last bits
    return _table("prototype", rows).rename(columns={"mean": "loss"})


def placement_returns(study: PrototypeStudy) -> pd.DataFrame:
    """Return when the prototypes stand elsewhere: does it matter which states they are?

    As many other visited states take the prototypes' places, drawn at random or nearest to the centres of k-means on
    latents, and the Gaussians are refitted to the agent's own policy exactly as after a projection. A visited state
    may be drawn close to a prototype; nothing is trained.

    Returns:
        a row a placement: ``mean``, ``low``, ``high``, ``episodes``, and ``divergence``, KL(agent ‖ placed) in nats a
        decision after the refit, on the states of the study.

    Raises:
        InterpError: fewer different states than prototypes.
    """
    agent, count, seed = study.agent, study.agent.n_prototypes, study.traces[0].seed
    states = distinct(study.observations)
    if len(states) < count:
        raise InterpError(f"{len(states)} different states can't replace {count} prototypes. Record more episodes.")
    latents = agent.encode(states)
    centres = k_means(latents, count, seed).cluster_centers_
    placements = {
        # No state twice.
        "states nearest to k-means centres": nearest_distinct(torch.as_tensor(centres), torch.as_tensor(latents)),
        "random states": np.random.default_rng(seed).choice(len(states), count, replace=False),
    }
    rows = {"the agent's own": {**_mean(study.own_returns), "divergence": 0.0}}
    for name, chosen in placements.items():
        with agent.kept():
            divergence = agent.place_prototypes(states[chosen], visited=study.observations)
            rows[name] = {**_mean(study.returns(agent)), "divergence": divergence}
    return _table("prototypes are", rows)


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
    groupings = {
        "leading prototype": study.leading,
        "k-means on latents": k_means(study.latents, groups, seed).labels_,
        "k-means on observations": k_means(Standardised(study.observations)(study.observations), groups, seed).labels_,
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


def explained_variance(samples: np.ndarray, grouping: np.ndarray, count: int) -> float:
    """1 − within-group / total variance of ``samples`` (N, d) by ``grouping`` (N,), mean over dimensions that vary."""
    total = ((samples - samples.mean(0)) ** 2).sum(0)
    sizes = np.bincount(grouping, minlength=count)
    sums = np.stack([np.bincount(grouping, weights=column, minlength=count) for column in samples.T], axis=1)
    means = sums / np.maximum(sizes, 1)[:, None]
    within = ((samples - means[grouping]) ** 2).sum(0)
    varies = total > 0
    return float((1 - within[varies] / total[varies]).mean()) if varies.any() else float("nan")


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
    standard = Standardised(np.concatenate([study.observations for study in studies]))
    own, visited = [standard(s) for s in states], [standard(study.observations) for study in studies]
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
            distances.append(cdist(own[i], targets).min(1) / np.sqrt(targets.shape[1]))
    rows = {name: bootstrap_mean(np.concatenate(distances))._asdict() for name, distances in found.items()}
    return _table("compared with", rows).assign(pairs=len(pairs))


class Standardised:
    """Observations (n, ...) → float64 (n, d), each entry in its standard deviations from its mean over ``visited``."""

    def __init__(self, visited: np.ndarray) -> None:
        flat = visited.reshape(len(visited), -1).astype(np.float64)
        self.centre, spread = flat.mean(0), flat.std(0)
        self.spread = np.where(spread > 0, spread, 1.0)

    def __call__(self, points: np.ndarray) -> np.ndarray:
        return (points.reshape(len(points), -1) - self.centre) / self.spread


def k_means(points: np.ndarray, count: int, seed: int) -> Any:
    """scikit-learn's k-means of ``points`` (n, d) in ``count`` clusters."""
    from sklearn.cluster import KMeans

    return KMeans(count, n_init=3, random_state=seed).fit(points)


def _mean(returns: np.ndarray) -> dict[str, float]:
    return {**bootstrap_mean(returns)._asdict(), "episodes": len(returns)}


def _table(index: str, rows: dict[Any, dict[str, float]]) -> pd.DataFrame:
    return pd.DataFrame(list(rows.values()), index=pd.Index(list(rows), name=index))


def _explained_interval(samples: np.ndarray, grouping: np.ndarray, episode: np.ndarray, count: int) -> Interval:
    whole, episodes = explained_variance(samples, grouping, count), np.unique(episode)
    if len(episodes) < 2:
        return Interval(whole, float("nan"), float("nan"))
    without = [explained_variance(samples[episode != e], grouping[episode != e], count) for e in episodes]
    return jackknife_interval(whole, np.array(without))
