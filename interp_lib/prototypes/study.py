"""All about one agent: what each prototype does and is worth, its returns beside other agents', what figures need.

N decisions in all, T steps of an episode, K prototypes, a action dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from ..agents.returns import evaluate_continuous
from ..common.statistics import Interval, bootstrap_mean
from ..envs.names import task_info
from ..envs.tasks import TaskInfo
from .decisions import Decision, action_interval, explain_decision
from .likeness import Likeness, likeness
from .states import NearestState, PrototypePictures, StateMap, nearest_states, prototype_pictures, state_map
from .traces import EpisodeTrace, record_episodes
from .usage import Usage, prototype_colors, prototype_usage, sharing_interval, usage_interval

if TYPE_CHECKING:
    import pandas

    from ..agents.protosac import ProtoSAC

NEAREST = 6  # evaluation states kept for each prototype


@dataclass(frozen=True)
class PrototypeStudy:
    """An agent, its evaluation episodes, and what there is to know about them, found out when it is first asked for.

    Attributes:
        agent: a ProtoSAC.
        traces: its evaluation episodes of one task, of consecutive seeds, without frames.
    """

    agent: ProtoSAC
    traces: Sequence[EpisodeTrace]

    @classmethod
    def record(cls, agent: ProtoSAC, task: str, episodes: int, *, seed: int = 0) -> Self:
        """Play the episodes; see :func:`record_episodes`."""
        return cls(agent, record_episodes(agent, task, episodes, seed=seed))

    # -- the episodes -----------------------------------------------------------------------------------------------

    @cached_property
    def info(self) -> TaskInfo:
        """The task: its names for actions and observations."""
        return task_info(self.traces[0].task)

    @property
    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Lower and upper action bounds, (a,) each."""
        return self.agent.action_space.low, self.agent.action_space.high

    @property
    def size(self) -> str:
        """How much was recorded, for captions."""
        return f"n = {len(self.leading):,} decisions in {len(self.traces)} episodes"

    @cached_property
    def typical_episode(self) -> int:
        """Which episode has the median return (the lower one of two)."""
        order = np.argsort([trace.total for trace in self.traces], kind="stable")
        return int(order[(len(self.traces) - 1) // 2])

    @property
    def typical(self) -> EpisodeTrace:
        """That episode."""
        return self.traces[self.typical_episode]

    @cached_property
    def observations(self) -> np.ndarray:
        """(N, *observation), episode after episode, as everything below."""
        return np.concatenate([trace.observations for trace in self.traces])

    @cached_property
    def weights(self) -> np.ndarray:
        """(N, K) float32."""
        return np.concatenate([trace.weights for trace in self.traces])

    @cached_property
    def leading(self) -> np.ndarray:
        """(N,) int64, the prototype with the largest weight."""
        return self.weights.argmax(1)

    @cached_property
    def episode(self) -> np.ndarray:
        """(N,) int64, which of ``traces``."""
        return np.repeat(np.arange(len(self.traces)), [len(trace) for trace in self.traces])

    @cached_property
    def latents(self) -> np.ndarray:
        """(N, d) float32, where the states lie in the actor's space."""
        return np.concatenate([self.agent.encode(trace.observations) for trace in self.traces])

    @cached_property
    def values(self) -> list[np.ndarray]:
        """min_j Q_j(s, π(s)) of each episode, (T,) float32: the discounted return the critics expect from there on."""
        import torch

        found = []
        for trace in self.traces:
            with torch.no_grad():
                observations, _ = self.agent.policy.obs_to_tensor(trace.observations)
                actions = torch.as_tensor(self.agent.policy.scale_action(trace.actions), device=self.agent.device)
                found.append(torch.cat(self.agent.critic(observations, actions), 1).amin(1).cpu().numpy())
        return found

    # -- the prototypes ---------------------------------------------------------------------------------------------

    @cached_property
    def usage(self) -> Usage:
        """Over all decisions of all episodes."""
        return prototype_usage(self.weights)

    @property
    def in_use(self) -> Interval:
        """How many prototypes all decisions together use; see :func:`usage_interval`."""
        return usage_interval([trace.weights for trace in self.traces])

    @property
    def sharing(self) -> Interval:
        """How many prototypes share a decision on average; see :func:`sharing_interval`."""
        return sharing_interval([trace.weights for trace in self.traces])

    @cached_property
    def colors(self) -> list[str]:
        """Of each prototype, in all figures."""
        return prototype_colors(self.usage)

    @cached_property
    def distances(self) -> np.ndarray:
        """Squared distance (N,), in the actor's space, of every state to the prototype that leads there."""
        return ((self.latents - self.agent.prototypes.latents[self.leading]) ** 2).sum(1)

    @cached_property
    def action_intervals(self) -> tuple[np.ndarray, np.ndarray]:
        """Lower and upper ends (K, a) of the central 90% of each prototype's actions."""
        prototypes = self.agent.prototypes
        return action_interval(prototypes.action_means, prototypes.action_stds, *self.bounds)

    @cached_property
    def table(self) -> pandas.DataFrame:
        """One row a prototype, largest mean weight first: what it does, how much it has to say, when, its worth.

        Index: ``prototype``. Columns: ``mean_weight`` and ``led`` (shares); over the steps it leads ``distance``
        (median of ``distances``), ``when`` (median position in the episode, 0 first to 1 last) and ``value`` (mean of
        ``values``); for each action its name (the prototype's action alone) and ``<name>_low``, ``<name>_high``
        (``action_intervals``); the numbers of the state it was projected on, for tasks with at most 8. Empty where a
        prototype never leads.
        """
        import pandas as pd

        prototypes, order, (low, high) = self.agent.prototypes, self.usage.order, self.action_intervals
        position = np.concatenate([np.arange(len(trace)) / max(len(trace) - 1, 1) for trace in self.traces])

        def where_it_leads(measure: Any, facts: np.ndarray) -> list[float]:
            return [measure(facts[self.leading == k]) if self.usage.led[k] > 0 else np.nan for k in range(len(order))]

        table: dict[str, Any] = {"mean_weight": self.usage.mean_weight, "led": self.usage.led}
        table["distance"] = where_it_leads(np.median, self.distances)
        table["when"] = where_it_leads(np.median, position)
        table["value"] = where_it_leads(np.mean, np.concatenate(self.values))
        for i, name in enumerate(self.info.action_names):
            table |= {name: prototypes.actions[:, i], f"{name}_low": low[:, i], f"{name}_high": high[:, i]}
        if prototypes.observations is not None and 0 < len(self.info.observation_names) <= 8:
            table |= dict(zip(self.info.observation_names, prototypes.observations.T, strict=True))
        names = pd.Index([f"P{k}" for k in order], name="prototype")
        return pd.DataFrame(table).iloc[order].set_axis(names)

    @cached_property
    def nearest(self) -> list[list[NearestState]]:
        """For each prototype the evaluation states nearest to it, at most :data:`NEAREST`."""
        return nearest_states(self, NEAREST)

    @cached_property
    def likeness(self) -> Likeness:
        """How alike states and the prototypes that lead there look; see :func:`likeness`."""
        return likeness(self)

    @cached_property
    def pictures(self) -> PrototypePictures:
        """A picture of each prototype."""
        return prototype_pictures(self)

    @cached_property
    def map(self) -> StateMap:
        """All states and prototypes in two dimensions."""
        return state_map(self)

    # -- beyond the recorded decisions ------------------------------------------------------------------------------

    def decision(self, trace: EpisodeTrace, step: int) -> Decision:
        """One step of an episode, explained; see :func:`explain_decision`."""
        return explain_decision(self.agent, trace, step)

    def returns(self, policy: Any) -> np.ndarray:
        """Returns of another policy (None: random) on the seeds of the recorded episodes, float64 (episodes,)."""
        return evaluate_continuous(policy, self.info.name, len(self.traces), seed=self.traces[0].seed).returns


def compare_returns(study: PrototypeStudy, baseline: Any | None = None, *, name: str = "SAC") -> pandas.DataFrame:
    """Returns of the recorded episodes beside those of other agents on the same seeds, with 95% intervals.

    Rows: ProtoSAC; ProtoSAC with the free prototypes it had before its last projection (where it is projected);
    ``baseline`` under ``name`` (None: left out); a random policy. Columns: ``mean``, ``low``, ``high``; ``ahead``,
    ``ahead_low``, ``ahead_high``, ProtoSAC's return minus this one's, paired by episode seed; ``episodes``.
    """
    import pandas as pd

    agent, own = study.agent, np.array([trace.total for trace in study.traces])
    returns = {"ProtoSAC": own}
    if agent.prototypes.projected:
        with agent.free_prototypes():
            returns["ProtoSAC, before the last projection"] = study.returns(agent)
    if baseline is not None:
        returns[name] = study.returns(baseline)
    returns["random"] = study.returns(None)
    rows = []
    for who, values in returns.items():
        ahead = bootstrap_mean(own - values)
        row = {"agent": who, **bootstrap_mean(values)._asdict()}
        rows.append(row | {"ahead": ahead.mean, "ahead_low": ahead.low, "ahead_high": ahead.high, "episodes": len(own)})
    return pd.DataFrame(rows).set_index("agent")
