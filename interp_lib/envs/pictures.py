"""Pictures of states: the simulator put back into them, an episode played again, or bars where nothing can render.

All pictures are uint8 (H, W, 3).
"""

from __future__ import annotations

import functools
import gc
import os
import sys
from collections.abc import Iterable, Sequence
from contextlib import closing
from typing import Any

import gymnasium as gym
import numpy as np
from PIL import Image, ImageDraw

from ..common.errors import InterpError
from ..common.style import GRID, INK, cluster_color, picture_font
from ..common.surroundings import display_opens
from .continuous import make_task
from .names import task_info

_MOST_BARS = 24  # Humanoid has 348 numbers; its posture comes first


def restored_frames(
    task: str, observations: Iterable[np.ndarray], *, size: tuple[int, int] | None = None
) -> np.ndarray:
    """Put a task's simulator into the states behind N observations (as the agent sees them) and render them.

    Pendulum, MountainCar and the MuJoCo tasks can be put into any state that their observation describes; what it
    leaves out (the position along MuJoCo's endless track) is set to 0. Box2D tasks have no such entrance.

    Args:
        task: name of the task.
        size: (width, height) of the frames in pixels; None: the task's own.

    Returns:
        uint8 (N, height, width, 3).

    Raises:
        InterpError: unknown task, or one whose states can't be restored; nothing to render with, and what to install.
    """
    info = task_info(task)
    if info.restore is None:
        raise InterpError(f"{info.gym_id} can't be put into a given state. Replay an episode instead.")
    frames = []
    with closing(rendering_task(task, size)) as env:
        env.reset(seed=0)
        for observation in observations:
            info.restore(env.unwrapped, np.asarray(observation, dtype=np.float64))
            frames.append(env.render().copy())
    return np.stack(frames)


def rendering_task(task: str, size: tuple[int, int] | None = None) -> Any:
    """A task whose ``render()`` gives frames of ``size`` (width, height); None: the task's own."""
    if not display_opens():
        # Frames are drawn in memory; without this SDL looks for a display and complains on stderr.
        os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
    info = task_info(task)
    size = size or info.frame_size
    if info.frame_margin:
        return _PendulumFrames(make_task(task, render=True), size, info.frame_margin)
    return make_task(task, render=True, frame_size=size)


class _PendulumFrames(gym.Wrapper):
    """Pendulum without its empty margins (shares of the width), at ``size`` (width, height)."""

    def __init__(self, env: gym.Env, size: tuple[int, int], margin: float):
        super().__init__(env)
        self.size, self.margin = size, margin

    def render(self) -> np.ndarray:
        # Its arrow is the torque of the step before, and would be taken for the action that is explained.
        simulator: Any = self.unwrapped
        simulator.last_u = None
        frame = np.asarray(self.env.render())
        margin = round(len(frame) * self.margin)
        middle = frame[margin:-margin, margin:-margin]
        return np.asarray(Image.fromarray(middle).resize(self.size, Image.Resampling.LANCZOS))


def replay_frames(
    task: str, seed: int, actions: np.ndarray, steps: Iterable[int], *, expected: np.ndarray | None = None,
    size: tuple[int, int] | None = None,
) -> np.ndarray:  # fmt: skip
    """Play an episode again and render the chosen steps alone: an episode need not be rendered to be shown later.

    Args:
        task: name of the task.
        seed: of the episode's reset.
        actions: (T, a), those the agent took.
        steps: which states to render, 0 ≤ step < T; the picture shows the state before action ``step``.
        expected: observations (T, ...) of the first time, compared at the steps that are rendered.
        size: (width, height) in pixels.

    Returns:
        uint8 (number of steps, height, width, 3), in the order of ``steps``.

    Raises:
        InterpError: a step outside the episode, an episode that comes out differently, nothing to render with.
    """
    steps = [int(step) for step in steps]
    outside = [step for step in steps if not 0 <= step < len(actions)]
    if outside:
        raise InterpError(f"step {outside[0]} is not in this episode: it has {len(actions)} steps, the first is 0.")
    wanted: dict[int, np.ndarray] = {}
    with closing(rendering_task(task, size)) as env:
        observation, _ = env.reset(seed=seed)
        for step in range(max(steps, default=-1) + 1):
            if step in steps:
                if expected is not None and not np.array_equal(observation, expected[step]):
                    raise InterpError(f"episode {seed} of {task} came out differently when it was played again.")
                wanted[step] = env.render().copy()
            observation, *_ = env.step(actions[step])
    return np.stack([wanted[step] for step in steps]) if steps else np.zeros((0, 0, 0, 3), dtype=np.uint8)


@functools.cache
def rendering_problem(task: str) -> str:
    """Why this machine can't render a task, with the fix, as one line; empty when it can."""
    # A renderer that failed halfway complains once more, on stderr, when it is collected.
    hook, sys.unraisablehook = sys.unraisablehook, lambda _: None
    try:
        return _try_rendering(task)
    finally:
        gc.collect()
        sys.unraisablehook = hook


def _try_rendering(task: str) -> str:
    with closing(rendering_task(task)) as env:
        try:
            env.reset(seed=0)
            env.render()
        except InterpError as error:
            return str(error)
    return ""


def state_caption(task: str, observation: np.ndarray) -> str:
    """The few numbers of a state that a still picture can't show, mostly speeds; empty for images."""
    info = task_info(task)
    if info.caption is None:
        return ""
    return info.caption(dict(zip(info.observation_names, np.asarray(observation, np.float64).ravel(), strict=False)))


def image_observation(observation: np.ndarray, side: int) -> np.ndarray:
    """The newest of the stacked grey images (stack, H, H) uint8 the agent sees, enlarged pixel by pixel.

    Returns:
        uint8 (side, side, 3).
    """
    newest = Image.fromarray(np.asarray(observation, dtype=np.uint8)[-1])
    enlarged = newest.resize((side, side), Image.Resampling.NEAREST)
    return np.repeat(np.asarray(enlarged)[:, :, None], 3, axis=2)


def state_bars(
    observations: np.ndarray, names: Sequence[str], size: tuple[int, int], *, reference: np.ndarray
) -> np.ndarray:
    """Draw states as bars, one a number: how far it is from its usual value, in standard deviations (±3 at the rims).

    Args:
        observations: (N, n).
        names: what the n numbers measure.
        size: (width, height) in pixels.
        reference: observations (M, n) that say what is usual.

    Returns:
        uint8 (N, height, width, 3). Only the first 24 numbers are drawn.
    """
    reference = np.asarray(reference, dtype=np.float64)
    center, spread = reference.mean(0), reference.std(0)
    scores = (np.asarray(observations, dtype=np.float64) - center) / np.where(spread > 1e-8, spread, 1.0)
    width, height = size
    shown = min(scores.shape[1], _MOST_BARS)
    row = height / shown
    left = 0.5 * width  # names on the left half, bars on the right
    longest = max(picture_font(100).getlength(name) for name in names[:shown]) / 100
    font = picture_font(int(max(6, min(0.7 * row, (left - 10) / longest))))
    pictures = []
    for state in scores[:, :shown]:
        image = Image.new("RGB", size, "white")
        draw = ImageDraw.Draw(image)
        zero, unit = (left + width) / 2, (width - left) / 2 / 3.3
        for sigma in (-3, 0, 3):
            draw.line((zero + sigma * unit, 0, zero + sigma * unit, height), fill=INK if sigma == 0 else GRID)
        for i, score in enumerate(np.clip(state, -3, 3)):
            y = (i + 0.5) * row
            ends = sorted((zero, zero + score * unit))
            draw.rectangle((ends[0], y - 0.32 * row, ends[1], y + 0.32 * row), fill=cluster_color(0))
            draw.text((left - 5, y), names[i], fill=INK, font=font, anchor="rm")
        pictures.append(np.asarray(image))
    return np.stack(pictures)


def draw_states(task: str, observations: np.ndarray, reference: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """States of ``task`` as bars (:func:`state_bars`), where nothing can be rendered.

    Args:
        observations: (N, n).
        reference: observations (M, n) that say what is usual.
        size: (width, height) in pixels of a rendered frame; names need more, so these pictures have twice that.
    """
    twice = 2 * size[0], 2 * size[1]
    return state_bars(observations, task_info(task).observation_names, twice, reference=reference)
