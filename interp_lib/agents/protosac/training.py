"""Train SAC or ProtoSAC into a run folder, so that it can be watched, stopped and resumed."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import VecEnv
from tqdm.auto import tqdm

from ...common.acceleration import Compile
from ...common.compute import keep_large_allocations
from ...common.errors import InterpError
from ...common.storage import read_json, remove_temporaries
from ...envs.continuous import make_task_vec
from ...envs.names import continuous_task
from ..learning_curve import ROW_STEPS, ProgressLog
from .callbacks import EVALUATION_COLUMNS, EVALUATIONS, EvaluationLog, VideoLog
from .config import CONFIG, WEIGHTS, check_config, make_noise, make_schedule
from .protosac import SAC, ProtoSAC
from .settings import TaskSettings, prototype_settings, task_settings
from .training_state import MOST_ENVS, read_state, write_state
from .vision import SmallCNN

STATE = "training_state.zip"
_SAVE_EVERY_SECONDS = 600.0
_LOSSES = (
    "actor_loss", "critic_loss", "cluster_loss", "coverage_loss", "separation_loss", "metric_loss",
    "prototypes_per_decision", "prototypes_used",
)  # fmt: skip
COLUMNS = (
    "total_timesteps", "eprewmean", "eplenmean", *_LOSSES[:2], "entropy_coef", *_LOSSES[2:], "fps", "time_elapsed",
)  # fmt: skip
_SB3_SETTINGS = (
    "buffer_size", "learning_starts", "batch_size", "gamma", "tau", "train_freq", "gradient_steps", "ent_coef",
)  # fmt: skip
ALGORITHMS: dict[str, type[SAC] | type[ProtoSAC]] = {"sac": SAC, "protosac": ProtoSAC}


def make_agent(algorithm: str, env: VecEnv, settings: TaskSettings, seed: int, **options: Any) -> SAC | ProtoSAC:
    """Build an agent from a row of the settings table.

    Args:
        algorithm: ``"sac"`` or ``"protosac"``.
        env: the task as a VecEnv (envs.continuous.make_task_vec).
        settings: see settings.task_settings.
        seed: of networks, exploration, replay sampling and environments.
        options: further keyword arguments of the algorithm, e.g. ``device``.

    Raises:
        InterpError: unknown algorithm, or a setting the algorithm refuses.
    """
    _check_algorithm(algorithm)
    given = {name: getattr(settings, name) for name in _SB3_SETTINGS}
    if algorithm == "protosac":
        given |= prototype_settings(settings)
    images = {"features_extractor_class": SmallCNN} if settings.policy == "CnnPolicy" else {}
    given["learning_rate"] = make_schedule(settings.learning_rate)
    given["action_noise"] = make_noise(settings.action_noise, int(np.prod(env.action_space.shape or ())))
    given["policy_kwargs"] = {"net_arch": list(settings.net_arch), **images}
    return ALGORITHMS[algorithm](settings.policy, env, seed=seed, **given | options)


def _check_algorithm(name: str) -> None:
    if name not in ALGORITHMS:
        raise InterpError(f"unknown algorithm '{name}'. Choose one of: {', '.join(ALGORITHMS)}.")


def train_run(
    algorithm: str | type[SAC] | type[ProtoSAC],
    env: str,
    *,
    timesteps: int | None = None,
    seed: int = 0,
    run_dir: Path | str,
    overrides: Mapping[str, Any] | None = None,
    resume: bool = False,
    max_minutes: float | None = None,
    eval_every: int | None = None,
    eval_episodes: int = 5,
    video_every: int | None = None,
    tensorboard: bool = False,
    compile: Compile = "auto",
    progress: bool = True,
) -> Path:
    """Train SAC or ProtoSAC and leave a run folder: config.json, policy.safetensors, progress.csv, training state.

    The state is saved soon after the first step and every ten minutes. A folder without state, config and weights, as
    one leaves that was killed before, is started over. Ctrl-C, SIGTERM and ``max_minutes`` stop after the current
    step; the folder then holds a usable agent and all that ``resume=True`` needs to go on (replay buffer, optimisers,
    counters; the environment starts a new episode).

    Args:
        algorithm: the class, or its name.
        timesteps: environment steps in total, those before a resume included; None: the task's default.
        seed: of everything random.
        run_dir: created if missing; must not hold another run.
        overrides: settings to replace (settings.TaskSettings); a resumed run has its own.
        max_minutes: wall-clock budget of this call, minutes.
        eval_every: evaluate with deterministic actions every so many steps, into evaluations.csv (callbacks.py).
        compile: see :class:`.FastSAC`.
        video_every: film an episode every so many steps, into videos/.
        The others: see runs.training.train.

    Returns:
        ``run_dir`` as a Path.

    Raises:
        InterpError: bad arguments, an occupied or foreign run folder, nothing to resume, nothing to
            render videos with, NaN losses, a full disk.
    """
    name, run_dir = continuous_task(env), Path(run_dir)
    algorithm = algorithm if isinstance(algorithm, str) else algorithm.algorithm
    _check_algorithm(algorithm)
    for option, value in (("timesteps", timesteps), ("max_minutes", max_minutes)):
        if value is not None and not value > 0:
            raise InterpError(f"{option} is {value}; it must be above 0.")
    settings = task_settings(name, overrides)
    if settings.n_envs > MOST_ENVS:
        raise InterpError(f"n_envs is {settings.n_envs}; it must be at most {MOST_ENVS}.")
    timesteps = timesteps or settings.timesteps
    keep_large_allocations()

    remove_temporaries(run_dir)
    whole = [file for file in (CONFIG, WEIGHTS, STATE) if os.path.lexists(run_dir / file)]
    if resume and not whole and not run_dir.is_dir():
        raise InterpError(f"{run_dir} holds no training state to resume from. Start without resume.")
    if resume and whole and STATE not in whole:
        raise InterpError(f"{run_dir} holds an agent but no training state to go on from. Choose another folder.")
    if whole and not resume:
        raise InterpError(f"{run_dir} already holds a run. Resume it, or choose another folder.")
    if whole and overrides:
        raise InterpError("a resumed run keeps its settings. Leave the overrides out, or start a new run.")
    if whole:
        before = read_json(run_dir / CONFIG) if CONFIG in whole else {}
        agent = _load_state(run_dir, algorithm, name)
        if agent.num_timesteps >= timesteps:
            if before.get("timesteps") != agent.num_timesteps:
                return run_dir  # killed at its end: now its config and weights are there
            raise InterpError(f"{run_dir} is already at {agent.num_timesteps:,} steps. Ask for more timesteps.")
    else:
        agent = make_agent(algorithm, make_task_vec(name, settings.n_envs, seed), settings, seed)
        agent.task = name

    agent.compile = compile

    extras: list[BaseCallback] = []
    if eval_every is not None:
        extras.append(EvaluationLog(run_dir, name, eval_every, episodes=eval_episodes))
    elif (run_dir / EVALUATIONS).exists():  # its rows past the saved state belong to steps that are trained again
        ProgressLog(run_dir / EVALUATIONS, EVALUATION_COLUMNS).start(keep_through=agent.num_timesteps)
    if video_every is not None:
        extras.append(VideoLog(run_dir, name, video_every))
    if not whole:
        _set_aside(run_dir / "progress.csv")
    log = ProgressLog(run_dir / "progress.csv", COLUMNS, tensorboard=tensorboard)
    log.start(keep_through=agent.num_timesteps, gap=ROW_STEPS)
    if isinstance(agent, ProtoSAC):
        agent.final_projection = True
    began, title = agent.num_timesteps, f"{algorithm} {name}"
    with (
        contextlib.closing(log),
        _interruptible(run_dir) as stop,
        tqdm(total=timesteps, initial=began, unit="step", disable=not progress, desc=title) as bar,
    ):
        watch = _Watch(run_dir, log, bar, stop, timesteps, max_minutes)
        interval: Any = None  # SB3 annotates int, and takes None
        agent.learn(timesteps - began, callback=[watch, *extras], log_interval=interval, reset_num_timesteps=False)
        _save_state(agent, run_dir)
    assert agent.env is not None
    agent.env.close()
    return run_dir


def _set_aside(curve: Path) -> None:
    """Keep the rows of a run that was killed before its first save, as progress.csv.old."""
    if curve.is_file() and curve.read_bytes().count(b"\n") > 1:
        curve.replace(curve.with_name(f"{curve.name}.old"))


class _Watch(BaseCallback):
    """Writes progress rows, drives the bar, saves state now and then, and stops when told to."""

    model: SAC | ProtoSAC

    def __init__(
        self, run_dir: Path, log: ProgressLog, bar: tqdm, stop: threading.Event, timesteps: int, minutes: float | None
    ):
        super().__init__()
        self.run_dir, self.log, self.bar, self.stop, self.timesteps = run_dir, log, bar, stop, timesteps
        self.interval = min(1000, max(1, timesteps // 100))
        self.deadline = math.inf if minutes is None else time.monotonic() + 60.0 * minutes

    def _on_training_start(self) -> None:
        now = time.monotonic()
        self.before = self.model.seconds_trained
        self.began = self.row_time = now
        # A new run saves as soon as there is something, so that it can be resumed whenever it is killed.
        self.next_save = now + (_SAVE_EVERY_SECONDS if self.num_timesteps else 0.0)
        self.row_steps = self.saved_steps = self.num_timesteps

    def _on_step(self) -> bool:
        now, done = time.monotonic(), self.num_timesteps >= self.timesteps
        if not done and (self.stop.is_set() or now >= self.deadline):
            self.model.num_timesteps -= self.training_env.num_envs  # SB3 stores no transition of a step it stops after
            return False
        if done or self.num_timesteps - self.row_steps >= self.interval:
            self._write_row(now)
        return True

    def _on_rollout_start(self) -> None:
        # Between rollouts, not after a step: its transition is stored, and the updates it called for are made.
        now = time.monotonic()
        if self.model.num_timesteps > self.saved_steps and now > self.next_save:
            self.model.seconds_trained = self.before + now - self.began
            _save_state(self.model, self.run_dir)
            self.saved_steps = self.model.num_timesteps
            # Gigabytes of replay buffer must not eat more than a tenth of the time.
            done = time.monotonic()
            self.next_save = done + max(_SAVE_EVERY_SECONDS, 9 * (done - now))

    def _on_training_end(self) -> None:
        if self.stop.is_set():  # whoever asked may not wait for the projection that follows
            _save_state(self.model, self.run_dir)

    def _write_row(self, now: float) -> None:
        episodes, losses = self.model.ep_info_buffer, self.logger.name_to_value
        self.model.seconds_trained = self.before + now - self.began
        row = {name: losses.get(f"train/{name}") for name in _LOSSES}
        row |= {
            "total_timesteps": self.num_timesteps,
            "eprewmean": float(np.mean([e["r"] for e in episodes])) if episodes else None,
            "eplenmean": float(np.mean([e["l"] for e in episodes])) if episodes else None,
            "entropy_coef": losses.get("train/ent_coef"),
            "fps": (self.num_timesteps - self.row_steps) / max(now - self.row_time, 1e-9),
            "time_elapsed": self.model.seconds_trained,
        }
        self.log.append(row)
        self.bar.update(self.num_timesteps - self.row_steps)
        if row["eprewmean"] is not None:
            self.bar.set_postfix({"return": f"{row['eprewmean']:.1f}"}, refresh=False)
        self.row_steps, self.row_time = self.num_timesteps, now


@contextlib.contextmanager
def _interruptible(run_dir: Path) -> Iterator[threading.Event]:
    """Turn the first Ctrl-C, SIGTERM or SIGHUP into a request to stop at the next step and save; a second interrupts.

    Ctrl-C asks for no more than that. After the two others, with which systems end what runs on them, the process is
    still to end: the signal is passed on once everything is saved.

    Raises:
        KeyboardInterrupt: after the second one, or from the one passed on, with a line that says what is left.
    """
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    told: list[int] = []

    def handle(number: int, frame: Any) -> None:
        handler = before[number]
        if not stop.is_set():
            told.append(number)
            stop.set()
        elif callable(handler):  # whoever called may count them
            handler(number, frame)
        else:
            raise KeyboardInterrupt

    numbers: tuple[int, ...] = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in numbers}
    for number, handler in before.items():
        if number == signal.SIGINT or handler is not signal.SIG_IGN:  # such as by nohup
            signal.signal(number, handle)
    try:
        try:
            yield stop
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        if told and told[0] != signal.SIGINT:
            signal.raise_signal(told[0])
    except KeyboardInterrupt as interrupt:
        if (run_dir / STATE).exists():
            raise KeyboardInterrupt(f"interrupted; {run_dir} can be resumed from its last checkpoint.") from interrupt
        raise KeyboardInterrupt("interrupted before the first checkpoint; nothing was saved.") from interrupt


def _save_state(agent: SAC | ProtoSAC, run_dir: Path) -> None:
    """Write the training state, then the run folder's config and weights: all of the same step.

    In this order, because a config says that there is something to go on from.
    """
    write_state(agent, run_dir / STATE)
    agent.save_run(run_dir)


def _load_state(run_dir: Path, algorithm: str, name: str) -> SAC | ProtoSAC:
    """The agent to go on with; a config that was to follow the state when the process was killed follows now."""
    path, config = run_dir / STATE, None
    if (run_dir / CONFIG).exists():
        config = read_json(run_dir / CONFIG)
        check_config(config, run_dir / CONFIG)
        if (config["algorithm"], config["env"]) != (algorithm, name):
            found = f"{config['algorithm']} on {config['env']}"
            raise InterpError(f"{run_dir} holds a run of {found}, not {algorithm} on {name}. Choose another folder.")
    agent = read_state(path, ALGORITHMS[algorithm])
    if agent.task != name:
        raise InterpError(f"{run_dir} holds a run of {agent.task}, not {name}. Choose another folder.")
    written = agent._config()
    if config is not None and any(config.get(key) != written[key] for key in ("seed", "hyperparameters")):
        raise InterpError(f"{run_dir / CONFIG} and {STATE} are of different runs. Restore the one that was replaced.")
    if config is None or config["timesteps"] != agent.num_timesteps:
        agent.save_run(run_dir)
    agent._learned_with = None  # from now on with the code of today
    assert agent.env is not None
    # With the run's own seed it would explore from the start again.
    seed = ((agent.seed or 0) + agent.num_timesteps) % 2**32
    np.random.seed(seed)
    torch.manual_seed(seed)
    agent.action_space.seed(seed)
    agent.env.seed(seed)
    return agent
