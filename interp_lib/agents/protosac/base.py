"""What SAC and ProtoSAC have in common beside Stable-Baselines3's SAC: mistakes in one line, and run folders.

A run folder is config.json and policy.safetensors, nothing that needs unpickling.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, ClassVar, Self, cast

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3 import SAC as SB3SAC
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.type_aliases import GymEnv
from stable_baselines3.sac.policies import SACPolicy

from ...common import provenance
from ...common.errors import InterpError
from ...common.storage import load_state, read_json, read_tensors, refuse_nonfinite, write_json, write_tensors
from ...envs.continuous import task_of
from .actor import ProtoSACPolicy
from .checks import check_settings, enough_memory, refuse_nan
from .config import (
    CONFIG,
    WEIGHTS,
    arguments,
    check_config,
    check_fits,
    hyperparameters,
    least_weights,
    space_to_json,
    spaces_from_json,
)  # fmt: skip


class RunFolderSAC(SB3SAC):
    """Stable-Baselines3's SAC with ``save_run`` and ``load_run``; what it reports obscurely, or not at all, is a line.

    Raises:
        InterpError: actions are discrete, a setting is out of range, or the policy is none of this algorithm's.
    """

    algorithm: ClassVar[str]
    extra_fields: ClassVar[tuple[str, ...]] = ()
    task: str | None = None  # short name (or id) of the environment, once known
    seconds_trained: float = 0.0
    _learned_with: dict[str, Any] | None = None  # provenance of the code that trains, taken when it began

    def __init__(self, policy: str | type[SACPolicy], env: GymEnv | str | None, *args: Any, **kwargs: Any):
        prototypes = self.algorithm == "protosac"
        if isinstance(policy, type) and issubclass(policy, ProtoSACPolicy) != prototypes:
            right, wrong = ("SAC", "ProtoSAC") if prototypes else ("ProtoSAC", "SAC")
            raise InterpError(f"{policy.__name__} is a policy of {right}, not {wrong}. Use {right}, or {right}.load.")
        if isinstance(policy, str) and policy not in self.policy_aliases:
            raise InterpError(f"unknown policy '{policy!s:.80}'. Choose one of: {', '.join(self.policy_aliases)}.")
        try:
            super().__init__(policy, env, *args, **kwargs)  # type: ignore[arg-type]  # load() leaves env out, in SB3 too
        except AssertionError as error:
            space = getattr(self, "action_space", None)
            if space is None or isinstance(space, spaces.Box):
                raise
            raise InterpError(
                f"{self.algorithm} needs continuous actions (Box), but this environment has {space}. "
                "Choose one of the continuous tasks."
            ) from error

    def _setup_model(self) -> None:
        check_settings(vars(self))
        shape = self.observation_space.shape or ()
        if self.policy_class is self.policy_aliases["CnnPolicy"] and len(shape) != 3:
            raise InterpError(f"CnnPolicy needs images, but observations have shape {shape}. Use MlpPolicy.")
        with enough_memory(self.buffer_size):
            super()._setup_model()

    def predict(self, observation: Any, *args: Any, **kwargs: Any) -> tuple[np.ndarray, Any]:
        """Stable-Baselines3's ``predict``.

        Raises:
            InterpError: the observation holds NaN.
        """
        refuse_nan(observation)
        return super().predict(observation, *args, **kwargs)

    def _store_transition(self, buffer: Any, action: np.ndarray, new_obs: Any, *args: Any) -> None:
        refuse_nan(new_obs)  # before an update draws it from the buffer, and a loss is all that is left to name
        super()._store_transition(buffer, action, new_obs, *args)

    # Run folders

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
        check_fits(self.task, self.observation_space, self.action_space, "the agent calls its environment")
        config = self._config()
        # Targets only matter to training, and start as copies of the critics.
        tensors = {n: t for n, t in self.policy.state_dict().items() if not n.startswith("critic_target.")}
        if self.log_ent_coef is not None:
            tensors["log_ent_coef"] = self.log_ent_coef
        write_tensors(run_dir / WEIGHTS, tensors)
        write_json(run_dir / CONFIG, config)
        return run_dir

    def _config(self) -> dict[str, Any]:
        """What config.json holds."""
        spaces = {"observation": space_to_json(self.observation_space), "action": space_to_json(self.action_space)}
        return {
            "format": 1,
            "algorithm": self.algorithm,
            "env": self.task,
            "seed": self.seed,
            "timesteps": self.num_timesteps,
            "hyperparameters": hyperparameters(self),
            "spaces": spaces,
            # The code that trained is the one loaded when learning began, whatever is checked out by now.
            "provenance": self._learned_with or provenance.provenance(),
        }

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

        A config that is damaged, or asks for more than the ``most_weights`` numbers of its weights' file, is refused
        before anything is allocated.
        """
        try:
            observation_space, action_space = spaces_from_json(config["spaces"], 16 * most_weights)
            policy, options = arguments(config["hyperparameters"], cls.extra_fields, action_space)
            if least_weights(policy, options, observation_space, action_space) > most_weights:
                raise InterpError(f"{source} does not fit this agent's weights: it describes a larger one. Restore it.")
            # Without its seed: SB3 would reset the caller's random generators. The initial weights are thrown away.
            agent = cls(policy, None, device=device, _init_setup_model=False, **options)
            agent.observation_space, agent.action_space = observation_space, action_space
            agent.n_envs, agent.task = 1, config["env"]
            if agent.target_entropy == "auto":
                agent.target_entropy = -float(np.prod(action_space.shape))
            # Where something is in a replay buffer's place SB3 makes none: prediction never needs those gigabytes.
            agent.replay_buffer = cast(Any, "none yet")
            with torch.random.fork_rng(devices=[]):
                agent._setup_model()
            agent.replay_buffer = None
        except (LookupError, TypeError, ValueError, AssertionError, OverflowError, RuntimeError) as error:
            raise InterpError(f"{source} is damaged ({error!r:.200}). Restore it or train the run again.") from error
        except InterpError as error:
            raise InterpError(str(error) if str(source) in str(error) else f"{source}: {error}") from error
        check_fits(agent.task, observation_space, action_space, f"{source} names")
        agent.seed, agent.num_timesteps = config["seed"], config["timesteps"]
        return agent

    # What waits until it is needed

    def set_env(self, env: GymEnv, force_reset: bool = True) -> None:
        """Stable-Baselines3's ``set_env``; after ``load_run`` any number of environments will do."""
        if self.replay_buffer is None:  # nothing depends on their number yet
            env = self._wrap_env(env, self.verbose)
            self.n_envs = env.num_envs
        super().set_env(env, force_reset)

    def load_replay_buffer(self, path: Any, truncate_last_traj: bool = True) -> None:
        """Stable-Baselines3's ``load_replay_buffer`` of one's own file, which unpickles it."""
        first = self.replay_buffer is None
        super().load_replay_buffer(path, truncate_last_traj)
        if first and self.env is None:
            assert self.replay_buffer is not None
            self.n_envs = self.replay_buffer.n_envs

    def _setup_learn(self, *args: Any, **kwargs: Any) -> Any:
        self._learned_with = self._learned_with or provenance.provenance()
        self._make_buffer()
        # Stable-Baselines3 makes a folder in /tmp at each call, also where nothing is logged.
        silent = not (self.verbose or self.tensorboard_log or self._custom_logger or os.getenv("SB3_LOGDIR"))
        if silent:
            self.set_logger(Logger(None, []))
        try:
            return super()._setup_learn(*args, **kwargs)
        finally:
            self._custom_logger = self._custom_logger and not silent

    def _make_buffer(self) -> None:
        if self.replay_buffer is None:
            assert self.replay_buffer_class is not None
            spaces_of_it = self.observation_space, self.action_space
            others = {"device": self.device, "n_envs": self.n_envs, **self.replay_buffer_kwargs}
            with enough_memory(self.buffer_size):
                self.replay_buffer = self.replay_buffer_class(self.buffer_size, *spaces_of_it, **others)

    # Stable-Baselines3's zips

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


def _env_name(env: Any) -> str | None:
    task = task_of(env)
    if task is None and env is not None:
        inner = env.envs[0] if hasattr(env, "envs") else env
        return getattr(getattr(inner, "spec", None), "id", None)
    return task
