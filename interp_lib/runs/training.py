"""Training by name: one function for the four algorithms, used by the command line and the notebooks."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..agents.registry import ALGORITHMS
from ..common.errors import InterpError
from ..common.storage import read_file
from ..envs.names import check_seed
from .folder import Run, check_weights, read_run

if TYPE_CHECKING:
    from ..common.acceleration import Compile


def train(
    algorithm: str,
    env: str,
    *,
    timesteps: int | None = None,
    seed: int | None,
    run_dir: Path | str,
    options: Mapping[str, Any] | None = None,
    resume: bool = False,
    max_minutes: float | None = None,
    save_seconds: float = 30.0,
    keep_every: int | None = None,
    eval_every: int | None = None,
    eval_episodes: int = 5,
    video_every: int | None = None,
    tensorboard: bool = False,
    device: str = "auto",
    compile: Compile = "auto",
    env_threads: int | None = None,
    progress: bool = True,
) -> Path:
    """Train ``algorithm`` on ``env`` until ``timesteps`` in all and leave a run folder.

    Args:
        timesteps: environment steps; None: the full budget.
        seed: None only to resume: whichever the run has.
        options: hyper-parameters that differ from the defaults.
        resume: continue the run in ``run_dir``, or start one where nothing was saved yet. PPO and SPPO can go on with
            another learning rate and precision; the other hyper-parameters, and the seed, stay as they are.
        max_minutes: stop cleanly after this many minutes; ``resume`` continues.
        save_seconds: PPO and SPPO: least time between two checkpoints; with 0 every update is one.
        keep_every, env_threads: PPO and SPPO: see :meth:`.PPO.learn`.
        compile: whether to go the faster ways that take a while to prepare; ``"auto"``: where they are known to pay.
        tensorboard: also write the learning curve to ``run_dir/tensorboard``.
        eval_every, eval_episodes, video_every: SAC and ProtoSAC: see agents.protosac.training.train_run.

    Returns:
        ``run_dir``.

    Raises:
        InterpError: bad arguments, ``run_dir`` already holds a run and ``resume`` is off, or one that can't go on so,
            another process trains it, or training failed.
    """
    if algorithm not in ALGORITHMS:
        raise InterpError(f"unknown algorithm '{algorithm}'. Valid: {', '.join(ALGORITHMS)}.")
    record = ALGORITHMS[algorithm]
    if timesteps is not None and timesteps <= 0:
        raise InterpError(f"timesteps must be positive, not {timesteps}.")
    check_seed(seed)
    run_dir = Path(run_dir)
    run = _run_in(run_dir, algorithm, resume)
    if run is not None:
        if run.algorithm != algorithm or run.env != env:
            raise InterpError(f"{run_dir} holds {run.algorithm} on {run.env}, not {algorithm} on {env}.")
        if seed is not None and seed != run.seed:
            raise InterpError(f"{run_dir} has seed {run.seed}, not {seed}. Leave out the seed, or start another run.")
    if seed is None:
        seed = run.seed if run is not None else record.seed
    if record.procgen and run is None:
        record.settings_class.from_dict({"env": env, "seed": seed, **(options or {})})
    others = {"device": device, "save_seconds": save_seconds, "eval_every": eval_every, "eval_episodes": eval_episodes}
    others |= {"video_every": video_every, "keep_every": keep_every, "compile": compile, "env_threads": env_threads}
    with _only_trainer_of(run_dir):
        if run is not None and not os.path.lexists(run_dir / record.state):
            check_weights(run)  # training goes on from them
        if not record.procgen and int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise InterpError(f"{algorithm} trains in one process. Leave out torchrun; start several runs instead.")
        return record.train_run(
            env,
            timesteps=timesteps,
            seed=seed,
            run_dir=run_dir,
            overrides=options,
            resume=resume,
            max_minutes=max_minutes,
            tensorboard=tensorboard,
            progress=progress,
            **{name: others[name] for name in record.options},
        )


LOCK = ".training.lock"


def _run_in(run_dir: Path, algorithm: str, resume: bool) -> Run | None:
    """The run that ``run_dir`` holds; None where nothing was saved yet: what a kill left there, a curve's header and
    the row of an update, is started over.

    Raises:
        InterpError: there is a run and ``resume`` is off, or something of a run whose config is gone.
    """
    if os.path.lexists(run_dir / "config.json"):
        if not resume:
            raise InterpError(f"{run_dir} already holds a run. Continue it with --resume, or choose another --run-dir.")
        return read_run(run_dir)
    if not ALGORITHMS[algorithm].procgen:
        return None  # train_run looks: SAC and ProtoSAC can write a config again from their state
    states = dict.fromkeys(record.state for record in ALGORITHMS.values())
    left = [name for name in (*states, "policy.safetensors") if os.path.lexists(run_dir / name)]
    if not left and os.path.lexists(run_dir / "progress.csv"):
        left = ["progress.csv"] * (read_file(run_dir / "progress.csv", 2**26).count(b"\n") > 2)
    if left:
        raise InterpError(
            f"{run_dir} holds {left[0]} of a run whose config.json is gone. Restore that, or choose another --run-dir."
        )
    return None


def being_trained(run_dir: Path | str) -> bool:
    """Whether a process trains this run at the moment."""
    from filelock import FileLock, Timeout

    path = Path(run_dir) / LOCK
    if not path.exists():
        return False
    try:
        with FileLock(path, timeout=0):
            return False
    except Timeout:
        return True


@contextlib.contextmanager
def _only_trainer_of(run_dir: Path) -> Iterator[None]:
    """Hold the run folder's lock, which the kernel releases even when this process is killed."""
    from filelock import FileLock, Timeout

    if os.environ.get("RANK", "0") != "0":  # under torchrun the first process writes the folder, and locks it
        yield
        return
    lock = FileLock(run_dir / LOCK, timeout=0)
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout as error:
        raise InterpError(f"another process trains {run_dir}. Wait for it, or choose another --run-dir.") from error
    except OSError as error:
        reason = f"cannot write {run_dir}: {error.strerror or error}"
        raise InterpError(f"{reason}. Free space or choose another folder.") from error
    try:
        yield
    finally:
        lock.release()
