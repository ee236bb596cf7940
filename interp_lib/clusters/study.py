"""``ClusterStudy``: what figures, tables, browser and page need to know about the clusters of an SPPO agent.

P(next | cluster) over stretches and a dwell time for each describe what follows what. They make no options of the
clusters (Sutton, Precup & Singh 1999), each with a policy of its own: whether the policy reads the code is tested in
:mod:`.intervention`. The episode's end is an absorbing state. Nothing here tests that the next cluster depends on the
present one alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

import numpy as np
import pandas as pd
from scipy.special import softmax

from ..agents.sppo.agents import PPO
from ..common.errors import InterpError
from ..common.graphs import CUT, END, transitions_between
from ..common.statistics import Interval, columns, group_sums, ratio_interval
from ..common.style import show_deviation
from ..envs.actions import ACTION_EFFECTS, by_effect
from .islands import islands
from .sentences import Sentence, write_sentences
from .states import StateSet, clusters_of, episode_rows, return_to_go, sample_rows, stretches, weights_digest

QUANTILES = (0.25, 0.5, 0.75, 0.95)  # of the distance from the medoid: the frames that stand for a cluster


@dataclass(frozen=True)
class Group:
    """What a set of states has in common; means and shares are NaN where it is empty."""

    count: int
    share: float  # of the kept states
    levels: int  # distinct levels
    value: float  # mean estimate, in ClusterStudy.unit
    whole: int  # states of episodes that ended in the recording; the next two are means over them
    whole_value: float
    return_to_go: float  # discounted, in ClusterStudy.unit
    actions: np.ndarray  # float64 (m,), the policy's mean probability of each effect (envs.actions)
    dwell: float | None = None  # mean steps an environment stays; None where the set is no cluster


@dataclass(frozen=True)
class ClusterStudy:
    """An agent, states of it, and what they have in common. Everything is computed once, when it is first asked for.

    Rows are indices into the :class:`StateSet`. A cluster's states are the kept ones; dwell times and transitions need
    all of them. Intervals are 95% and resample environments (:mod:`interp_lib.common.statistics`).

    Attributes:
        agent: an SPPO agent.
        states: collected with it.
    """

    agent: PPO
    states: StateSet

    def checked(self) -> Self:
        """This study, once it is sure that ``states`` were collected with ``agent``.

        Raises:
            InterpError: they belong to another run, or to an earlier or later state of this one; or the agent has no
                clusters.
        """
        clusters_of(self.agent, "browse")
        meta = self.states.meta
        if meta["game"] != self.agent.config.env or meta.get("weights") != weights_digest(self.agent):
            raise InterpError(
                f"{self.states.path} holds states of {meta['run']} at {meta['timesteps']:,} steps, collected with "
                "other weights than this run's. Collect again: interp embed RUN"
            )
        return self

    # -- which states -----------------------------------------------------------------------------------------------

    @cached_property
    def _members(self) -> list[np.ndarray]:
        return [np.flatnonzero(self.states.kept & (self.states.code == k)) for k in range(self.states.num_codes)]

    def rows(self, k: int) -> np.ndarray:
        """The kept states of cluster ``k`` → int64 (m,)."""
        return self._members[k]

    @cached_property
    def used(self) -> list[int]:
        """The clusters that have states."""
        return [k for k, rows in enumerate(self._members) if len(rows)]

    @cached_property
    def count(self) -> int:
        """How many states were kept."""
        return int(self.states.kept.sum())

    @cached_property
    def stretches(self) -> pd.DataFrame:
        """:func:`.states.stretches`."""
        return stretches(self.states)

    # -- which of them stand for the others -------------------------------------------------------------------------

    def _from_medoid(self, rows: np.ndarray, most: int = 500) -> np.ndarray:
        """``rows``, not empty, by their distance in feature space h (Euclidean) from their medoid, which comes first.

        The medoid has the smallest sum of distances to the others; of more than ``most``, that many drawn at random.
        """
        from scipy.spatial.distance import cdist

        drawn = rows
        if len(rows) > most:
            drawn = np.sort(np.random.default_rng(0).choice(rows, most, replace=False))
        features = self.states.feature[drawn]
        medoid = self.states.feature[drawn[cdist(features, features).sum(1).argmin()]]
        return rows[np.argsort(np.square(self.states.feature[rows] - medoid).sum(1), kind="stable")]

    @cached_property
    def _orders(self) -> dict[int, np.ndarray]:
        return {k: self._from_medoid(self.rows(k)) for k in self.used}

    def medoids(self) -> dict[int, int]:
        """The state that stands for each cluster, as a prototype would: row by cluster that has states.

        The medoid in the space of features h (256 numbers, Euclidean): the smallest sum of distances to the other
        states of its cluster, over up to 500 of them drawn at random.
        """
        return {k: int(order[0]) for k, order in self._orders.items()}

    def typical_rows(self, k: int, quantiles: Sequence[float] = QUANTILES) -> np.ndarray:
        """The medoid of cluster ``k`` and the states at ``quantiles`` of the distance from it in h → int64 (m,).

        Each is from another level where there is one, so a little off its quantile.
        """
        order = self._orders[k]
        chosen = [0]
        for quantile in quantiles:
            near = np.argsort(np.abs(np.arange(len(order)) - quantile * (len(order) - 1)), kind="stable")
            near = near[~np.isin(near, chosen)]
            new = near[~np.isin(self.states.level[order[near]], self.states.level[order[chosen]])]
            chosen.extend([*new, *near][:1])
        return order[chosen]

    def central_rows(self, rows: np.ndarray) -> np.ndarray:
        """``rows`` from their medoid in feature space on, one a level → int64 (number of levels,)."""
        if not len(rows):
            return rows
        order = self._from_medoid(rows)
        _, first = np.unique(self.states.level[order], return_index=True)
        return order[np.sort(first)]

    @cached_property
    def islands(self) -> dict[int, int]:
        """Into how many islands of FDR space (:func:`.islands.islands`) each cluster that has states falls."""
        return {k: islands(self.states.fdr[self.rows(k)]) for k in self.used}

    # -- what they are worth ----------------------------------------------------------------------------------------

    @property
    def unit(self) -> str:
        """Of values: game reward, or scaled reward as the agent learns it where the run doesn't tell the scale."""
        return "scaled reward" if self.agent.reward_scale is None else "game reward"

    @cached_property
    def values(self) -> np.ndarray:
        """The agent's value of each state, in :attr:`unit` → float64 (N,)."""
        return self.states.value.astype(np.float64) * (self.agent.reward_scale or 1)

    @cached_property
    def return_to_go(self) -> np.ndarray:
        """:func:`.states.return_to_go` → float64 (N,); NaN everywhere if values are in another unit."""
        known = np.nan if self.agent.reward_scale is None else 1.0
        return known * return_to_go(self.states)

    @cached_property
    def _whole(self) -> np.ndarray:
        return ~np.isnan(self.return_to_go)

    # -- what the policy does ---------------------------------------------------------------------------------------

    @cached_property
    def policy(self) -> np.ndarray:
        """The policy at every state, from stored features and codes → float32 (N, 15)."""
        return softmax(self.agent.heads(self.states.feature, self.states.code)[0], axis=1)

    @cached_property
    def effects(self) -> np.ndarray:
        """The same by what the actions do in the game (envs.actions) → float32 (N, number of effects)."""
        return by_effect(self.policy, self.states.meta["game"])

    @cached_property
    def actions(self) -> pd.DataFrame:
        """What the policy does in each cluster: its mean probability of each effect, a row a cluster.

        Probabilities, and not what was done: some actions in the states were random. Rows sum to 1; NaN for an empty
        cluster.
        """
        kept = self.states.kept
        effects = pd.DataFrame(self.effects[kept], columns=[*ACTION_EFFECTS[self.states.meta["game"]]], dtype=float)
        means = effects.groupby(self.states.code[kept]).mean()
        return means.reindex(range(self.states.num_codes)).rename_axis("cluster")

    # -- what states have in common ---------------------------------------------------------------------------------

    @cached_property
    def table(self) -> pd.DataFrame:
        """One row a cluster: states, share, islands, dwell time, what they are worth, likely actions.

        Value over all its states; value and return to go over those whose episode ended in the recording, which can be
        compared. A cluster without states has NaN and an empty text.
        """
        n, rows = self.states.meta["num_envs"], []
        for k, member in enumerate(self._members):
            group, stays = self.region(member), self.stretches[self.stretches["cluster"] == k]
            steps, visits = (group_sums(x, stays["env"], n) for x in (stays["length"], np.ones(len(stays))))
            likely = self.actions.loc[k].sort_values(ascending=False, kind="stable")[:3] if group.count else {}
            row = {
                "cluster": k,
                "states": group.count,
                "share": group.share,
                "islands": self.islands.get(k, 0),
                **columns("mean dwell (steps)", ratio_interval(steps, visits)),
                **columns("value", self._mean(self.values, member)),
                "states, whole episodes": group.whole,
                **columns("value, whole episodes", self._mean(self.values, member[self._whole[member]])),
                **columns("return to go", self._mean(self.return_to_go, member[self._whole[member]])),
                "likely actions": ", ".join(f"{effect} {share:.0%}" for effect, share in likely.items()),
            }
            rows.append(row)
        return pd.DataFrame(rows).set_index("cluster")

    def _mean(self, values: np.ndarray, rows: np.ndarray) -> Interval:
        env, n = self.states.env[rows], self.states.meta["num_envs"]
        return ratio_interval(group_sums(values[rows], env, n), group_sums(np.ones(len(rows)), env, n))

    @cached_property
    def sentences(self) -> dict[int, Sentence]:
        """What the game's concepts say of each cluster (:mod:`.sentences`); {} where none were recorded."""
        return write_sentences(self.states)

    def described(self, descriptions: Mapping[int, str] | None) -> pd.DataFrame:
        """:attr:`table` with columns of what somebody wrote about each cluster, and of :attr:`sentences`."""
        said = {"description": descriptions or {}, **({"concepts": self.sentences} if self.sentences else {})}
        return self.table.assign(**{name: [str(of.get(k, "")) for k in self.table.index] for name, of in said.items()})

    def region(self, rows: np.ndarray) -> Group:
        """What any set of rows has in common."""
        rows = np.asarray(rows, dtype=np.int64)
        actions, whole = self.effects[rows].astype(np.float64), rows[self._whole[rows]]
        return Group(
            count=len(rows),
            share=len(rows) / max(self.count, 1),
            levels=len(np.unique(self.states.level[rows])),
            value=_mean(self.values[rows]),
            whole=len(whole),
            whole_value=_mean(self.values[whole]),
            return_to_go=_mean(self.return_to_go[whole]),
            actions=actions.mean(0) if len(rows) else np.full(actions.shape[1], np.nan),
        )

    def cluster(self, k: int) -> Group:
        """The same of cluster ``k``, with its mean dwell time."""
        return replace(self.region(self.rows(k)), dwell=float(self.table["mean dwell (steps)"][k]))

    # -- what they look like ----------------------------------------------------------------------------------------

    def mean_image(
        self, rows: np.ndarray, *, most: int = 500, seed: int | np.random.Generator = 0
    ) -> np.ndarray | None:
        """Mean observation of up to ``most`` of ``rows``, drawn at random, minus that of all states.

        Returns:
            the difference on grey, enlarged (:func:`~interp_lib.common.style.show_deviation`), uint8 (64, 64, 3); None
            for no rows.
        """
        if not len(rows):
            return None
        rows = np.random.default_rng(seed).choice(rows, min(most, len(rows)), replace=False)
        return show_deviation(self.states.frames(rows).mean(0) - self._background)

    @cached_property
    def _background(self) -> np.ndarray:
        return self.states.frames(sample_rows(self.states, 1000)).mean(0)

    def mean_images(self, *, most: int = 500) -> dict[int, np.ndarray]:
        """:meth:`mean_image` of each cluster that has states."""
        rng = np.random.default_rng(0)
        return {k: self.mean_image(self.rows(k), most=most, seed=rng) for k in self.used}  # type: ignore[misc]

    def cluster_clips(
        self, k: int, *, count: int = 3, shortest: int = 5, longest: int = 20, seed: int = 0
    ) -> list[np.ndarray]:
        """Stretches that an environment spends in cluster ``k``, each from another level where there are enough.

        Drawn at random from the stretches of at least ``shortest`` steps (where there are none: the longest ones), and
        cut at ``longest``, as in the paper's videos.

        Returns:
            up to ``count`` arrays of consecutive rows, int64 (T,).
        """
        n = self.states.meta["num_envs"]
        found = self.stretches[self.stretches["cluster"] == k].sample(frac=1, random_state=seed)
        found["row"] = found["start"] * n + found["env"]
        found["level"] = self.states.level[found["row"]]
        found["long"] = found["length"].clip(upper=shortest)
        found["again"] = found.duplicated("level")
        chosen = found.sort_values(["long", "again"], ascending=[False, True], kind="stable").head(count)
        lengths = chosen["length"].clip(upper=longest)
        return [row + n * np.arange(length) for row, length in zip(chosen["row"], lengths, strict=True)]

    def region_clips(self, rows: np.ndarray, *, count: int = 3, around: int = 8) -> list[np.ndarray]:
        """What happens around the states nearest to the medoid of a region in h, each from another level.

        Returns:
            up to ``count`` arrays of consecutive rows, int64 (T ≤ 2 · ``around`` + 1,), none beyond its episode.
        """
        clips = []
        for row in self.central_rows(np.asarray(rows, dtype=np.int64))[:count]:
            episode = episode_rows(self.states, row)
            at = int(np.flatnonzero(episode == row)[0])
            clips.append(episode[max(at - around, 0) : at + around + 1])
        return clips

    # -- where it goes from there -----------------------------------------------------------------------------------

    @cached_property
    def _complete(self) -> pd.DataFrame:
        """Stretches that the recording's end did not cut off: what followed the others is unknown."""
        return self.stretches[self.stretches["next"] != CUT]

    @cached_property
    def transitions(self) -> pd.DataFrame:
        """P(next cluster | cluster) over complete stretches, for every transition that was seen, with intervals.

        Index cluster, next (:data:`~interp_lib.common.graphs.END`: the episode ended); count, probability.
        """
        return transitions_between(self._complete, self.states.meta["num_envs"])

    @cached_property
    def dwell(self) -> pd.DataFrame:
        """How long the agent stays: a row a cluster with visits, mean and median dwell time in steps, P(episode ends).

        Complete stretches only. Long ones are cut off by the recording's end more often, so means are slightly too
        small.
        """
        n, rows = self.states.meta["num_envs"], {}
        for k in range(self.states.num_codes):
            stays = self._complete[self._complete["cluster"] == k]
            visits, steps, ends = (
                group_sums(values, stays["env"], n)
                for values in (np.ones(len(stays)), stays["length"], stays["next"] == END)
            )
            rows[k] = {
                "visits": len(stays),
                **columns("mean dwell (steps)", ratio_interval(steps, visits)),
                "median dwell (steps)": stays["length"].median(),
                **columns("episode ends here", ratio_interval(ends, visits)),
            }
        return pd.DataFrame(rows).T.rename_axis("cluster").astype({"visits": int})


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else np.nan
