"""Does this state look like that? How near, to the eye, the prototype that leads is to the state it speaks for.

An agent compares states in a space of its own; whoever reads the explanation sees observations. So distances
are taken there (:func:`as_compared`). Two controls choose leaders without looking at the state: *shuffled leaders*,
the agent's own dealt out anew to the decisions, which is what states and prototypes crowding together give alone, and
a prototype *chosen uniformly*. Both are exact expectations, not draws.

N decisions, K prototypes. Intervals are 95% bootstraps over whole episodes; duplicates are counted, so have none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..common.statistics import NOTHING, Interval, columns, group_sums, ratio_interval, sums_interval
from ..envs.tasks import TaskInfo

if TYPE_CHECKING:
    import pandas

    from .study import PrototypeStudy

NEAR = 3  # a leader among so many nearest prototypes counts as alike
LEAST_NEAR, MOST_RATIO, MOST_SHARING = 0.8, 0.5, 3.0  # the bar: "this state looks like that" is kept from here on
DUPLICATE_DISTANCE, DUPLICATE_ACTION = 0.1, 0.1  # standard deviations; share of an action's range
_PAIRS = 20_000  # of random states
_BINS = 2000  # of distances, for medians of many resamples


class Leaders(NamedTuple):
    """How near leaders are that were chosen in one way.

    Attributes:
        nearest, near: share of decisions in which the leader is the nearest prototype, and one of the three nearest.
        distance: median distance from a state to its leader, in standard deviations; see :func:`as_compared`.
        ratio: the same over the median distance between two random states, of different episodes where there are.
    """

    nearest: Interval
    near: Interval
    distance: Interval
    ratio: Interval


@dataclass(frozen=True)
class Likeness:
    """How alike states and their prototypes are; NaN and no duplicates where prototypes were never projected.

    Attributes:
        agent, shuffled, uniform: the agent's leaders, and those of the two controls.
        sharing: how many prototypes share a decision; see :func:`~interp_lib.prototypes.usage.sharing_interval`.
        duplicates: pairs of prototypes that look the same (nearer than 0.1 standard deviations) and act differently
            (by more than 10% of the range in some dimension).
        decisions, episodes: how many were measured.
    """

    agent: Leaders
    shuffled: Leaders
    uniform: Leaders
    sharing: Interval
    duplicates: list[tuple[int, int]]
    decisions: int
    episodes: int

    def duplicates_of(self, k: int) -> list[int]:
        """The prototypes that look like prototype ``k`` and act differently, the most alike first."""
        return [i + j - k for i, j in self.duplicates if k in (i, j)]


def as_compared(info: TaskInfo, observations: np.ndarray, visited: np.ndarray) -> np.ndarray:
    """Observations (n, *observation) as points (n, d) float64 whose Euclidean distance says how unlike they look.

    The unit is one standard deviation of the states ``visited`` (m, *observation), root mean square over d entries.
    Each entry has its own, but one that hardly varies (less than 1% of the typical entry) gets the typical one, so that
    noise is not blown up. Images are blurred (σ = 2 pixels), every fourth pixel is kept, and all share one deviation.
    """
    points, reference = (_seen(info, o) for o in (observations, visited))
    spread = reference.std(0)
    if info.image:
        spread = np.full_like(spread, np.sqrt(np.square(spread).mean()))
    typical = float(np.median(spread[spread > 0])) if spread.any() else 1.0
    spread = np.where(spread > 0.01 * typical, spread, typical)
    return (points - reference.mean(0)) / spread / np.sqrt(len(spread))


def _seen(info: TaskInfo, observations: np.ndarray) -> np.ndarray:
    if info.image:
        from scipy.ndimage import gaussian_filter

        blurred = (gaussian_filter(o.astype(np.float32), (0, 2, 2))[:, 2::4, 2::4] for o in observations)
        observations = np.stack(list(blurred))
    return observations.reshape(len(observations), -1).astype(np.float64)


def likeness(study: PrototypeStudy) -> Likeness:
    """Measure the evaluation episodes of a study."""
    shape, episodes = study.weights.shape, len(study.traces)
    if study.agent.prototypes.observations is None:
        nothing = Leaders(*[NOTHING] * 4)
        return Likeness(nothing, nothing, nothing, study.sharing, [], shape[0], episodes)
    distances, between = _distances(study)
    agent, shuffled, uniform = (
        measure_leaders(distances, choice, study.episode, *between)
        for choice in (
            np.eye(shape[1])[study.leading],
            np.broadcast_to(study.usage.led, shape),
            np.full(shape, 1 / shape[1]),
        )
    )
    return Likeness(agent, shuffled, uniform, study.sharing, duplicates(study), shape[0], episodes)


def _distances(study: PrototypeStudy) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """From every state to every prototype (N, K); those of random pairs of states (P,), and the first ones' episode."""
    from scipy.spatial.distance import cdist

    states = as_compared(study.info, study.observations, study.observations)
    prototypes = as_compared(study.info, study.agent.prototypes.observations, study.observations)
    one, other = np.random.default_rng(0).integers(len(states), size=(2, _PAIRS))
    if len(study.traces) > 1:
        apart = study.episode[one] != study.episode[other]
        one, other = one[apart], other[apart]
    # A few at a time: Humanoid's pairs are 350 numbers each.
    pairs = zip(np.array_split(one, 20), np.array_split(other, 20), strict=True)
    between = np.concatenate([np.linalg.norm(states[i] - states[j], axis=1) for i, j in pairs])
    return cdist(states, prototypes), (between, study.episode[one])


def measure_leaders(
    distances: np.ndarray, choice: np.ndarray, episode: np.ndarray, between: np.ndarray, between_episode: np.ndarray
) -> Leaders:
    """Measure leaders that are chosen with probabilities.

    Args:
        distances: (N, K), from each state to each prototype.
        choice: (N, K), how probably each prototype leads there; rows sum to 1.
        episode: (N,), from 0 on.
        between, between_episode: (P,), distances of pairs of states, and the episode of the first.
    """
    count = int(episode.max()) + 1
    decisions = np.bincount(episode, minlength=count)
    rank = distances.argsort(1, kind="stable").argsort(1, kind="stable")
    nearest, near = (
        ratio_interval(group_sums((choice * (rank < most)).sum(1), episode, count), decisions) for most in (1, NEAR)
    )
    of = np.broadcast_to(episode[:, None], choice.shape)[choice > 0]
    to_leader, grid = _histograms(distances[choice > 0], choice[choice > 0], of, count)
    to_others, other_grid = _histograms(between, np.ones(len(between)), between_episode, count)

    def ratio(sums: np.ndarray) -> np.ndarray:
        above, below = _medians(sums[:, : len(grid)], grid), _medians(sums[:, len(grid) :], other_grid)
        return np.divide(above, below, out=np.full(len(sums), np.nan), where=below > 0)

    medians = [
        sums_interval(to_leader, lambda sums: _medians(sums, grid)),
        sums_interval(np.hstack([to_leader, to_others]), ratio),
    ]
    if count < 2:  # nothing to resample
        medians = [Interval(median.mean, np.nan, np.nan) for median in medians]
    return Leaders(nearest, near, *medians)


def _histograms(
    values: np.ndarray, weights: np.ndarray, group: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Weight of ``values`` in bins by group (count, B), and the bins' upper ends (B,): exact up to 2,000 values."""
    grid = np.unique(values)
    if len(grid) > _BINS:
        grid = np.unique(np.quantile(values, np.linspace(0, 1, _BINS), method="higher"))
    place = group * len(grid) + np.searchsorted(grid, values)
    return np.bincount(place, weights, count * len(grid)).reshape(count, -1), grid


def _medians(sums: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """The lower median of each row's histogram."""
    cumulative = sums.cumsum(1)
    return grid[(cumulative < cumulative[:, -1:] / 2 * (1 - 1e-9)).sum(1)]


def duplicates(study: PrototypeStudy) -> list[tuple[int, int]]:
    """Pairs (i, j), i < j, of prototypes that look the same and act differently, the most alike first."""
    from scipy.spatial.distance import cdist

    prototypes, (low, high) = study.agent.prototypes, study.bounds
    if prototypes.observations is None:
        return []
    points = as_compared(study.info, prototypes.observations, study.observations)
    apart = cdist(points, points)
    differ = (np.abs(prototypes.actions[:, None] - prototypes.actions) > DUPLICATE_ACTION * (high - low)).any(-1)
    first, second = np.nonzero(np.triu(differ & (apart < DUPLICATE_DISTANCE), 1))
    order = apart[first, second].argsort(kind="stable")
    return list(zip(first[order].tolist(), second[order].tolist(), strict=True))


def likeness_table(study: PrototypeStudy) -> pandas.DataFrame:
    """One row each for the agent and the two controls.

    Columns: those of :class:`Leaders` and ``sharing``, each with ``_low`` and ``_high``; ``duplicates``, ``decisions``,
    ``episodes``. What is not about leaders is the agent's alone.
    """
    import pandas as pd

    found, rows = study.likeness, {}
    for name, leaders in (
        ("agent", found.agent), ("shuffled leaders", found.shuffled), ("chosen uniformly", found.uniform)
    ):  # fmt: skip
        own = name == "agent"
        measures = {**leaders._asdict(), "sharing": found.sharing if own else NOTHING}
        rows[name] = {key: value for what, m in measures.items() for key, value in columns(what, m, "_").items()}
        rows[name] |= {"duplicates": len(found.duplicates) if own else np.nan}
        rows[name] |= {"decisions": found.decisions, "episodes": found.episodes}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("leaders").astype({"duplicates": "Int64"})


def summary(found: Likeness) -> str:
    """How near to the eye the leader is, half a sentence; empty where nothing is known."""
    if np.isnan(found.agent.near.mean):
        return ""
    nearest, near, distance, ratio = found.agent
    return (
        f"the prototype that leads is the nearest one in {nearest.mean:.0%}{_ends(nearest, '.0%')} of decisions, among "
        f"the {NEAR} nearest in {near.mean:.0%}{_ends(near, '.0%')}, and {distance.mean:.2g} standard deviations away, "
        f"{ratio.mean:.2f}{_ends(ratio, '.2f')} times as far as a random state."
    )


def verdict(found: Likeness) -> str:
    """Whether "this state looks like that" is kept: each clause against its bar, decided by its interval."""
    if np.isnan(found.agent.near.mean):
        return "The prototypes were never projected: they are no states that another one could look like."
    near, ratio, sharing = found.agent.near, found.agent.ratio, found.sharing
    kept = (
        bar_kept(near, LEAST_NEAR, least=True), bar_kept(ratio, MOST_RATIO, least=False),
        bar_kept(sharing, MOST_SHARING, least=False),
    )  # fmt: skip
    whole = next((word for word in ("not kept", "not shown") if word in kept), "kept")
    return (
        f"“This state looks like that” is {whole}: the leader is among the {NEAR} nearest prototypes in "
        f"{near.mean:.0%}{_ends(near, '.0%')} of decisions (bar: at least {LEAST_NEAR:.0%}; {kept[0]}), "
        f"{ratio.mean:.2f}{_ends(ratio, '.2f')} times as far as a random state ({found.agent.distance.mean:.2g} "
        f"standard deviations; at most {MOST_RATIO:g} times; {kept[1]}), "
        f"and {sharing.mean:.1f}{_ends(sharing, '.1f')} prototypes share a decision (at most {MOST_SHARING:g}; "
        f"{kept[2]}). With its leaders shuffled it would be {found.shuffled.near.mean:.0%} and "
        f"{found.shuffled.ratio.mean:.2f} times, so the agent's choice is {_beside(near, found.shuffled.near)} "
        "crowding alone."
    )


def bar_kept(measured: Interval, bar: float, *, least: bool) -> str:
    """Whether an interval is on the good side of a bar: ``kept``, ``not kept`` or ``not shown``."""
    good, bad = (measured.low, measured.high) if least else (-measured.high, -measured.low)
    bar = bar if least else -bar
    return "kept" if good >= bar else "not kept" if bad < bar else "not shown"  # NaN: not shown


def _beside(own: Interval, control: Interval) -> str:
    """How the agent does beside its shuffled leaders, by intervals that do not overlap."""
    if own.low > control.high:
        return "better than"
    return "worse than" if own.high < control.low else "not shown to differ from"


def _ends(interval: Interval, how: str) -> str:
    return "" if np.isnan(interval.low) else f" [{interval.low:{how}}, {interval.high:{how}}]"
