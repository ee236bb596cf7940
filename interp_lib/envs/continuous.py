"""The continuous tasks of the ProtoSAC paper (:mod:`.tasks`), wrapped the way their agents see them."""

from __future__ import annotations

import ctypes.util
import functools
import importlib
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.wrappers import FrameStackObservation, TransformObservation
from PIL import Image

from ..common.errors import InterpError
from ..common.surroundings import display_opens
from .names import continuous_task, task_info
from .tasks import TASKS, TaskInfo

if TYPE_CHECKING:
    from stable_baselines3.common.vec_env import DummyVecEnv

_gl_problem = ""  # why MuJoCo had to be loaded without OpenGL
_GL_FIX = (
    "Install a headless OpenGL (Debian and Ubuntu: apt-get install libegl1), or set MUJOCO_GL to one that works here."
)


def make_task(
    name: str, *, render: bool = False, frame_size: tuple[int, int] | None = None, seed: int | None = None
) -> gym.Env:
    """Make one of the seven tasks with the observations its agent is trained on.

    CarRacing observations are (4, 64, 64) uint8: the last four frames in grey, each action held for four steps.
    MuJoCo observations are cast from float64 to float32, which is what the networks see anyway and halves the
    replay buffer. The other tasks are as Gymnasium has them.

    Args:
        name: short name, Gymnasium id or original number 0..6.
        render: make ``env.render()`` return a frame, uint8 (height, width, 3).
        frame_size: (width, height) of those frames in pixels; None: 240 × 240 for MuJoCo, else the task's own.
        seed: seeds the action space and the first reset.

    Raises:
        InterpError: unknown name; MuJoCo can't be loaded; or, from ``env.render()``, no OpenGL to render it with.
    """
    info = task_info(name)
    options: dict[str, Any] = {"render_mode": "rgb_array"} if render else {}
    if info.mujoco:
        _load_mujoco(info)
        if render:
            options["width"], options["height"] = frame_size or (240, 240)
            options["camera_id"] = info.camera  # Gymnasium's own stays where it was first, and runners leave it
    env = gym.make(info.gym_id, **options)
    if render:
        if info.mujoco:
            _widen_floor(env.unwrapped.model)  # type: ignore[attr-defined]  # MuJoCo's own
        env = _Frames(env, info, frame_size)
    if info.image:
        grey = spaces.Box(0, 255, (64, 64), np.uint8)
        env = TransformObservation(_ActionRepeat(env, info.action_repeat), _grey_road, grey)
        env = FrameStackObservation(env, stack_size=4)
    elif isinstance(space := env.observation_space, spaces.Box) and space.dtype == np.float64:
        # Not Gymnasium's DtypeObservation, which warns about the precision of infinity.
        low, high = space.low.astype(np.float32), space.high.astype(np.float32)
        env = TransformObservation(env, lambda observed: observed.astype(np.float32), spaces.Box(low, high))
    if seed is not None:
        env.action_space.seed(seed)
        env.reset(seed=seed)
    return env


def make_task_vec(name: str, n_envs: int = 1, seed: int | None = None) -> DummyVecEnv:
    """Make ``n_envs`` copies of a task, each in a Monitor, as one Stable-Baselines3 VecEnv.

    Args:
        name: as in :func:`make_task`.
        n_envs: number of copies.
        seed: copy ``i`` is seeded with ``seed + i`` at its first reset.

    Raises:
        InterpError: unknown name or ``n_envs`` below 1.
    """
    from stable_baselines3.common.monitor import Monitor
    from stable_baselines3.common.vec_env import DummyVecEnv

    name = continuous_task(name)
    if n_envs < 1:
        raise InterpError(f"n_envs is {n_envs}; it must be at least 1.")
    factories: list[Callable[[], gym.Env]] = [lambda: Monitor(make_task(name))] * n_envs
    vec = DummyVecEnv(factories)
    if seed is not None:
        vec.seed(seed)
    return vec


def task_of(env: Any) -> str | None:
    """Return the short name of the task an environment (or VecEnv) was made from, or None for any other one."""
    env = env.envs[0] if hasattr(env, "envs") else env
    spec = getattr(env, "spec", None)
    return next((task.name for task in TASKS.values() if spec is not None and task.gym_id == spec.id), None)


def _load_mujoco(info: TaskInfo) -> None:
    """Import MuJoCo, which reads MUJOCO_GL then: EGL where nothing is chosen, headless and installed.

    With a library that isn't there it can't even be imported, but playing needs none: it is switched off, and
    :class:`_Frames` says why it can't render.
    """
    global _gl_problem
    if "mujoco" in sys.modules:
        return
    if "MUJOCO_GL" not in os.environ and not display_opens() and ctypes.util.find_library("EGL"):
        os.environ["MUJOCO_GL"] = "egl"
    try:
        importlib.import_module("mujoco")
    except (AttributeError, ImportError, RuntimeError) as error:
        _gl_problem = f"MUJOCO_GL={os.environ.get('MUJOCO_GL', '')} does not load ({error})"
        os.environ["MUJOCO_GL"] = "disabled"
        try:
            importlib.import_module("mujoco")
        except ImportError:
            raise InterpError(f"cannot load MuJoCo for {info.gym_id}: {error}. {_GL_FIX}") from error
    sys.modules["mujoco"].set_mju_user_warning(_warn_once)  # it warns of a task's XML whenever one is made


@functools.cache
def _warn_once(line: str) -> None:
    print(f"MuJoCo: {line}", file=sys.stderr)


def _widen_floor(model: Any) -> None:
    """Draw ten times as much floor: a cheetah leaves it after ten seconds. To physics a plane is infinite anyway."""
    planes = np.flatnonzero(model.geom_type == 0)  # mjGEOM_PLANE
    model.geom_size[planes, :2] *= 10
    model.mat_texrepeat[np.unique(model.geom_matid[planes])] *= 10


class _ActionRepeat(gym.Wrapper):
    """Hold every action for ``repeat`` steps of CarRacing, add up their rewards and draw only the frame that is seen.

    Drawing takes most of a step's time, and what the next step draws over has no effect on the physics.
    """

    def __init__(self, env: gym.Env, repeat: int):
        super().__init__(env)
        self.repeat = repeat
        self._racing = cast(Any, env.unwrapped)
        self._draw = self._racing._render
        self._racing._render = self._draw_if_seen
        self._seen = True

    def _draw_if_seen(self, mode: str) -> Any:
        seen = self._seen or mode != "state_pixels"
        return self._draw(mode) if seen else self._racing.state.copy()  # two steps must not share an array

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        total = 0.0
        for left in reversed(range(self.repeat)):
            self._seen = left == 0
            try:
                observation, reward, terminated, truncated, info = self.env.step(action)
            finally:
                self._seen = True
            total += float(reward)
            if terminated or truncated:
                if left:  # an episode ended that was not expected to
                    observation = self._draw("state_pixels")
                break
        return observation, total, terminated, truncated, info


def _grey_road(frame: np.ndarray) -> np.ndarray:
    """Frames of CarRacing in grey, 64 × 64, without the dashboard (their bottom 12 rows)."""
    road = Image.fromarray(frame[:84, 6:90]).convert("L")
    return np.asarray(road.resize((64, 64), Image.Resampling.BOX))


class _Frames(gym.Wrapper):
    """Render frames of the size asked for, and say what to do when there is nothing to render with."""

    def __init__(self, env: gym.Env, info: TaskInfo, frame_size: tuple[int, int] | None):
        super().__init__(env)
        self.info = info
        self.frame_size = frame_size

    def render(self) -> np.ndarray:
        try:
            frame = np.asarray(self.env.render())
        except Exception as error:  # each GL library fails in its own way
            if not self.info.mujoco:
                raise
            problem = _gl_problem or str(error)[:120] or type(error).__name__
            raise InterpError(f"cannot render {self.info.gym_id}: {problem}. {_GL_FIX}") from error
        if self.frame_size is not None and frame.shape[1::-1] != self.frame_size:
            frame = np.asarray(Image.fromarray(frame).resize(self.frame_size, Image.Resampling.BOX))
        return frame
