"""The seven continuous tasks of the ProtoSAC paper: all that is true of one stands in its record."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np


class FlatMap(NamedTuple):
    """A map of a task's states that needs no projection: what its two axes are."""

    labels: tuple[str, str]
    project: Callable[[np.ndarray], np.ndarray]  # observations (N, n) → (N, 2)


@dataclass(frozen=True)
class TaskInfo:
    """What is true of one task.

    Attributes:
        name: short name, e.g. ``"hopper"``.
        gym_id: Gymnasium id.
        action_names: what each action dimension drives.
        observation_names: what each observation dimension measures; empty for images.
        frame_size: (width, height) in pixels that frames are shown at, in the proportions of the task's own.
        frame_margin: share of a frame's width that is always empty, on each side.
        image: whether observations are images, (4, 64, 64) uint8: the last four frames, grey.
        action_repeat: environment steps an action is held for.
        mujoco: whether the task runs in MuJoCo.
        camera: MuJoCo: number of the model's camera; 0 follows the body here, -1 is free, for a model without one.
        restore: puts the simulator into the state behind an observation (n,); None: it has no such entrance.
        caption: the few numbers of a state that a still picture can't show, from its numbers by name.
        speeds: what speeds in captions are measured in, where that is no unit anybody knows.
        flat_map: None: states are mapped by their latent components.
    """

    name: str
    gym_id: str
    action_names: tuple[str, ...]
    observation_names: tuple[str, ...]
    frame_size: tuple[int, int] = (240, 240)  # MuJoCo renders in software, so small
    frame_margin: float = 0.0
    image: bool = False
    action_repeat: int = 1
    mujoco: bool = False
    camera: int = 0
    restore: Callable[[Any, np.ndarray], None] | None = None
    caption: Callable[[Mapping[str, float]], str] | None = None
    speeds: str = ""
    flat_map: FlatMap | None = None

    @property
    def title(self) -> str:
        """How it is written for people."""
        return self.gym_id.partition("-v")[0].removesuffix("Continuous")


def signed(value: float, digits: int) -> str:
    """A number with its sign, for captions."""
    return f"{round(value, digits) + 0.0:+.{digits}f}"  # + 0.0: no "-0.0"


def _forward(speed: str, numbers: Mapping[str, float]) -> str:
    return f"forward {signed(numbers[speed], 1)} m/s"


def _set_state(hidden: int, simulator: Any, observation: np.ndarray) -> None:
    """MuJoCo: the first ``hidden`` coordinates, the place on an endless track or plane, are observed by nobody."""
    state = np.concatenate([np.zeros(hidden), observation])
    positions, velocities = simulator.model.nq, simulator.model.nv
    simulator.set_state(state[:positions], state[positions : positions + velocities])


def _mujoco(
    name: str, gym_id: str, actions: tuple[str, ...], observations: tuple[str, ...], *, hidden: int, speed: str,
    **facts: Any,
) -> TaskInfo:  # fmt: skip
    """A MuJoCo task.

    Args:
        hidden: how many of the first coordinates of ``qpos`` the observation leaves out.
        speed: the observation that says how fast it gets on.
    """
    restore, caption = partial(_set_state, hidden), partial(_forward, speed)
    return TaskInfo(name, gym_id, actions, observations, mujoco=True, restore=restore, caption=caption, **facts)


def _restore_pendulum(simulator: Any, observation: np.ndarray) -> None:
    cos, sin, velocity = observation
    simulator.state = np.array([np.arctan2(sin, cos), velocity])


def _restore_mountaincar(simulator: Any, observation: np.ndarray) -> None:
    simulator.state = observation


def _pendulum_caption(numbers: Mapping[str, float]) -> str:
    angle = np.degrees(np.arctan2(numbers["sin angle"], numbers["cos angle"]))
    return f"{signed(angle, 0)}°, {signed(numbers['angular velocity'], 1)} rad/s"


def _names(prefixes: tuple[str, ...], *suffixes: str) -> tuple[str, ...]:
    return tuple(f"{prefix} {suffix}" for prefix in prefixes for suffix in suffixes)


def _planar(name: str, gym_id: str, joints: tuple[str, ...]) -> TaskInfo:
    """A MuJoCo task whose body moves in a plane."""
    root = ("forward velocity", "vertical velocity", "torso angular velocity")
    posture = ("torso height", "torso angle", *_names(joints, "angle"))
    observed = (*posture, *root, *_names(joints, "angular velocity"))
    return _mujoco(name, gym_id, _names(joints, "torque"), observed, hidden=1, speed="forward velocity")


_CHEETAH_JOINTS = _names(("back", "front"), "thigh", "shin", "foot")
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
_INERTIA = (
    "mass", "com x", "com y", "com z", "inertia xx", "inertia yy", "inertia zz", "inertia xy", "inertia xz",
    "inertia yz",
)  # fmt: skip
_AXES = ("x", "y", "z")
# The 348 entries of Humanoid-v5: qpos, qvel, cinert, cvel, qfrc_actuator, cfrc_ext (world body left out).
_HUMANOID_OBSERVATIONS = (
    "torso height",
    *_names(("torso orientation",), "w", *_AXES),
    *_names(_HUMANOID_JOINTS, "angle"),
    *_names(("torso velocity", "torso angular velocity"), *_AXES),
    *_names(_HUMANOID_JOINTS, "angular velocity"),
    *_names(_HUMANOID_BODIES, *_INERTIA),
    *_names(_HUMANOID_BODIES, *_names(("com angular velocity", "com velocity"), *_AXES)),
    *_names(_HUMANOID_JOINTS, "motor force"),
    *_names(_HUMANOID_BODIES, *_names(("contact torque", "contact force"), *_AXES)),
)

# In the order of the original project's numeric ``--environment 0..6``.
_TASKS = (
    TaskInfo(
        "pendulum",
        "Pendulum-v1",
        ("torque",),
        ("cos angle", "sin angle", "angular velocity"),
        frame_size=(300, 300),
        frame_margin=0.21,
        restore=_restore_pendulum,
        caption=_pendulum_caption,
        flat_map=FlatMap(
            ("angle from upright (degrees)", "angular velocity (rad/s)"),
            lambda o: np.stack([np.degrees(np.arctan2(o[:, 1], o[:, 0])), o[:, 2]], 1),
        ),
    ),
    TaskInfo(
        "lunarlander",
        "LunarLanderContinuous-v3",
        ("main engine", "side engines"),
        ("x", "y", "velocity x", "velocity y", "angle", "angular velocity", "left leg contact", "right leg contact"),
        frame_size=(360, 240),
        caption=lambda n: f"speed x {signed(n['velocity x'], 2)}, y {signed(n['velocity y'], 2)}",
        speeds="in the observation's units",
    ),
    TaskInfo(
        "mountaincar",
        "MountainCarContinuous-v0",
        ("force",),
        ("position", "velocity"),
        frame_size=(360, 240),
        restore=_restore_mountaincar,
        caption=lambda n: f"speed {signed(1000 * n['velocity'], 0)} · 10⁻³",
        speeds="track units a step",
        flat_map=FlatMap(("position", "velocity (a step)"), lambda o: o),
    ),
    _planar("halfcheetah", "HalfCheetah-v5", _CHEETAH_JOINTS),
    _mujoco(
        "humanoid",
        "Humanoid-v5",
        _names(_HUMANOID_MOTORS, "torque"),
        _HUMANOID_OBSERVATIONS,
        hidden=2,
        speed="torso velocity x",
    ),
    _planar("hopper", "Hopper-v5", _HOPPER_JOINTS),
    TaskInfo(
        "carracing",
        "CarRacing-v3",
        ("steering", "gas", "brake"),
        (),
        frame_size=(360, 240),
        image=True,
        action_repeat=4,
    ),
)
TASKS: dict[str, TaskInfo] = {task.name: task for task in _TASKS}
