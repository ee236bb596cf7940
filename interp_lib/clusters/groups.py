"""What the cluster browser and the static explorer say about states, apart from how they show it.

Rows are indices into a :class:`StateSet`, as everywhere.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from ..agents.sppo.agents import PPO
from ..common.errors import InterpError
from ..envs.actions import by_effect
from .states import StateSet, collect_states, load_states, return_to_go, stretches, weights_digest


@dataclass(frozen=True)
class Group:
    """What a set of states has in common; means and shares are NaN where it is empty."""

    count: int
    share: float  # of the kept states
    levels: int  # distinct levels
    value: float  # mean estimate, scaled reward as the agent learns it
    return_to_go: float  # mean discounted raw reward to the end of episode or recording
    actions: np.ndarray  # float64 (m,), the policy's mean probability of each effect (envs.actions)
    dwell: float | None = None  # mean steps an environment stays; None where the set is no cluster


def check_states(agent: PPO, states: StateSet) -> None:
    """Make sure that ``states`` were collected with ``agent``.

    Raises:
        InterpError: they belong to another run, or to an earlier or later state of this one; or it has no clusters.
    """
    if agent.algorithm != "sppo":
        raise InterpError(f"a {agent.algorithm} run has no clusters to browse: only SPPO has them. Choose an sppo run.")
    if states.meta["game"] != agent.config.env or states.meta.get("weights") != weights_digest(agent):
        raise InterpError(
            f"{states.path} holds states of {states.meta['run']} at {states.meta['timesteps']:,} steps, collected with "
            "other weights than this run's. Collect again: interp embed RUN"
        )


def states_of(agent: PPO, path: Path | str, *, steps: int = 500, progress: bool = True) -> StateSet:
    """The states in ``path``, however many; collected now where there are none, or those of other weights.

    Raises:
        InterpError: the agent has no clusters, or the file can't be written.
    """
    path = Path(path)
    if path.exists():
        try:
            return load_states(path, agent)
        except InterpError as problem:
            print(f"{problem} Collecting now.", file=sys.stderr)
    return collect_states(agent, path, steps=steps, progress=progress)


def episode_steps(states: StateSet) -> np.ndarray:
    """Steps since the start of each state's episode → int64 (N,). Every environment starts one as recording starts."""
    n = states.meta["num_envs"]
    done = states.done.reshape(-1, n)
    steps = np.zeros(done.shape, dtype=np.int64)
    for t in range(1, len(done)):
        steps[t] = np.where(done[t - 1], 0, steps[t - 1] + 1)
    return steps.ravel()


def episode_rows(states: StateSet, row: int) -> np.ndarray:
    """All recorded rows of the episode that ``row`` belongs to, in order of time → int64 (T,)."""
    n = states.meta["num_envs"]
    t, env = divmod(int(row), n)
    done = states.done.reshape(-1, n)[:, env]
    before = np.flatnonzero(done[:t])
    after = np.flatnonzero(done[t:])
    first = before[-1] + 1 if len(before) else 0
    last = t + after[0] if len(after) else len(done) - 1
    return np.arange(first, last + 1) * n + env


def action_probabilities(agent: PPO, states: StateSet, rows: np.ndarray) -> np.ndarray:
    """The policy at states ``rows`` (m,), from their stored features and codes → float32 (m, 15)."""
    import torch

    feature, code = (torch.from_numpy(column[rows]).to(agent.device) for column in (states.feature, states.code))
    with torch.no_grad():
        logits, _ = agent.network.heads(feature, code)
        return torch.softmax(logits, dim=-1).cpu().numpy()


def effect_probabilities(agent: PPO, states: StateSet, rows: np.ndarray) -> np.ndarray:
    """The same by what the actions do in the game (envs.actions) → float32 (m, number of effects)."""
    return by_effect(action_probabilities(agent, states, rows), states.meta["game"])


class Groups:
    """Statistics of sets of states of ``agent``; what needs the whole recording is computed once, when asked for."""

    def __init__(self, agent: PPO, states: StateSet) -> None:
        self.agent, self.states = agent, states
        self._to_go: np.ndarray | None = None
        self._stretches: pd.DataFrame | None = None

    def region(self, rows: np.ndarray) -> Group:
        """Any set of rows."""
        states, rows = self.states, np.asarray(rows, dtype=np.int64)
        if self._to_go is None:
            self._to_go = return_to_go(states)
        count = len(rows)
        actions = effect_probabilities(self.agent, states, rows).astype(np.float64)
        return Group(
            count=count,
            share=count / max(int(states.kept.sum()), 1),
            levels=len(np.unique(states.level[rows])),
            value=float(states.value[rows].mean()) if count else np.nan,
            return_to_go=float(self._to_go[rows].mean()) if count else np.nan,
            actions=actions.mean(0) if count else np.full(actions.shape[1], np.nan),
        )

    def cluster(self, k: int) -> Group:
        """The kept states of cluster ``k``, with its mean dwell time."""
        if self._stretches is None:
            self._stretches = stretches(self.states)
        dwell = self._stretches["length"][self._stretches["cluster"] == k]
        group = self.region(cluster_rows(self.states, k))
        return Group(**{**vars(group), "dwell": float(dwell.mean()) if len(dwell) else np.nan})


def cluster_rows(states: StateSet, k: int) -> np.ndarray:
    """The kept states of cluster ``k`` → int64 (m,)."""
    return np.flatnonzero(states.kept & (states.code == k))


def mean_image(states: StateSet, rows: np.ndarray, *, most: int = 500, seed: int = 0) -> np.ndarray | None:
    """Mean observation of up to ``most`` of ``rows``, drawn at random → uint8 (64, 64, 3); None for no rows."""
    if not len(rows):
        return None
    if len(rows) > most:
        rows = np.random.default_rng(seed).choice(rows, most, replace=False)
    return states.frames(rows).mean(0).round().astype(np.uint8)


def cluster_clips(
    states: StateSet, k: int, *, count: int = 3, shortest: int = 5, longest: int = 20, seed: int = 0
) -> list[np.ndarray]:
    """Stretches that an environment spends in cluster ``k``, each from another level where there are enough.

    Drawn at random from the stretches of at least ``shortest`` steps (where there are none: the longest ones), and
    cut at ``longest``, as in the paper's videos.

    Returns:
        up to ``count`` arrays of consecutive rows, int64 (T,).
    """
    found = stretches(states)
    found = found[found["cluster"] == k].sample(frac=1, random_state=seed)
    found["row"] = found["start"] * states.meta["num_envs"] + found["env"]
    found["level"] = states.level[found["row"]]
    found["long"] = found["length"].clip(upper=shortest)
    found["again"] = found.duplicated("level")
    chosen = found.sort_values(["long", "again"], ascending=[False, True], kind="stable").head(count)
    return [
        row + states.meta["num_envs"] * np.arange(min(length, longest))
        for row, length in zip(chosen["row"], chosen["length"], strict=True)
    ]


def region_clips(states: StateSet, rows: np.ndarray, *, count: int = 3, around: int = 8) -> list[np.ndarray]:
    """What happens around the states nearest to the middle of a region, each from another level.

    Returns:
        up to ``count`` arrays of consecutive rows, int64 (T ≤ 2 · ``around`` + 1,), none beyond its episode.
    """
    rows = np.asarray(rows, dtype=np.int64)
    if not len(rows):
        return []
    distance = np.square(states.fdr[rows] - np.median(states.fdr[rows], axis=0)).sum(1)
    order = rows[np.argsort(distance, kind="stable")]
    _, first = np.unique(states.level[order], return_index=True)
    clips = []
    for row in order[np.sort(first)][:count]:
        episode = episode_rows(states, row)
        at = int(np.flatnonzero(episode == row)[0])
        clips.append(episode[max(at - around, 0) : at + around + 1])
    return clips
