"""Run folders: read one, find some, load an agent.

<algorithm>-<env>-s<seed>/
  config.json          hyper-parameters, provenance; for released runs also results and checksums
  policy.safetensors   weights only
  progress.csv         learning curve
  card.md              for people, made from config.json
  returns.csv          the return of every episode behind the results; older releases lack it
  descriptions.yml     what people see in each cluster (.descriptions); there once somebody has written it
  steps/<timesteps>/   config and weights from earlier in training, where --keep-every asked for them; never released
"""

from __future__ import annotations

import functools
import hashlib
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..agents.registry import ALGORITHMS, Algorithm
from ..common.errors import InterpError
from ..common.storage import read_json
from .schema import wrong_in

if TYPE_CHECKING:
    from ..agents.sppo.config import PPOConfig

# One folder and no way out of it, nothing a shell, a page or a terminal takes for more than a name; no leading dot,
# which marks what is not finished.
RUN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
RELEASED_FILES = ("policy.safetensors", "progress.csv")
RETURNS = "returns.csv"
NOTES = ("descriptions.yml",)  # written by people at any time: a release takes them along, without a checksum
SHIPPED_FILES = ("config.json", *RELEASED_FILES, RETURNS, "card.md", *NOTES)  # all that a released run consists of


@dataclass(frozen=True)
class Run:
    """A run folder and its config.json."""

    path: Path
    config: dict[str, Any]

    @property
    def name(self) -> str:
        """Folder name, e.g. ``sppo-ninja-s2021``."""
        return Path(os.path.abspath(self.path)).name  # of "." and ".." as well

    @property
    def algorithm(self) -> str:
        """``ppo``, ``sppo``, ``sac`` or ``protosac``."""
        return self.config["algorithm"]

    @property
    def record(self) -> Algorithm:
        """What is true of its algorithm."""
        return ALGORITHMS[self.algorithm]

    @property
    def env(self) -> str:
        """Short name of the environment."""
        return self.config["env"]

    @property
    def seed(self) -> int:
        """Training seed."""
        return self.config["seed"]

    @property
    def variant(self) -> str:
        """What its name says between task and seed, e.g. ``gmm``: no further seed of the runs without."""
        between = re.fullmatch(rf"{self.algorithm}-{re.escape(self.env)}-(.+)-s{self.seed}", self.name)
        return between[1] if between else ""

    @property
    def timesteps(self) -> int:
        """Environment steps trained."""
        return self.config["timesteps"]

    @property
    def results(self) -> dict[str, Any]:
        """What the release measured: mean, low, high, episodes by side (a key of ``SIDE_TITLES``)."""
        return self.config.get("results", {})

    @property
    def mode(self) -> str | None:
        """Procgen's distribution mode, ``easy`` or ``hard``; None for a continuous task."""
        return self.config.get("hyperparameters", {}).get("distribution_mode")

    @property
    def num_levels(self) -> int:
        """Number of Procgen levels it was trained on; 0 means all of them."""
        return self.config.get("hyperparameters", {}).get("num_levels", 0)


def read_run(run_dir: Path | str) -> Run:
    """Read a run folder's config.

    Raises:
        InterpError: no such folder, it is not a run folder, or its config says what no config can say.
    """
    run_dir = Path(run_dir)
    if not run_dir.is_dir():
        raise InterpError(f"no run folder {run_dir}. `interp checkpoints list` shows the released ones.")
    path = run_dir / "config.json"
    config = read_json(path)
    missing = {"algorithm", "env", "seed", "timesteps"} - set(config if isinstance(config, dict) else ())
    if missing:
        raise InterpError(f"{path} lacks {', '.join(sorted(missing))}: not a run of this project.")
    if config["algorithm"] not in tuple(ALGORITHMS):  # compared, not hashed: a damaged config may hold a list
        raise InterpError(f"{path} is of the unknown algorithm {config['algorithm']!r:.60}. Restore it.")
    if config.get("format", 1) != 1:
        raise InterpError(
            f"{path} has format {config['format']!r:.60}; this version reads format 1. Update interp-lib."
        )
    for wrong in wrong_in(config):
        raise InterpError(f"{path} is damaged: {wrong}. Restore it or train the run again.")
    run = Run(run_dir, config)
    if run.record.procgen and "hyperparameters" in config:
        settings_of(run)
    return run


def settings_of(run: Run) -> PPOConfig:
    """The hyper-parameters of a PPO or SPPO run, checked.

    Raises:
        InterpError: they are missing or no such run's, or of another game or seed than the run says.
    """
    try:
        config = run.record.settings_class.from_dict(run.config.get("hyperparameters", {}))
    except InterpError as error:
        raise InterpError(f"{run.path / 'config.json'} is damaged: {error}") from error
    if (config.env, config.seed) != (run.env, run.seed):
        raise InterpError(f"{run.path / 'config.json'} is damaged: its hyperparameters are of another game or seed.")
    return config


def load_agent(run_dir: Path | str, *, device: str = "auto") -> Any:
    """Load the agent of a run folder: PPO, SPPO, SAC or ProtoSAC, ready to ``predict``.

    Raises:
        InterpError: the folder is missing, incomplete or damaged, or a released run has other weights than those it
            was released with.
    """
    run = read_run(run_dir)
    check_weights(run)
    return run.record.agent_class.load_run(run.path, device=device)


def check_weights(run: Run) -> None:
    """Compare the weights of a released run with their checksum; a run that is still trained has none.

    Raises:
        InterpError: they are missing, or not those that were released.
    """
    expected = run.config.get("files", {}).get("policy.safetensors")
    problem = None if expected is None else problem_of(run.path / "policy.safetensors", expected)
    if problem is not None:
        raise InterpError(f"{problem}. Restore it or release the run again.")


def find_runs(folder: Path | str = "checkpoints", *, algorithm: str | None = None, env: str | None = None) -> list[Run]:
    """All runs in ``folder``, by name; optionally of one algorithm or environment.

    Folders whose names are none of a run are passed over, which is said on stderr, once.

    Raises:
        InterpError: one of them is damaged.
    """
    runs, damaged = survey_runs(folder)
    for reason in damaged.values():
        raise InterpError(reason)
    return [run for run in runs if algorithm in (None, run.algorithm) and env in (None, run.env)]


def survey_runs(folder: Path | str) -> tuple[list[Run], dict[str, str]]:
    """All runs in ``folder``, by name; and by the names of those whose config can't be read, why."""
    runs, damaged = [], {}
    for path in sorted(Path(folder).glob("*/")):
        # A dot: what put_in_place or release_run was working on when it was killed. A link may lead nowhere.
        if path.name.startswith(".") or not os.path.lexists(path / "config.json"):
            continue
        if not RUN_NAME.fullmatch(path.name):
            _say_once(f"passed over {str(path)!r}: a run's name is letters, digits, dots, - and _. Rename the folder.")
            continue
        try:
            runs.append(read_run(path))
        except InterpError as error:
            damaged[path.name] = str(error)
    return runs, damaged


@functools.cache
def _say_once(line: str) -> None:
    print(line, file=sys.stderr)


def find_run(folder: Path | str, algorithm: str, env: str, *, seed: int | None = None) -> Run:
    """The run of ``algorithm`` on ``env`` that was trained longest; of equally long ones, that of ``seed``.

    Variants are found only where there are no others.

    Raises:
        InterpError: there is none; the message names the environments that have one.
    """
    runs = find_runs(folder, algorithm=algorithm)
    of_env = [run for run in runs if run.env == env]
    if not of_env:
        there = ", ".join(sorted({run.env for run in runs})) or "none"
        raise InterpError(
            f"{folder} has no {algorithm} run on {env} (there: {there}). Train one: interp train {algorithm} {env}"
        )
    return max(of_env, key=lambda run: (not run.variant, run.timesteps, run.seed == seed))


def problem_of(path: Path, checksum: str) -> str | None:
    """What is wrong with a file that should have this SHA-256."""
    if not path.exists():
        return f"{path} is missing"
    if not path.is_file():
        return f"{path} is no regular file"
    try:
        # One that is far too large isn't read to its end.
        same = path.stat().st_size <= 2**30 and sha256(path) == checksum
        return None if same else f"{path} was altered or damaged (checksum differs)"
    except OSError as error:
        return f"cannot read {path}: {error.strerror or error}"


def sha256(path: Path) -> str:
    """Hex digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
