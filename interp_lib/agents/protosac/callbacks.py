"""What may happen now and then while SAC or ProtoSAC trains: an evaluation, a video. Both leave training as it is."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.evaluation import evaluate_policy

from ...common.errors import InterpError
from ...common.videos import write_mp4
from ...envs.continuous import make_task, make_task_vec
from ...envs.names import task_info
from ..learning_curve import ProgressLog

EVALUATIONS = "evaluations.csv"
EVALUATION_COLUMNS = (
    "total_timesteps", "return_mean", "return_std", "return_min", "return_max", "length_mean", "episodes",
)  # fmt: skip
VIDEOS = "videos"
_MOST_FRAMES = 250  # ten seconds; MuJoCo draws only a few frames a second without a graphics card


class EvaluationLog(BaseCallback):
    """Evaluates with deterministic actions every so often, one row in ``evaluations.csv`` each time.

    Every evaluation plays the same episodes, and none of training's random numbers are used: the agent is the one
    that training without evaluations gives. ProtoSAC is evaluated as it is at that step, its prototypes not projected.

    Args:
        run_dir: where the csv is written; its rows up to the step training starts from are kept.
        every: environment steps between evaluations, of so many ``episodes``.
        seed: of the evaluation's episodes.

    Raises:
        InterpError: ``every`` or ``episodes`` is below 1.
    """

    def __init__(self, run_dir: Path, task: str, every: int, *, episodes: int = 5, seed: int = 0):
        _check_positive("eval_every", every)
        _check_positive("eval_episodes", episodes)
        super().__init__()
        self.env, self.log = make_task_vec(task), ProgressLog(run_dir / EVALUATIONS, EVALUATION_COLUMNS)
        self.every, self.episodes, self.seed = every, episodes, seed

    def _on_training_start(self) -> None:
        n_envs = self.training_env.num_envs
        self.interval = max(1, self.every // n_envs)
        self.n_calls = self.num_timesteps // n_envs  # a resumed run goes on at the multiples of ``every``
        self.log.start(keep_through=self.num_timesteps)

    def _on_step(self) -> bool:
        if self.n_calls % self.interval == 0:
            self.env.seed(self.seed)
            played: Any = evaluate_policy(self.model, self.env, self.episodes, return_episode_rewards=True)
            returns, lengths = map(np.array, played)
            row = {
                "total_timesteps": self.num_timesteps,
                **{f"return_{name}": float(getattr(returns, name)()) for name in ("mean", "std", "min", "max")},
                "length_mean": float(lengths.mean()),
                "episodes": len(returns),
            }
            self.log.append(row)
        return True

    def _on_training_end(self) -> None:
        self.env.close()


class VideoLog(BaseCallback):
    """Films an episode with deterministic actions every so often: ``videos/step-000020000.mp4``, H.264.

    Videos run at the task's own speed and show an episode's first ten seconds or more (250 frames).

    Args:
        every: environment steps between videos.
        seed: of the filmed episode, the same each time.

    Raises:
        InterpError: ``every`` is below 1; or, before the first step, there is no OpenGL to render with.
    """

    def __init__(self, run_dir: Path, task: str, every: int, *, seed: int = 0):
        _check_positive("video_every", every)
        super().__init__()
        self.folder, self.task, self.every, self.seed = run_dir / VIDEOS, task, every, seed
        if not {"DISPLAY", "WAYLAND_DISPLAY"} & os.environ.keys():
            os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # frames are drawn in memory; SDL would miss a display
        self.env = make_task(task, render=True)
        self.env.reset(seed=seed)
        self.env.render()  # whoever asks for videos wants to hear now that there can't be any
        rate = self.env.metadata["render_fps"] / task_info(task).action_repeat
        self.stride = max(1, round(rate / 25))
        self.fps = rate / self.stride

    def _on_training_start(self) -> None:
        self.next = (self.num_timesteps // self.every + 1) * self.every

    def _on_step(self) -> bool:
        if self.num_timesteps >= self.next:
            self._on_training_start()
            write_mp4(self.folder / f"step-{self.num_timesteps:09d}.mp4", self._frames(), self.fps)
        return True

    def _frames(self) -> Iterator[np.ndarray]:
        observation, _ = self.env.reset(seed=self.seed)
        step, ended = 0, False
        while not ended and step < _MOST_FRAMES * self.stride:
            if step % self.stride == 0:
                yield np.asarray(self.env.render())
            action, _ = self.model.predict(observation, deterministic=True)
            observation, _, terminated, truncated, _ = self.env.step(action)
            step, ended = step + 1, terminated or truncated
        yield np.asarray(self.env.render())

    def _on_training_end(self) -> None:
        self.env.close()


def _check_positive(name: str, value: int) -> None:
    if value < 1:
        raise InterpError(f"{name} is {value}; it must be at least 1.")
