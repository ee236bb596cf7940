"""Release an agent as a run folder: config.json and policy.safetensors, nothing that needs unpickling."""

from __future__ import annotations

import json
import math
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3 import SAC as SB3SAC
from stable_baselines3.common.noise import NormalActionNoise, OrnsteinUhlenbeckActionNoise
from stable_baselines3.common.type_aliases import GymEnv
from stable_baselines3.common.utils import ConstantSchedule, FloatSchedule, LinearSchedule, TrainFreq
from torch import nn

from ...common.errors import InterpError
from ...common.storage import load_state, read_json, read_tensors, refuse_nonfinite, write_json, write_tensors
from ...envs.continuous import TASKS, make_task, task_of
from ...envs.names import CONTINUOUS_TASKS
from .checks import check_settings, enough_memory
from .vision import SmallCNN

CONFIG, WEIGHTS = "config.json", "policy.safetensors"
_SAC_FIELDS = (
    "buffer_size", "learning_starts", "batch_size", "tau", "gamma", "gradient_steps", "n_steps", "ent_coef",
    "target_update_interval", "target_entropy",
)  # fmt: skip
_CONVERTED_FIELDS = (
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


if TYPE_CHECKING:
    _MixedInto = SB3SAC
else:
    _MixedInto = object


class RunFolderMixin(_MixedInto):
    """``save_run`` and ``load_run`` for SAC-like Stable-Baselines3 algorithms."""

    algorithm: ClassVar[str]
    extra_fields: ClassVar[tuple[str, ...]] = ()
    task: str | None = None  # short name (or id) of the environment, once known
    seconds_trained: float = 0.0
    _deferred_buffer_size: int | None = None
    _learned_with: dict[str, Any] | None = None  # provenance of the code that trains, taken when it began

    def save_run(self, run_dir: Path | str, *, env: str | None = None) -> Path:
        """Write ``config.json`` and ``policy.safetensors`` (float32) into ``run_dir``.

        Args:
            run_dir: created if missing; files of the same names are replaced.
            env: short name of the task, when it can't be read off the agent's environment.

        Returns:
            ``run_dir`` as a Path.

        Raises:
            InterpError: a setting can't be written as JSON, the environment is unknown, or the disk refuses.
        """
        run_dir = Path(run_dir)
        self.task = env or self.task or _env_name(self.env)
        if self.task is None:
            raise InterpError("the agent does not know its environment. Pass env='name of the task' to save_run.")
        _check_fits(self.task, self.observation_space, self.action_space, "the agent calls its environment")
        config = self._config()
        # Targets only matter to training, and start as copies of the critics.
        tensors = {n: t for n, t in self.policy.state_dict().items() if not n.startswith("critic_target.")}
        if self.log_ent_coef is not None:
            tensors["log_ent_coef"] = self.log_ent_coef
        write_tensors(run_dir / WEIGHTS, tensors)
        write_json(run_dir / CONFIG, config)
        return run_dir

    @classmethod
    def load_run(cls, run_dir: Path | str, env: GymEnv | None = None, device: torch.device | str = "auto") -> Self:
        """Rebuild the agent of a run folder; neither pickles nor an environment are involved.

        The result predicts and explains at once. To train it further give ``env`` (or ``set_env`` later): targets
        are copies of the critics then, and the replay buffer is empty. Interrupted training is resumed from its
        own run folder instead (training.train_run).

        Raises:
            InterpError: not a run folder, another algorithm's, damaged, or not made for ``env``.
        """
        run_dir = Path(run_dir)
        config = read_json(run_dir / CONFIG)
        check_config(config, run_dir / CONFIG, cls.algorithm)
        if env is not None and _env_name(env) not in (None, config["env"]):
            raise InterpError(f"{run_dir} was trained on {config['env']}, not on {_env_name(env)}. Choose another run.")
        tensors = read_tensors(run_dir / WEIGHTS)
        refuse_nonfinite(tensors, run_dir / WEIGHTS)
        agent = cls._rebuild(config, run_dir / CONFIG, sum(t.numel() for t in tensors.values()), device)

        log_ent_coef = tensors.pop("log_ent_coef", None)
        targets = {n.replace("critic.", "critic_target.", 1): t for n, t in tensors.items() if n.startswith("critic.")}
        load_state(agent.policy, tensors | targets, run_dir / WEIGHTS)
        if log_ent_coef is not None and agent.log_ent_coef is not None:
            agent.log_ent_coef.data.copy_(log_ent_coef)
        agent.policy.set_training_mode(False)
        if env is not None:
            agent.set_env(env)
        return agent

    @classmethod
    def _rebuild(cls, config: dict[str, Any], source: Path, most_weights: int, device: torch.device | str) -> Self:
        """The untrained agent that a config describes; its replay buffer waits for :meth:`_setup_learn`.

        Args:
            config: checked by :func:`check_config`.
            source: the file it comes from.
            most_weights: how many numbers its weights' file holds. A config that asks for more is refused before
                anything is allocated.

        Raises:
            InterpError: the config is damaged.
        """
        try:
            observation_space, action_space = _spaces_from_json(config["spaces"], 16 * most_weights)
            fields = {*_SAC_FIELDS, *_CONVERTED_FIELDS, *cls.extra_fields}
            if odd := fields.symmetric_difference(config["hyperparameters"]):
                raise ValueError(f"hyperparameters lacks or should not hold {', '.join(sorted(odd))}")
            policy, arguments = _arguments(config["hyperparameters"], action_space)
            if _least_weights(cls.algorithm, policy, arguments, observation_space, action_space) > most_weights:
                raise InterpError(f"{source} does not fit this agent's weights: it describes a larger one. Restore it.")
            # Without its seed: SB3 would reset the caller's random generators. The initial weights are thrown away.
            # As SB3's own load() builds agents; it annotates an environment all the same.
            agent = cls(policy, None, device=device, _init_setup_model=False, **arguments)  # type: ignore[arg-type]
            agent.observation_space, agent.action_space = observation_space, action_space
            agent.n_envs, agent.task = 1, config["env"]
            # The replay buffer may be gigabytes that prediction never needs: see _setup_learn.
            check_settings({"buffer_size": agent.buffer_size})
            agent._deferred_buffer_size, agent.buffer_size = agent.buffer_size, 1
            if agent.target_entropy == "auto":
                agent.target_entropy = -float(np.prod(action_space.shape))
            with torch.random.fork_rng(devices=[]):
                agent._setup_model()
        except (LookupError, TypeError, ValueError, AssertionError, OverflowError, RuntimeError) as error:
            message = f"{source} is damaged ({error!r:.200}). Restore it or train the run again."
            raise InterpError(message) from error
        except InterpError as error:
            raise InterpError(str(error) if str(source) in str(error) else f"{source}: {error}") from error
        _check_fits(agent.task, observation_space, action_space, f"{source} names")
        agent.seed, agent.num_timesteps = config["seed"], config["timesteps"]
        return agent

    def _config(self) -> dict[str, Any]:
        """What config.json holds."""
        from ...common.provenance import provenance

        return {
            "format": 1,
            "algorithm": self.algorithm,
            "env": self.task,
            "seed": self.seed,
            "timesteps": self.num_timesteps,
            "hyperparameters": _hyperparameters(self),
            "spaces": {
                "observation": _space_to_json(self.observation_space),
                "action": _space_to_json(self.action_space),
            },
            # The code that trained is the one loaded when learning began, whatever is checked out by now.
            "provenance": self._learned_with or provenance(),
        }

    def set_env(self, env: GymEnv, force_reset: bool = True) -> None:
        """Stable-Baselines3's ``set_env``; after ``load_run`` any number of environments will do."""
        if self._deferred_buffer_size is not None:  # nothing depends on their number yet
            env = self._wrap_env(env, self.verbose)
            self.n_envs = env.num_envs
        super().set_env(env, force_reset)

    def load_replay_buffer(self, path: Any, truncate_last_traj: bool = True) -> None:
        """Stable-Baselines3's ``load_replay_buffer`` of one's own file, which unpickles it."""
        super().load_replay_buffer(path, truncate_last_traj)
        if self._deferred_buffer_size is not None:  # or learn would make an empty one in its place
            assert self.replay_buffer is not None
            self.buffer_size, self._deferred_buffer_size = self._deferred_buffer_size, None
            if self.env is None:
                self.n_envs = self.replay_buffer.n_envs

    def _setup_learn(self, *args: Any, **kwargs: Any) -> Any:
        if self._learned_with is None:
            from ...common.provenance import provenance

            self._learned_with = provenance()
        self._make_deferred_buffer()
        return super()._setup_learn(*args, **kwargs)

    def _make_deferred_buffer(self) -> None:
        if self._deferred_buffer_size is None:
            return
        assert self.replay_buffer_class is not None
        with enough_memory(self._deferred_buffer_size):
            self.replay_buffer = self.replay_buffer_class(
                self._deferred_buffer_size,
                self.observation_space,
                self.action_space,
                device=self.device,
                n_envs=self.n_envs,
                **self.replay_buffer_kwargs,
            )
        self.buffer_size, self._deferred_buffer_size = self._deferred_buffer_size, None

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "_learned_with"]  # who resumes learns with the code of that day

    @classmethod
    def load(cls, path: Any, env: GymEnv | None = None, *args: Any, **kwargs: Any) -> Self:
        """Stable-Baselines3's ``load`` of one's own zip; another environment's is reported in one line.

        Raises:
            InterpError: ``env`` has other spaces than the agent was trained with.
        """
        given = kwargs.pop("policy_kwargs", None)  # SB3 compares them with those in the file, which say more (save)
        try:
            agent = super().load(path, env, *args, **kwargs)
        except ValueError as error:
            if "spaces do not match" in str(error):
                raise InterpError(f"{path} was trained on another environment: {error}.") from error
            raise
        if given is not None and given != agent.policy_kwargs:
            raise ValueError(f"the policy kwargs are {agent.policy_kwargs} in {path}, not {given}.")
        return agent


def make_noise(
    text: str | None, action_dim: int | tuple[int, ...]
) -> NormalActionNoise | OrnsteinUhlenbeckActionNoise | None:
    """Action noise from its name: ``"ou_0.5"`` (Ornstein-Uhlenbeck, σ = 0.5), ``"normal_0.1"`` or None.

    Raises:
        InterpError: another text.
    """
    if text is None:
        return None
    makers = {"ou": OrnsteinUhlenbeckActionNoise, "normal": NormalActionNoise}
    try:
        kind, _, sigma = str(text).partition("_")
        if not 0 <= float(sigma) < math.inf:
            raise ValueError
        return makers[kind](np.zeros(action_dim), float(sigma) * np.ones(action_dim))
    except (KeyError, ValueError) as error:
        raise InterpError(f"unknown action noise '{text}'. Examples: ou_0.5, normal_0.1.") from error


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


def _env_name(env: Any) -> str | None:
    task = task_of(env)
    if task is None and env is not None:
        inner = env.envs[0] if hasattr(env, "envs") else env
        return getattr(getattr(inner, "spec", None), "id", None)
    return task


def check_config(config: Any, source: Path, algorithm: str | None = None) -> None:
    """Check what every reader of a config relies on, and that it is of ``algorithm``, where one is given.

    Raises:
        InterpError: it describes no run, one of another algorithm, or lacks something.
    """
    if not isinstance(config, dict) or not {"format", "algorithm", "env", "hyperparameters"} <= set(config):
        raise InterpError(f"{source} does not describe a run. Restore it or train the run again.")
    if config["format"] != 1:
        raise InterpError(
            f"{source} has format {config['format']!r:.80}; this version reads format 1. Update interp-lib."
        )
    if algorithm is not None and config["algorithm"] != algorithm:
        raise InterpError(
            f"{source} holds a {config['algorithm']!s:.80} run, not {algorithm}. Load it with interp_lib.load_agent."
        )
    seed, steps, settings = config.get("seed"), config.get("timesteps"), config["hyperparameters"]
    problems = [
        *(["env is not a name"] if not isinstance(config["env"], str) else []),
        *(["seed is not a whole number"] if not (seed is None or _is_count(seed)) else []),
        *(["timesteps is not a whole number"] if not _is_count(steps) else []),
        *(["spaces are missing"] if not isinstance(config.get("spaces"), dict) else []),
        *(["hyperparameters are not a table"] if not isinstance(settings, dict) else []),
    ]
    if problems:
        raise InterpError(f"{source} is damaged ({problems[0]}). Restore it or train the run again.")


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def _check_fits(task: str | None, observation_space: spaces.Space, action_space: spaces.Space, whose: str) -> None:
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


def _hyperparameters(agent: RunFolderMixin) -> dict[str, Any]:
    """Everything needed to build the agent again, JSON-able."""
    values = {name: getattr(agent, name) for name in (*_SAC_FIELDS, *agent.extra_fields)}
    values["buffer_size"] = getattr(agent, "_deferred_buffer_size", None) or values["buffer_size"]
    values["policy"] = "CnnPolicy" if len(agent.observation_space.shape or ()) == 3 else "MlpPolicy"
    if agent.policy_class is not agent.policy_aliases[values["policy"]]:
        raise InterpError(
            "only agents with MlpPolicy or CnnPolicy can be released as a run folder. Use save() instead."
        )
    values["learning_rate"] = _schedule_to_json(agent.learning_rate)
    values["action_noise"] = _noise_to_json(agent.action_noise)
    frequency = agent.train_freq
    values["train_freq"] = (
        [frequency.frequency, frequency.unit.value] if isinstance(frequency, TrainFreq) else frequency
    )
    values["use_sde"], values["sde_sample_freq"] = agent.use_sde, agent.sde_sample_freq
    values["policy_kwargs"] = _policy_kwargs_to_json(agent.policy_kwargs)
    try:
        return json.loads(json.dumps(values))
    except TypeError as error:
        raise InterpError(f"a setting of this agent can't be released: {error}. Use save() instead.") from error


def _arguments(hyperparameters: dict[str, Any], action_space: spaces.Box) -> tuple[str, dict[str, Any]]:
    """The policy name and keyword arguments that :func:`_hyperparameters` was written from.

    Raises:
        ValueError, TypeError, KeyError, InterpError: one is of the wrong kind.
    """
    arguments = dict(hyperparameters)
    policy, kwargs = arguments.pop("policy"), dict(arguments["policy_kwargs"])
    if policy not in ("MlpPolicy", "CnnPolicy"):
        raise ValueError(f"policy {policy!r:.80}")
    check_settings(arguments)
    arguments["learning_rate"] = make_schedule(arguments["learning_rate"])
    arguments["action_noise"] = make_noise(arguments["action_noise"], action_space.shape)
    frequency = arguments["train_freq"]
    count, unit = frequency if isinstance(frequency, list) else (frequency, "step")
    if not _is_count(count) or count < 1 or unit not in ("step", "episode"):
        raise ValueError(f"train_freq {frequency!r:.80}")
    arguments["train_freq"] = (count, unit)
    if not set(kwargs) <= {*_POLICY_FIELDS, *_CLASSES}:
        raise ValueError(f"policy_kwargs {sorted(kwargs)!r:.80}")
    for field, classes in _CLASSES.items():
        if field in kwargs:
            kwargs[field] = classes[kwargs[field]]
    for field in ("share_features_extractor", "normalize_images"):
        if not isinstance(kwargs.get(field, False), bool):
            raise ValueError(f"{field} {kwargs[field]!r:.80}")
    widths = [*_net_arch(kwargs, "pi"), *_net_arch(kwargs, "qf"), kwargs.get("n_critics", 2)]
    if not all(_is_count(width) and width for width in widths):
        raise ValueError("net_arch or n_critics is not of whole numbers above 0")
    return policy, arguments | {"policy_kwargs": kwargs}


def _net_arch(policy_kwargs: dict[str, Any], part: str) -> list[int]:
    """The hidden layers of the actor (``"pi"``) or of a critic (``"qf"``)."""
    arch = policy_kwargs.get("net_arch")
    if arch is None:
        return [256, 256]
    layers = arch[part] if isinstance(arch, dict) else arch
    if not isinstance(layers, list):
        raise ValueError(f"net_arch {arch!r:.80}")
    return layers


def _least_weights(
    algorithm: str, policy: str, arguments: dict[str, Any], observation_space: spaces.Box, action_space: spaces.Box
) -> int:
    """How many numbers the weights of such an agent have at least (below a CNN's head they are not counted)."""
    kwargs, state = arguments["policy_kwargs"], math.prod(observation_space.shape)
    entrance = state if policy == "MlpPolicy" else 1
    weights = 0
    for part, copies in (("pi", 1), ("qf", kwargs.get("n_critics", 2))):
        weights += copies * sum(a * b for a, b in pairwise([entrance, *_net_arch(kwargs, part), 1]))
    if algorithm == "protosac":
        own = arguments["latent_dim"] + state + 2 * math.prod(action_space.shape)
        weights += arguments["n_prototypes"] * own
    return weights


def _policy_kwargs_to_json(kwargs: dict[str, Any]) -> dict[str, Any]:
    kwargs = {name: value for name, value in kwargs.items() if name not in ("use_sde", "optimizer_kwargs")}
    unknown = set(kwargs) - {*_POLICY_FIELDS, *_CLASSES}
    if unknown:
        raise InterpError(f"policy_kwargs {sorted(unknown)} can't be released as a run folder. Use save() instead.")
    for field, classes in _CLASSES.items():
        if field in kwargs:
            name = kwargs[field].__name__
            if classes.get(name) is not kwargs[field]:
                raise InterpError(f"{field} {name} is none of {', '.join(classes)}. Use save() instead.")
            kwargs[field] = name
    return kwargs


def _schedule_to_json(rate: Any) -> float | str:
    if isinstance(rate, FloatSchedule):
        rate = rate.value_schedule
    if isinstance(rate, ConstantSchedule):
        rate = rate.val
    if isinstance(rate, LinearSchedule) and rate.end == 0.0 and rate.end_fraction == 1.0:
        return f"lin_{rate.start}"
    if isinstance(rate, (int, float)):
        return float(rate)
    raise InterpError("only a number or make_schedule('lin_…') can be released as learning rate. Use save() instead.")


def _noise_to_json(noise: Any) -> str | None:
    if noise is None:
        return None
    for kind, cls in (("ou", OrnsteinUhlenbeckActionNoise), ("normal", NormalActionNoise)):
        if type(noise) is cls and np.all(noise._mu == 0) and len(set(np.ravel(noise._sigma))) == 1:
            return f"{kind}_{float(np.ravel(noise._sigma)[0])}"
    raise InterpError("only zero-mean Normal or Ornstein-Uhlenbeck action noise can be released. Use save() instead.")


def _space_to_json(space: spaces.Space) -> dict[str, Any]:
    if not isinstance(space, spaces.Box):
        raise InterpError(f"only Box spaces can be released as a run folder, not {type(space).__name__}.")

    def bound(values: np.ndarray) -> Any:
        # JSON has no infinity, and the bounds of images are all the same.
        flat = [str(v) if not np.isfinite(v) else float(v) for v in values.ravel()]
        return flat[0] if len(set(flat)) == 1 else flat

    return {"low": bound(space.low), "high": bound(space.high), "shape": list(space.shape), "dtype": str(space.dtype)}


def _spaces_from_json(value: dict[str, Any], most: int) -> tuple[spaces.Box, spaces.Box]:
    """Observation and action space; ``most`` numbers in each."""
    observation, action = (_space_from_json(value[name], most) for name in ("observation", "action"))
    if not (np.isfinite(action.low).all() and np.isfinite(action.high).all() and (action.low < action.high).all()):
        raise ValueError("the bounds of actions")
    return observation, action


def _space_from_json(value: dict[str, Any], most: int) -> spaces.Box:
    shape, dtype = tuple(value["shape"]), np.dtype(value["dtype"])
    if not all(_is_count(size) and size for size in shape) or math.prod(shape) > most or dtype.kind not in "fiu":
        raise ValueError(f"a space of shape {shape!r:.80}, {dtype}")

    def bound(values: Any) -> np.ndarray:
        flat = [float(v) for v in values] if isinstance(values, list) else [float(values)] * math.prod(shape)
        return np.array(flat, dtype=dtype).reshape(shape)

    low, high = bound(value["low"]), bound(value["high"])
    if not (low <= high).all():
        raise ValueError("the bounds of a space")
    return spaces.Box(low, high, shape, dtype.type)


def make_env_of(run_dir: Path | str, **options: Any) -> Any:
    """Make the environment a run was trained on (see envs.continuous.make_task for the options)."""
    name = read_json(Path(run_dir) / CONFIG)["env"]
    if name not in CONTINUOUS_TASKS:
        raise InterpError(f"{run_dir} was trained on {name}, which is none of: {', '.join(CONTINUOUS_TASKS)}.")
    return make_task(name, **options)
