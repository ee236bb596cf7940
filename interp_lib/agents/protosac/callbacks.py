"""What may happen now and then while SAC or ProtoSAC trains: an evaluation, a video. Both leave training as it is."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback, EvalCallback

from ...common.errors import InterpError
from ...common.videos import write_mp4
from ...envs.continuous import make_task, make_task_vec
from ...envs.names import task_info
from ..learning_curve import ProgressLog

EVALUATIONS = "evaluations.csv"
EVALUATION_COLUMNS = (
    "total_timesteps",
    "return_mean",
    "return_std",
    "return_min",
    "return_max",
    "length_mean",
    "episodes",
)
VIDEOS = "videos"
_MOST_FRAMES = 250  # ten seconds; MuJoCo draws only a few frames a second without a graphics card


class EvaluationLog(EvalCallback):
    """Stable-Baselines3's EvalCallback with deterministic actions, one row an evaluation in ``evaluations.csv``.

    Every evaluation plays the same episodes, and none of training's random numbers are used: the agent is the one
    that training without evaluations gives. ProtoSAC is evaluated as it is at that step, its prototypes not projected.

    Args:
        run_dir: where the csv is written; its rows up to the step training starts from are kept.
        task: short name of the task.
        every: environment steps between evaluations.
        episodes: an evaluation.
        seed: of the evaluation's episodes.

    Raises:
        InterpError: ``every`` or ``episodes`` is below 1.
    """

    def __init__(self, run_dir: Path, task: str, every: int, *, episodes: int = 5, seed: int = 0):
        _check_positive("eval_every", every)
        _check_positive("eval_episodes", episodes)
        super().__init__(make_task_vec(task), n_eval_episodes=episodes, deterministic=True, verbose=0)
        self.log = ProgressLog(run_dir / EVALUATIONS, EVALUATION_COLUMNS)
        self.every, self.seed = every, seed
        self._episodes: list[dict[str, float]] = []

    def _on_training_start(self) -> None:
        n_envs = self.training_env.num_envs
        self.eval_freq = max(1, self.every // n_envs)
        self.n_calls = self.num_timesteps // n_envs  # a resumed run goes on at the multiples of ``every``
        self.log.start(keep_through=self.num_timesteps)

    def _on_step(self) -> bool:
        if self.n_calls % self.eval_freq:
            return True
        self.eval_env.seed(self.seed)
        self._episodes = []
        recorded = dict(self.logger.name_to_value)
        proceed = super()._on_step()
        self.logger.name_to_value.update(recorded)  # SB3 empties the log, whose losses the next progress row needs
        returns = [episode["r"] for episode in self._episodes]
        row = {
            "total_timesteps": self.num_timesteps,
            "return_mean": float(np.mean(returns)),
            "return_std": float(np.std(returns)),
            "return_min": float(np.min(returns)),
            "return_max": float(np.max(returns)),
            "length_mean": float(np.mean([episode["l"] for episode in self._episodes])),
            "episodes": len(returns),
        }
        self.log.append(row)
        return proceed

    def _log_success_callback(self, locals_: dict[str, Any], globals_: dict[str, Any]) -> None:
        super()._log_success_callback(locals_, globals_)
        if locals_["done"]:
            self._episodes.append(locals_["info"]["episode"])

    def _on_training_end(self) -> None:
        self.eval_env.close()


class VideoLog(BaseCallback):
    """Films an episode with deterministic actions every so often: ``videos/step-000020000.mp4``, H.264.

    Videos run at the task's own speed and show an episode's first ten seconds or more (250 frames).

    Args:
        run_dir: where the folder ``videos`` is made.
        task: short name of the task.
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
            self.next = (self.num_timesteps // self.every + 1) * self.every
            write_mp4(self.folder / f"step-{self.num_timesteps:09d}.mp4", self._frames(), self.fps)
        return True

    def _frames(self) -> Iterator[np.ndarray]:
        observation, _ = self.env.reset(seed=self.seed)
        step, ended = 0, False
        while not ended and step < _MOST_FRAMES * self.stride:
            if step % self.stride == 0:
                yield self._frame()
            action, _ = self.model.predict(observation, deterministic=True)
            observation, _, terminated, truncated, _ = self.env.step(action)
            step, ended = step + 1, terminated or truncated
        yield self._frame()

    def _frame(self) -> np.ndarray:
        frame = self.env.render()
        assert isinstance(frame, np.ndarray)
        return frame

    def _on_training_end(self) -> None:
        self.env.close()


def _check_positive(name: str, value: int) -> None:
    if value < 1:
        raise InterpError(f"{name} is {value}; it must be at least 1.")
