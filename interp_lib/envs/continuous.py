"""The seven continuous-control tasks of the ProtoSAC paper, wrapped the way their agents see them."""

from __future__ import annotations

import ctypes.util
import importlib
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.wrappers import FrameStackObservation
from PIL import Image

from ..common.errors import InterpError
from ..common.surroundings import display_opens
from .names import CONTINUOUS_TASKS, continuous_task

if TYPE_CHECKING:
    from stable_baselines3.common.vec_env import DummyVecEnv

_gl_problem = ""  # why MuJoCo had to be loaded without OpenGL
_GL_FIX = (
    "Install a headless OpenGL (Debian and Ubuntu: apt-get install libegl1), or set MUJOCO_GL to one that works here."
)


@dataclass(frozen=True)
class TaskInfo:
    """What a reader wants to know about one task.

    Attributes:
        name: short name, e.g. ``"hopper"``.
        gym_id: Gymnasium id.
        action_names: what each action dimension drives.
        observation_names: what each observation dimension measures; empty for images.
        image: whether observations are images, (4, 64, 64) uint8: the last four frames, grey.
        mujoco: whether the task runs in MuJoCo (its states can be restored and rendered again).
        action_repeat: environment steps an action is held for.
    """

    name: str
    gym_id: str
    action_names: tuple[str, ...]
    observation_names: tuple[str, ...]
    image: bool = False
    mujoco: bool = False
    action_repeat: int = 1


_PLANAR_ROOT_VELOCITY = ("forward velocity", "vertical velocity", "torso angular velocity")
_CHEETAH_JOINTS = ("back thigh", "back shin", "back foot", "front thigh", "front shin", "front foot")
_HOPPER_JOINTS = ("thigh", "leg", "foot")
_HUMANOID_BODIES = (
    "torso", "lower waist", "pelvis", "right thigh", "right shin", "right foot", "left thigh", "left shin", "left foot",
    "right upper arm", "right lower arm", "left upper arm", "left lower arm",
)  # fmt: skip
_HUMANOID_LIMBS = (
    "right hip x", "right hip z", "right hip y", "right knee", "left hip x", "left hip z", "left hip y", "left knee",
    "right shoulder1", "right shoulder2", "right elbow", "left shoulder1", "left shoulder2", "left elbow",
)  # fmt: skip
# The model lists its motors with abdomen y first and its joints with abdomen z first.
_HUMANOID_MOTORS = ("abdomen y", "abdomen z", "abdomen x", *_HUMANOID_LIMBS)
_HUMANOID_JOINTS = ("abdomen z", "abdomen y", "abdomen x", *_HUMANOID_LIMBS)


def _names(prefixes: tuple[str, ...], suffixes: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"{prefix} {suffix}" for prefix in prefixes for suffix in suffixes)


def _humanoid_observations() -> tuple[str, ...]:
    """The 348 entries of Humanoid-v5: qpos, qvel, cinert, cvel, qfrc_actuator, cfrc_ext (world body left out)."""
    inertia = ("mass", "com x", "com y", "com z", "inertia xx", "inertia yy", "inertia zz", "inertia xy", "inertia xz",
               "inertia yz")  # fmt: skip
    axes = ("x", "y", "z")
    spin_and_move = tuple(f"com angular velocity {a}" for a in axes) + tuple(f"com velocity {a}" for a in axes)
    torque_and_force = tuple(f"contact torque {a}" for a in axes) + tuple(f"contact force {a}" for a in axes)
    return (
        ("torso height", "torso orientation w", "torso orientation x", "torso orientation y", "torso orientation z")
        + _names(_HUMANOID_JOINTS, ("angle",))
        + ("torso velocity x", "torso velocity y", "torso velocity z")
        + ("torso angular velocity x", "torso angular velocity y", "torso angular velocity z")
        + _names(_HUMANOID_JOINTS, ("angular velocity",))
        + _names(_HUMANOID_BODIES, inertia)
        + _names(_HUMANOID_BODIES, spin_and_move)
        + _names(_HUMANOID_JOINTS, ("motor force",))
        + _names(_HUMANOID_BODIES, torque_and_force)
    )


TASKS: dict[str, TaskInfo] = {
    info.name: info
    for info in (
        TaskInfo("pendulum", "Pendulum-v1", ("torque",), ("cos angle", "sin angle", "angular velocity")),
        TaskInfo(
            "lunarlander",
            "LunarLanderContinuous-v3",
            ("main engine", "side engines"),
            (
                "x",
                "y",
                "velocity x",
                "velocity y",
                "angle",
                "angular velocity",
                "left leg contact",
                "right leg contact",
            ),
        ),
        TaskInfo("mountaincar", "MountainCarContinuous-v0", ("force",), ("position", "velocity")),
        TaskInfo(
            "halfcheetah",
            "HalfCheetah-v5",
            _names(_CHEETAH_JOINTS, ("torque",)),
            ("torso height", "torso angle", *_names(_CHEETAH_JOINTS, ("angle",)))
            + (*_PLANAR_ROOT_VELOCITY, *_names(_CHEETAH_JOINTS, ("angular velocity",))),
            mujoco=True,
        ),
        TaskInfo(
            "humanoid",
            "Humanoid-v5",
            _names(_HUMANOID_MOTORS, ("torque",)),
            _humanoid_observations(),
            mujoco=True,
        ),
        TaskInfo(
            "hopper",
            "Hopper-v5",
            _names(_HOPPER_JOINTS, ("torque",)),
            ("torso height", "torso angle", *_names(_HOPPER_JOINTS, ("angle",)))
            + (*_PLANAR_ROOT_VELOCITY, *_names(_HOPPER_JOINTS, ("angular velocity",))),
            mujoco=True,
        ),
        TaskInfo("carracing", "CarRacing-v3", ("steering", "gas", "brake"), (), image=True, action_repeat=4),
    )
}


def task_info(name: str) -> TaskInfo:
    """Return the description of a task given its short name, Gymnasium id or original number 0..6.

    Raises:
        InterpError: unknown name.
    """
    return TASKS[continuous_task(name)]


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
            options["camera_id"] = 0  # "track": Gymnasium's own stays where it was first, and runners leave it
    env = gym.make(info.gym_id, **options)
    if render:
        if info.mujoco:
            _widen_floor(env.unwrapped.model)  # type: ignore[attr-defined]  # MuJoCo's own
        env = _Frames(env, info, frame_size)
    if info.image:
        env = FrameStackObservation(_GreyFrame(_ActionRepeat(env, info.action_repeat)), stack_size=4)
    elif env.observation_space.dtype == np.float64:
        env = _Float32(env)
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
    by_id = {gym_id: short for short, gym_id in CONTINUOUS_TASKS.items()}
    return by_id.get(spec.id) if spec is not None else None


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


def _widen_floor(model: Any) -> None:
    """Draw ten times as much floor: a cheetah leaves it after ten seconds. To physics a plane is infinite anyway."""
    planes = np.flatnonzero(model.geom_type == 0)  # mjGEOM_PLANE
    model.geom_size[planes, :2] *= 10
    model.mat_texrepeat[np.unique(model.geom_matid[planes])] *= 10


class _Float32(gym.ObservationWrapper):
    """Observations cast to float32 (Gymnasium's DtypeObservation warns about the precision of infinity)."""

    def __init__(self, env: gym.Env):
        super().__init__(env)
        assert isinstance(env.observation_space, spaces.Box)
        low, high = (bound.astype(np.float32) for bound in (env.observation_space.low, env.observation_space.high))
        self.observation_space = spaces.Box(low, high, dtype=np.float32)

    def observation(self, observation: np.ndarray) -> np.ndarray:
        return observation.astype(np.float32)


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


class _GreyFrame(gym.ObservationWrapper):
    """Grey 64 × 64 frames of CarRacing without the dashboard (its bottom 12 rows)."""

    def __init__(self, env: gym.Env):
        super().__init__(env)
        self.observation_space = spaces.Box(0, 255, (64, 64), np.uint8)

    def observation(self, observation: np.ndarray) -> np.ndarray:
        road = Image.fromarray(observation[:84, 6:90]).convert("L")
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
