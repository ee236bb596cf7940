"""All about one agent: what each prototype does and is worth, returns beside other agents', and what figures need.

T steps of an episode, K prototypes, a action dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from ..agents.returns import evaluate_continuous
from ..common.statistics import bootstrap_mean
from ..envs.continuous import TaskInfo, task_info
from .decisions import action_interval
from .states import PrototypePictures, leading_distances, prototype_pictures
from .traces import EpisodeTrace, record_episodes
from .usage import Usage, prototype_usage

if TYPE_CHECKING:
    import pandas

    from ..agents.protosac import ProtoSAC


def state_values(agent: ProtoSAC, trace: EpisodeTrace) -> np.ndarray:
    """min_j Q_j(s, π(s)) (T,) float32: the discounted return the critics expect from each state on."""
    import torch

    with torch.no_grad():
        observations, _ = agent.policy.obs_to_tensor(trace.observations)
        actions = torch.as_tensor(agent.policy.scale_action(trace.actions), device=agent.device)
        return torch.cat(agent.critic(observations, actions), 1).amin(1).cpu().numpy()


def prototype_table(agent: ProtoSAC, traces: Sequence[EpisodeTrace], usage: Usage) -> pandas.DataFrame:
    """One row a prototype, largest mean weight first: what it does, how much it has to say, when, what that is worth.

    Columns: ``prototype``; ``mean_weight`` and ``led`` (shares); over the steps it leads ``distance`` (median of
    :func:`leading_distances`), ``when`` (median position in the episode, 0 first to 1 last) and ``value`` (mean of
    :func:`state_values`); for each action its name
    (the prototype's action alone) and ``<name>_low``, ``<name>_high`` (central 90% of its Gaussian); the numbers of
    the state it was projected on, for tasks with at most 8. Empty where a prototype never leads.
    """
    import pandas as pd

    info, prototypes = task_info(traces[0].task), agent.prototypes
    leading = np.concatenate([trace.leading for trace in traces])
    position = np.concatenate([np.arange(len(trace)) / max(len(trace) - 1, 1) for trace in traces])
    values = np.concatenate([state_values(agent, trace) for trace in traces])
    distances = leading_distances(agent, traces)
    low, high = action_interval(
        prototypes.action_means, prototypes.action_stds, agent.action_space.low, agent.action_space.high
    )
    rows = []
    for k in usage.order:
        led = leading == k
        row: dict[str, Any] = {"prototype": f"P{k}", "mean_weight": usage.mean_weight[k], "led": usage.led[k]}
        row |= {"distance": np.median(distances[led]) if led.any() else np.nan}
        row |= {"when": np.median(position[led]) if led.any() else np.nan}
        row |= {"value": values[led].mean() if led.any() else np.nan}
        for i, name in enumerate(info.action_names):
            row |= {name: prototypes.actions[k, i], f"{name}_low": low[k, i], f"{name}_high": high[k, i]}
        if prototypes.observations is not None and 0 < len(info.observation_names) <= 8:
            row |= dict(zip(info.observation_names, prototypes.observations[k], strict=True))
        rows.append(row)
    return pd.DataFrame(rows)


def compare_returns(
    agent: ProtoSAC, traces: Sequence[EpisodeTrace], baseline: Any | None = None, *, name: str = "SAC"
) -> pandas.DataFrame:
    """Returns of the recorded episodes beside those of other agents on the same seeds, with 95% intervals.

    Rows: ProtoSAC; ProtoSAC with the free prototypes it had before its last projection (where it is projected);
    ``baseline`` under ``name`` (None: left out); a random policy. Columns: ``mean``, ``low``, ``high``; ``ahead``,
    ``ahead_low``, ``ahead_high``, ProtoSAC's return minus this one's, paired by episode seed; ``episodes``.

    Args:
        traces: of consecutive seeds, as :func:`record_episodes` makes them.
    """
    import pandas as pd

    task, n, seed = traces[0].task, len(traces), traces[0].seed
    returns = {"ProtoSAC": np.array([trace.total for trace in traces])}
    if agent.prototypes.projected:
        with agent.free_prototypes():
            returns["ProtoSAC, before the last projection"] = evaluate_continuous(agent, task, n, seed=seed).returns
    if baseline is not None:
        returns[name] = evaluate_continuous(baseline, task, n, seed=seed).returns
    returns["random"] = evaluate_continuous(None, task, n, seed=seed).returns
    rows = []
    for who, values in returns.items():
        ahead = bootstrap_mean(returns["ProtoSAC"] - values)
        row = {"agent": who, **bootstrap_mean(values)._asdict()}
        rows.append(row | {"ahead": ahead.mean, "ahead_low": ahead.low, "ahead_high": ahead.high, "episodes": n})
    return pd.DataFrame(rows).set_index("agent")


@dataclass(frozen=True)
class PrototypeStudy:
    """An agent, its evaluation episodes, and what figures need to know about them.

    Attributes:
        agent: a ProtoSAC.
        traces: its evaluation episodes, without frames.
    """

    agent: ProtoSAC
    traces: list[EpisodeTrace]

    @classmethod
    def record(cls, agent: ProtoSAC, task: str, episodes: int, *, seed: int = 0) -> Self:
        """Play the episodes; see :func:`record_episodes`."""
        return cls(agent, record_episodes(agent, task, episodes, seed=seed))

    @cached_property
    def info(self) -> TaskInfo:
        """The task: its names for actions and observations."""
        return task_info(self.traces[0].task)

    @cached_property
    def usage(self) -> Usage:
        """Over all decisions of all episodes."""
        return prototype_usage(np.concatenate([trace.weights for trace in self.traces]))

    @cached_property
    def table(self) -> pandas.DataFrame:
        """:func:`prototype_table`, by the prototypes' names."""
        return prototype_table(self.agent, self.traces, self.usage).set_index("prototype")

    @cached_property
    def pictures(self) -> PrototypePictures:
        """Made when first asked for."""
        return prototype_pictures(self.agent, self.traces)

    @cached_property
    def typical(self) -> EpisodeTrace:
        """The episode with the median return (the lower one of two)."""
        return sorted(self.traces, key=lambda trace: trace.total)[(len(self.traces) - 1) // 2]

    @property
    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Lower and upper action bounds, (a,) each."""
        return self.agent.action_space.low, self.agent.action_space.high
