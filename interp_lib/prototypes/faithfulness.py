"""Are ProtoSAC's explanations true? What happens to the return and the actions when they are taken at their word.

The explanation of a decision names a few prototypes. If it is true, those few must be enough (:func:`top_k_returns`),
taking one away must matter where it leads (:func:`ablation_returns`), other states in the place of the prototypes must
serve worse (:func:`placement_returns`), states of one prototype must be treated alike (:func:`purity`), and training
again must find similar ones (:func:`stability`). Each measure stands beside a control that has the same form without
the meaning: random prototypes, k-means clusters, random states.

Shapes as in explain.traces. Intervals are 95% percentile bootstraps over episodes (stability: over prototypes; purity:
a jackknife over episodes).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from ..agents.protosac.projection import distinct, nearest_distinct
from ..agents.returns import evaluate_continuous
from ..common.errors import InterpError
from ..common.statistics import Interval, bootstrap_mean, jackknife_interval
from . import EpisodeTrace, state_values

if TYPE_CHECKING:
    from ..agents.protosac import ProtoSAC

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
        order = rng.random(weights.shape).argsort(axis=1)[:, :k]
        kept = np.zeros_like(weights)
        np.put_along_axis(kept, order, np.take_along_axis(weights, order, axis=1), axis=1)
        return kept + 1e-12 * (kept.sum(1, keepdims=True) == 0)

    return change


def without(prototype: int) -> WeightChange:
    """Take one prototype away; the others share its weight in proportion."""

    def change(weights: np.ndarray) -> np.ndarray:
        changed = weights.copy()
        changed[:, prototype] = 0.0
        return changed + 1e-12 * (changed.sum(1, keepdims=True) == 0)

    return change


def top_k_returns(
    agent: ProtoSAC, task: str, episodes: int, *, ks: Sequence[int] = (1, 2, 3), seed: int = 0
) -> pd.DataFrame:
    """Return when only the k heaviest prototypes of each decision act, beside k random ones and the whole mixture.

    Returns:
        a row a policy: ``prototypes``, ``mean``, ``low``, ``high``, ``episodes``; the same seeds for all of them.

    Raises:
        InterpError: a k that the agent hasn't, or no episodes.
    """
    count = agent.n_prototypes
    if not all(1 <= k <= count for k in ks):
        raise InterpError(f"the agent has {count} prototypes; ask for the top 1 to {count}, not {list(ks)}.")
    policies: dict[str, Any] = {"all (the agent)": agent}
    policies |= {f"top {k}": Reweighted(agent, keep_top(k)) for k in ks}
    policies |= {f"{k} at random": Reweighted(agent, keep_random(k, seed)) for k in ks}
    policies["random actions"] = None
    rows = []
    for name, policy in policies.items():
        rows.append({"prototypes": name, **_returns_row(policy, task, episodes, seed)})
    return pd.DataFrame(rows).set_index("prototypes")


def ablation_returns(
    agent: ProtoSAC, task: str, episodes: int, *, prototypes: Sequence[int] | None = None, seed: int = 0
) -> pd.DataFrame:
    """What the agent loses without each prototype, paired by episode seed.

    Args:
        prototypes: which to ablate, one at a time; None: all.

    Returns:
        a row a prototype: ``loss`` (mean return of the agent minus that without it), ``low``, ``high``, ``episodes``.
    """
    whole = evaluate_continuous(agent, task, episodes, seed=seed).returns
    rows = []
    for k in range(agent.n_prototypes) if prototypes is None else prototypes:
        ablated = evaluate_continuous(Reweighted(agent, without(k)), task, episodes, seed=seed).returns
        loss = bootstrap_mean((whole - ablated).round(9))  # sums of equal rewards may differ in their last bits
        rows.append({"prototype": k, "loss": loss.mean, "low": loss.low, "high": loss.high, "episodes": episodes})
    return pd.DataFrame(rows).set_index("prototype")


def placement_returns(agent: ProtoSAC, traces: Sequence[EpisodeTrace], episodes: int, *, seed: int = 0) -> pd.DataFrame:
    """Return when the prototypes stand elsewhere: does it matter which states they are?

    As many other visited states take the prototypes' places, drawn at random or nearest to the centres of k-means on
    latents, and the Gaussians are refitted to the agent's own policy exactly as after a projection. A visited state
    may be drawn close to a prototype; nothing is trained.

    Args:
        traces: evaluation episodes, where the states come from.
        episodes: for each return, seeds ``seed``, ``seed + 1``, …

    Returns:
        a row a placement: ``mean``, ``low``, ``high``, ``episodes``, and ``divergence``, KL(agent ‖ placed) in nats a
        decision after the refit, on the states of ``traces``.

    Raises:
        InterpError: no episodes, or fewer different states than prototypes.
    """
    task, count, rng = traces[0].task, agent.n_prototypes, np.random.default_rng(seed)
    visited = np.concatenate([trace.observations for trace in traces])
    states = distinct(visited)
    if len(states) < count:
        raise InterpError(f"{len(states)} different states can't replace {count} prototypes. Record more episodes.")
    placements = {
        "states nearest to k-means centres": _central_states(agent, states, count, seed),
        "random states": states[rng.choice(len(states), count, replace=False)],
    }
    rows = [{"prototypes are": "the agent's own", **_returns_row(agent, task, episodes, seed), "divergence": 0.0}]
    for name, chosen in placements.items():
        with agent.kept():
            divergence = agent.place_prototypes(chosen, visited=visited)
            rows.append({"prototypes are": name, **_returns_row(agent, task, episodes, seed), "divergence": divergence})
    return pd.DataFrame(rows).set_index("prototypes are")


def purity(agent: ProtoSAC, traces: Sequence[EpisodeTrace], *, seed: int = 0) -> pd.DataFrame:
    """Are the states that one prototype leads treated alike, and worth alike?

    The measure is the share of variance that the grouping explains, 1 − within / total (η²): of actions (mean over
    dimensions) and of the critics' values. Controls with as many groups: k-means on latent states, k-means on
    standardised observations, and a random grouping. Intervals are a jackknife over episodes.

    Returns:
        a row a grouping: ``actions``, ``actions_low``, ``actions_high``, ``values``, ``values_low``, ``values_high``.
    """
    from sklearn.cluster import KMeans

    count = agent.n_prototypes
    observations = np.concatenate([t.observations.reshape(len(t), -1) for t in traces]).astype(np.float64)
    spread = observations.std(0)
    observations = (observations - observations.mean(0)) / np.where(spread > 0, spread, 1.0)
    latents = np.concatenate([agent.encode(trace.observations) for trace in traces])
    groups = min(count, len(latents))

    def k_means(points: np.ndarray) -> np.ndarray:
        return KMeans(groups, n_init=3, random_state=seed).fit_predict(points)

    groupings = {
        "leading prototype": np.concatenate([trace.leading for trace in traces]),
        "k-means on latents": k_means(latents),
        "k-means on observations": k_means(observations),
        "random": np.random.default_rng(seed).integers(0, groups, len(latents)),
    }
    actions = np.concatenate([trace.actions for trace in traces])
    values = np.concatenate([state_values(agent, trace) for trace in traces])[:, None]
    episode = np.repeat(np.arange(len(traces)), [len(trace) for trace in traces])
    rows = []
    for name, grouping in groupings.items():
        row: dict[str, Any] = {"grouping": name}
        for what, samples in (("actions", actions), ("values", values)):
            interval = _explained_interval(samples, grouping, episode, count)
            row |= {what: interval.mean, f"{what}_low": interval.low, f"{what}_high": interval.high}
        rows.append(row)
    return pd.DataFrame(rows).set_index("grouping")


def explained_variance(samples: np.ndarray, grouping: np.ndarray, count: int) -> float:
    """1 − within-group / total variance of ``samples`` (N, d) by ``grouping`` (N,), mean over dimensions that vary."""
    total = ((samples - samples.mean(0)) ** 2).sum(0)
    sizes = np.bincount(grouping, minlength=count)
    sums = np.stack([np.bincount(grouping, weights=column, minlength=count) for column in samples.T], axis=1)
    means = sums / np.maximum(sizes, 1)[:, None]
    within = ((samples - means[grouping]) ** 2).sum(0)
    varies = total > 0
    return float((1 - within[varies] / total[varies]).mean()) if varies.any() else float("nan")


def stability(agents: Sequence[ProtoSAC], traces: Sequence[Sequence[EpisodeTrace]], *, seed: int = 0) -> pd.DataFrame:
    """Do other training seeds find similar prototypes?

    For every ordered pair of agents: the distance of each prototype's state to the nearest prototype state of the
    other agent, in standard deviations of what the agents visit. The controls put as many visited states of the other
    agent in the place of its prototypes: random ones, and those nearest to the centres of k-means on observations,
    which know where that agent goes but nothing of what it does.

    Args:
        agents: of one task, trained with different seeds.
        traces: evaluation episodes of each.

    Returns:
        a row each for ``prototypes``, ``states nearest to k-means centres`` and ``random states``: ``mean``, ``low``,
        ``high``, ``pairs``.

    Raises:
        InterpError: fewer than two agents, or one that was never projected.
    """
    if len(agents) < 2:
        raise InterpError("stability compares training seeds: give the agents of at least two.")
    states = [agent.prototypes.observations for agent in agents]
    if any(observations is None for observations in states):
        raise InterpError("an agent was never projected, so its prototypes are no states. Train it longer.")
    visited = [np.concatenate([t.observations for t in episodes]) for episodes in traces]
    flat = np.concatenate(visited).reshape(sum(map(len, visited)), -1).astype(np.float64)
    centre, spread = flat.mean(0), flat.std(0)
    spread = np.where(spread > 0, spread, 1.0)

    def standard(points: np.ndarray) -> np.ndarray:
        return (points.reshape(len(points), -1) - centre) / spread

    rng = np.random.default_rng(seed)
    central = [_most_central(standard(v), len(own), seed) for v, own in zip(visited, states, strict=True)]
    names = ("prototypes", "states nearest to k-means centres", "random states")
    found: dict[str, list[np.ndarray]] = {name: [] for name in names}
    for i, own in enumerate(states):
        for j, others in enumerate(states):
            if i == j:
                continue
            drawn = visited[j][rng.choice(len(visited[j]), len(others))]
            for name, targets in zip(names, (standard(others), central[j], standard(drawn)), strict=True):
                found[name].append(_nearest(standard(own), targets))
    pairs = len(agents) * (len(agents) - 1)
    rows = [
        {"compared with": name, **bootstrap_mean(np.concatenate(values))._asdict(), "pairs": pairs}
        for name, values in found.items()
    ]
    return pd.DataFrame(rows).set_index("compared with")


def _returns_row(policy: Any, task: str, episodes: int, seed: int) -> dict[str, float]:
    interval = bootstrap_mean(evaluate_continuous(policy, task, episodes, seed=seed).returns)
    return {**interval._asdict(), "episodes": episodes}


def _central_states(agent: ProtoSAC, states: np.ndarray, count: int, seed: int) -> np.ndarray:
    """For each k-means centre of the latents the state nearest to it, no state twice: (count, *observation)."""
    from sklearn.cluster import KMeans

    latents = agent.encode(states)
    centres = KMeans(count, n_init=3, random_state=seed).fit(latents).cluster_centers_
    return states[nearest_distinct(torch.as_tensor(centres), torch.as_tensor(latents))]


def _most_central(points: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Of ``points`` (n, d) the nearest to each centre of k-means: (count, d), fewer where there are fewer points."""
    from scipy.spatial.distance import cdist
    from sklearn.cluster import KMeans

    centres = KMeans(min(count, len(points)), n_init=3, random_state=seed).fit(points).cluster_centers_
    return points[cdist(centres, points).argmin(1)]


def _nearest(points: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Distance (n,) of each of ``points`` (n, d) to the nearest of ``targets`` (m, d), divided by √d."""
    from scipy.spatial.distance import cdist

    return cdist(points, targets).min(1) / np.sqrt(points.shape[1])


def _explained_interval(samples: np.ndarray, grouping: np.ndarray, episode: np.ndarray, count: int) -> Interval:
    whole, episodes = explained_variance(samples, grouping, count), np.unique(episode)
    if len(episodes) < 2:
        return Interval(whole, float("nan"), float("nan"))
    without = [explained_variance(samples[episode != e], grouping[episode != e], count) for e in episodes]
    return jackknife_interval(whole, np.array(without))
