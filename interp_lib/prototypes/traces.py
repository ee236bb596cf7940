"""Traces: episodes played by a ProtoSAC agent, with what its prototypes did at each step.

T steps of an episode, K prototypes, a action dimensions. Actions are in the environment's units.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..common.errors import InterpError
from ..envs.continuous import make_task, task_info
from ..envs.pictures import draw_states, rendering_problem, replay_frames, state_caption

if TYPE_CHECKING:
    from ..agents.protosac import ProtoSAC


@dataclass(frozen=True)
class EpisodeTrace:
    """One episode and what the prototypes did at each of its T steps.

    Attributes:
        task: short name.
        seed: of the reset; with the actions it reproduces the episode.
        observations: (T, *observation), the state each action was taken in.
        actions: (T, a) float32, the deterministic ones.
        rewards: (T,) float64.
        weights: (T, K) float32, rows sum to 1.
        similarities: (T, K) float32.
        frames: (F, H, W, 3) uint8, or None when none were asked for.
        frame_steps: (F,) int64, the steps those frames belong to.
        note: empty, or why ``frames`` are states drawn as bars instead of renderings.
    """

    task: str
    seed: int
    observations: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    weights: np.ndarray
    similarities: np.ndarray
    frames: np.ndarray | None = None
    frame_steps: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    note: str = ""

    def __len__(self) -> int:
        return len(self.actions)

    @property
    def leading(self) -> np.ndarray:
        """(T,) int64, the prototype with the largest weight."""
        return self.weights.argmax(1)

    @property
    def total(self) -> float:
        """Undiscounted return."""
        return float(self.rewards.sum())

    def frame(self, step: int) -> np.ndarray:
        """The picture of one step.

        Raises:
            InterpError: that step was not rendered.
        """
        at = np.flatnonzero(self.frame_steps == step)
        if self.frames is None or not len(at):
            raise InterpError(
                f"step {step} of this episode was not rendered. Add it with with_frames(trace, [{step}])."
            )
        return self.frames[at[0]]

    def caption(self, step: int) -> str:
        """What a picture of the state can't show; see :func:`~interp_lib.envs.pictures.state_caption`."""
        return state_caption(self.task, self.observations[step])


def record_episode(agent: ProtoSAC, task: str, seed: int) -> EpisodeTrace:
    """Play one episode with the deterministic actions and keep what the prototypes do.

    Args:
        task: the task ``agent`` was trained on.
        seed: of the reset.

    Raises:
        InterpError: the agent has no prototypes, or was made for another task.
    """
    check_agent(agent, task)
    task = task_info(task).name
    steps = []
    env = make_task(task)
    try:
        observation, _ = env.reset(seed=seed)
        ended = False
        while not ended:
            said = agent.explain(observation)
            following, reward, terminated, truncated, _ = env.step(said.action[0])
            steps.append((observation, said.action[0], float(reward), said.weights[0], said.similarities[0]))
            observation, ended = following, terminated or truncated
    finally:
        env.close()
    return EpisodeTrace(task, seed, *(np.stack(column) for column in zip(*steps, strict=True)))


def record_episodes(agent: ProtoSAC, task: str, episodes: int, *, seed: int = 0) -> list[EpisodeTrace]:
    """Play ``episodes`` episodes with the seeds ``seed``, ``seed + 1``, …; see :func:`record_episode`.

    Raises:
        InterpError: no episodes, and as :func:`record_episode`.
    """
    if episodes <= 0:
        raise InterpError(f"the number of episodes must be positive, not {episodes}.")
    return [record_episode(agent, task, seed + i) for i in range(episodes)]


def with_frames(trace: EpisodeTrace, steps: Iterable[int], *, size: tuple[int, int] | None = None) -> EpisodeTrace:
    """The same trace with pictures of the chosen steps, for which the episode is played again.

    Where nothing can be rendered (MuJoCo without OpenGL) the states are drawn as bars, and ``note`` says why.
    """
    steps, size = sorted({int(step) for step in steps}), size or task_info(trace.task).frame_size
    problem = rendering_problem(trace.task)
    if problem:
        frames = draw_states(trace.task, trace.observations[steps], trace.observations, size)
    else:
        frames = replay_frames(trace.task, trace.seed, trace.actions, steps, expected=trace.observations, size=size)
    return replace(trace, frames=frames, frame_steps=np.array(steps, dtype=np.int64), note=problem)


def playback_fps(task: str, steps: Sequence[int]) -> float:
    """Frames a second at which evenly spaced ``steps`` of an episode run in the task's own time, within 5 to 30."""
    info, env = task_info(task), make_task(task)
    rate = env.metadata["render_fps"] / info.action_repeat
    env.close()
    return float(np.clip(rate / (steps[1] - steps[0] if len(steps) > 1 else 1), 5, 30))


def even_steps(length: int, most: int) -> list[int]:
    """At most ``most`` evenly spaced steps of an episode of ``length`` steps, from its first on."""
    return list(range(0, length, max(1, -(-length // most))))


def check_agent(agent: Any, task: str) -> None:
    """Refuse an agent that has no prototypes to explain, or was trained on another task.

    Raises:
        InterpError: it is one of these.
    """
    if not hasattr(agent, "explain"):
        name = getattr(agent, "algorithm", type(agent).__name__)
        raise InterpError(f"a {name} agent has no prototypes to explain. Use a protosac run.")
    trained_on = getattr(agent, "task", None)
    if trained_on is not None and trained_on != task_info(task).name:
        raise InterpError(f"this agent was trained on {trained_on}, not on {task_info(task).name}.")
