"""An agent's settings and spaces as JSON, and back: what config.json holds. No other name in it is looked up."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from gymnasium import spaces
from stable_baselines3 import SAC as SB3SAC
from stable_baselines3.common.noise import ActionNoise, NormalActionNoise, OrnsteinUhlenbeckActionNoise
from stable_baselines3.common.utils import ConstantSchedule, FloatSchedule, LinearSchedule, TrainFreq
from torch import nn

from ...common.errors import InterpError
from ...envs.tasks import TASKS
from .checks import check_settings
from .vision import SmallCNN

if TYPE_CHECKING:
    from .base import RunFolderSAC

CONFIG, WEIGHTS = "config.json", "policy.safetensors"
# What config.json holds of an agent's settings, ProtoSAC's own between the two: most as they are.
_FIRST_FIELDS = (
    "buffer_size", "learning_starts", "batch_size", "tau", "gamma", "gradient_steps", "n_steps", "ent_coef",
    "target_update_interval", "target_entropy",
)  # fmt: skip
_LAST_FIELDS = (
    "policy", "learning_rate", "action_noise", "train_freq", "use_sde", "sde_sample_freq", "policy_kwargs",
)  # fmt: skip
_POLICY_FIELDS = ("net_arch", "n_critics", "share_features_extractor", "normalize_images")
_ACTIVATIONS = (
    nn.ReLU, nn.Tanh, nn.ELU, nn.GELU, nn.LeakyReLU, nn.SiLU, nn.Mish, nn.SELU, nn.CELU, nn.ReLU6, nn.Sigmoid,
    nn.Softplus, nn.Softsign, nn.Hardtanh, nn.Hardswish, nn.Identity,
)  # fmt: skip
# In config.json by their names; no other name is looked up.
_CLASSES: dict[str, dict[str, Any]] = {
    "activation_fn": {cls.__name__: cls for cls in _ACTIVATIONS},
    "features_extractor_class": {"SmallCNN": SmallCNN},
}
_NOISES: dict[str, Any] = {"ou": OrnsteinUhlenbeckActionNoise, "normal": NormalActionNoise}


def make_noise(text: str | None, action_dim: int | tuple[int, ...]) -> ActionNoise | None:
    """Action noise from its name: ``"ou_0.5"`` (Ornstein-Uhlenbeck, σ = 0.5), ``"normal_0.1"`` or None.

    Raises:
        InterpError: another text.
    """
    if text is None:
        return None
    try:
        kind, _, sigma = str(text).partition("_")
        if not 0 <= float(sigma) < math.inf:
            raise ValueError
        return _NOISES[kind](np.zeros(action_dim), float(sigma) * np.ones(action_dim))
    except (KeyError, ValueError) as error:
        raise InterpError(f"unknown action noise '{text}'. Examples: ou_0.5, normal_0.1.") from error


def _noise_name(noise: Any) -> str | None:
    if noise is None:
        return None
    for kind, cls in _NOISES.items():
        if type(noise) is cls and np.all(noise._mu == 0) and len(set(np.ravel(noise._sigma))) == 1:
            return f"{kind}_{float(np.ravel(noise._sigma)[0])}"
    raise InterpError("only zero-mean Normal or Ornstein-Uhlenbeck action noise can be released. Use save() instead.")


def make_schedule(value: float | str) -> float | LinearSchedule:
    """Learning rate from a number, or from ``"lin_7.3e-4"``: linear from there to 0 (RL Zoo's notation).

    Raises:
        InterpError: another text, or not above 0.
    """
    try:
        start = float(value.removeprefix("lin_")) if isinstance(value, str) else float(value)
    except ValueError as error:
        raise InterpError(f"unknown learning rate '{value}'. Examples: 3e-4, lin_7.3e-4.") from error
    if not 0 < start < math.inf:
        raise InterpError(f"the learning rate is {value}; it must be above 0.")
    return LinearSchedule(start, 0.0, 1.0) if isinstance(value, str) and value.startswith("lin_") else start


def _schedule_name(rate: Any) -> float | str:
    if isinstance(rate, FloatSchedule):
        rate = rate.value_schedule
    if isinstance(rate, ConstantSchedule):
        rate = rate.val
    if isinstance(rate, LinearSchedule) and rate.end == 0.0 and rate.end_fraction == 1.0:
        return f"lin_{rate.start}"
    if isinstance(rate, (int, float)):
        return float(rate)
    raise InterpError("only a number or make_schedule('lin_…') can be released as learning rate. Use save() instead.")


def _frequency(value: Any) -> tuple[int, str]:
    count, unit = value if isinstance(value, list) else (value, "step")
    if not is_count(count) or count < 1 or unit not in ("step", "episode"):
        raise ValueError(f"train_freq {value!r:.80}")
    return count, unit


def _policy_kwargs(kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments that :func:`_named_policy_kwargs` was written from."""
    if not set(kwargs) <= {*_POLICY_FIELDS, *_CLASSES}:
        raise ValueError(f"policy_kwargs {sorted(kwargs)!r:.80}")
    for field in ("share_features_extractor", "normalize_images"):
        if not isinstance(kwargs.get(field, False), bool):
            raise ValueError(f"{field} {kwargs[field]!r:.80}")
    widths = [*_net_arch(kwargs, "pi"), *_net_arch(kwargs, "qf"), kwargs.get("n_critics", 2)]
    if not all(is_count(width) and width for width in widths):
        raise ValueError("net_arch or n_critics is not of whole numbers above 0")
    return kwargs | {field: classes[kwargs[field]] for field, classes in _CLASSES.items() if field in kwargs}


def _named_policy_kwargs(kwargs: dict[str, Any]) -> dict[str, Any]:
    kwargs = {name: value for name, value in kwargs.items() if name not in ("use_sde", "optimizer_kwargs")}
    if unknown := set(kwargs) - {*_POLICY_FIELDS, *_CLASSES}:
        raise InterpError(f"policy_kwargs {sorted(unknown)} can't be released as a run folder. Use save() instead.")
    for field, classes in _CLASSES.items():
        if field in kwargs:
            name = kwargs[field].__name__
            if classes.get(name) is not kwargs[field]:
                raise InterpError(f"{field} {name} is none of {', '.join(classes)}. Use save() instead.")
            kwargs[field] = name
    return kwargs


# Settings that JSON can't hold as they are → to JSON, and from it, given the action space.
_CONVERTED: dict[str, tuple[Callable[[Any], Any], Callable[[Any, spaces.Box], Any]]] = {
    "learning_rate": (_schedule_name, lambda value, _: make_schedule(value)),
    "action_noise": (_noise_name, lambda value, space: make_noise(value, space.shape)),
    "train_freq": (
        lambda freq: [freq.frequency, freq.unit.value] if isinstance(freq, TrainFreq) else freq,
        lambda value, _: _frequency(value),
    ),
    "policy_kwargs": (_named_policy_kwargs, lambda value, _: _policy_kwargs(value)),
}


def hyperparameters(agent: RunFolderSAC) -> dict[str, Any]:
    """Everything needed to build the agent again, JSON-able; InterpError where a setting isn't."""
    values = {name: getattr(agent, name) for name in (*_FIRST_FIELDS, *agent.extra_fields, *_LAST_FIELDS)}
    values["policy"] = "CnnPolicy" if len(agent.observation_space.shape or ()) == 3 else "MlpPolicy"
    # An agent from Stable-Baselines3's own zip has its class of policy, with the same weights.
    if agent.policy_class not in (agent.policy_aliases[values["policy"]], SB3SAC.policy_aliases[values["policy"]]):
        usual = "MlpPolicy or CnnPolicy"
        raise InterpError(f"only agents with {usual} can be released as a run folder. Use save() instead.")
    values |= {name: to_json(values[name]) for name, (to_json, _) in _CONVERTED.items()}
    try:
        return json.loads(json.dumps(values))
    except TypeError as error:
        raise InterpError(f"a setting of this agent can't be released: {error}. Use save() instead.") from error


def arguments(values: dict[str, Any], extra: tuple[str, ...], action_space: spaces.Box) -> tuple[str, dict[str, Any]]:
    """The policy name and keyword arguments that :func:`hyperparameters` was written from; ``extra``: the agent's own.

    Raises ValueError, TypeError, LookupError or InterpError where one is missing, not known or of the wrong kind.
    """
    if "space" in extra:  # runs from before there was a choice
        values = {"space": "encoder", "metric_weight": 0.0} | values
        values = {"gaussian_rate": 1.0, "initial_temperature": 0.0} | values
    if odd := {*_FIRST_FIELDS, *extra, *_LAST_FIELDS}.symmetric_difference(values):
        raise ValueError(f"hyperparameters lacks or should not hold {', '.join(sorted(odd))}")
    found = values | {"policy_kwargs": dict(values["policy_kwargs"])}
    policy = found.pop("policy")
    if policy not in ("MlpPolicy", "CnnPolicy"):
        raise ValueError(f"policy {policy!r:.80}")
    check_settings(found)
    return policy, found | {name: back(found[name], action_space) for name, (_, back) in _CONVERTED.items()}


def _net_arch(policy_kwargs: dict[str, Any], part: str) -> list[int]:
    """The hidden layers of the actor (``"pi"``) or of a critic (``"qf"``)."""
    arch = policy_kwargs.get("net_arch")
    if arch is None:
        return [256, 256]
    layers = arch[part] if isinstance(arch, dict) else arch
    if not isinstance(layers, list):
        raise ValueError(f"net_arch {arch!r:.80}")
    return layers


def least_weights(policy: str, given: dict[str, Any], observation_space: spaces.Box, action_space: spaces.Box) -> int:
    """How many numbers the weights of such an agent have at least (below a CNN's head they are not counted)."""
    kwargs, state = given["policy_kwargs"], math.prod(observation_space.shape)
    entrance = state if policy == "MlpPolicy" else 1
    weights = 0
    encoder = given.get("space") != "observation"
    for part, copies in (("pi", int(encoder)), ("qf", kwargs.get("n_critics", 2))):
        weights += copies * sum(a * b for a, b in pairwise([entrance, *_net_arch(kwargs, part), 1]))
    if "n_prototypes" in given:
        place = given["latent_dim"] if encoder else entrance
        weights += given["n_prototypes"] * (place + state + 2 * math.prod(action_space.shape))
    return weights


def space_to_json(space: spaces.Space) -> dict[str, Any]:
    """A Box as JSON, for :func:`spaces_from_json`."""
    if not isinstance(space, spaces.Box):
        raise InterpError(f"only Box spaces can be released as a run folder, not {type(space).__name__}.")

    def bound(values: np.ndarray) -> Any:
        # JSON has no infinity, and the bounds of images are all the same.
        flat = [str(v) if not np.isfinite(v) else float(v) for v in values.ravel()]
        return flat[0] if len(set(flat)) == 1 else flat

    return {"low": bound(space.low), "high": bound(space.high), "shape": list(space.shape), "dtype": str(space.dtype)}


def spaces_from_json(value: dict[str, Any], most: int) -> tuple[spaces.Box, spaces.Box]:
    """Observation and action space of at most ``most`` numbers each; ValueError, TypeError or KeyError for others."""
    observation, action = (_space_from_json(value[name], most) for name in ("observation", "action"))
    if not (np.isfinite(action.low).all() and np.isfinite(action.high).all() and (action.low < action.high).all()):
        raise ValueError("the bounds of actions")
    return observation, action


def _space_from_json(value: dict[str, Any], most: int) -> spaces.Box:
    shape, dtype = tuple(value["shape"]), np.dtype(value["dtype"])
    if not all(is_count(size) and size for size in shape) or math.prod(shape) > most or dtype.kind not in "fiu":
        raise ValueError(f"a space of shape {shape!r:.80}, {dtype}")

    def bound(values: Any) -> np.ndarray:
        flat = [float(v) for v in values] if isinstance(values, list) else [float(values)] * math.prod(shape)
        return np.array(flat, dtype=dtype).reshape(shape)

    low, high = bound(value["low"]), bound(value["high"])
    if not (low <= high).all():
        raise ValueError("the bounds of a space")
    return spaces.Box(low, high, shape, dtype.type)


def check_config(config: Any, source: Path, algorithm: str | None = None) -> None:
    """Check what every reader of a config relies on, and that it is of ``algorithm``, where one is given.

    Raises:
        InterpError: it describes no run, one of another algorithm, or lacks something.
    """
    if not isinstance(config, dict) or not {"format", "algorithm", "env", "hyperparameters"} <= set(config):
        raise InterpError(f"{source} does not describe a run. Restore it or train the run again.")
    if config["format"] != 1:
        found = f"format {config['format']!r:.80}"
        raise InterpError(f"{source} has {found}; this version reads format 1. Update interp-lib.")
    if algorithm is not None and config["algorithm"] != algorithm:
        raise InterpError(
            f"{source} holds a {config['algorithm']!s:.80} run, not {algorithm}. Load it with interp_lib.load_agent."
        )
    for name, fine, problem in (
        ("env", lambda env: isinstance(env, str), "env is not a name"),
        ("seed", lambda seed: seed is None or is_count(seed), "seed is not a whole number"),
        ("timesteps", is_count, "timesteps is not a whole number"),
        ("spaces", lambda found: isinstance(found, dict), "spaces are missing"),
        ("hyperparameters", lambda found: isinstance(found, dict), "hyperparameters are not a table"),
    ):
        if not fine(config.get(name)):
            raise InterpError(f"{source} is damaged ({problem}). Restore it or train the run again.")


def is_count(value: Any) -> bool:
    """Whether ``value`` is a whole number of at least 0, and in 63 bits."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def check_fits(task: str | None, observation_space: spaces.Space, action_space: spaces.Space, whose: str) -> None:
    """Refuse spaces that are not those of the task an agent names; an environment that is none of ours has any."""
    if task not in TASKS:
        return
    info = TASKS[task]
    expected = (4, 64, 64) if info.image else (len(info.observation_names),), (len(info.action_names),)
    found = observation_space.shape, action_space.shape
    if found != expected:
        raise InterpError(
            f"{whose} the task {task}, whose observations and actions have shapes {expected[0]} and {expected[1]}, "
            f"not {found[0]} and {found[1]}. An environment that was changed needs another name: save_run(env=…)."
        )
