"""A campaign: a table of runs, trained in slices in the order of the table, each released when it is done.

    algorithm,env,seed,timesteps
    sppo,fruitbot,2021,1000000        the file; lines that start with # are remarks

A slice is one `interp train … --resume --max-minutes M` in a process of its own, so a campaign can be interrupted or
killed at any moment and started again: what a run's last checkpoint holds is kept, and released runs are replaced
whole or not at all. Several runs on one GPU share it by MPS (:mod:`.sharing`).
"""

from __future__ import annotations

import contextlib
import csv
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from ..agents.registry import ALGORITHMS
from ..common.errors import InterpError
from ..common.processes import ends_with_us
from ..common.storage import read_file
from ..runs.folder import read_run
from ..runs.training import being_trained
from .sharing import shared_gpu
from .workbench import Target

COLUMNS = ("algorithm", "env", "seed", "timesteps")
POLL_SECONDS = 0.5


class Standing(NamedTuple):
    """How far a target is: steps in runs/ and in checkpoints/, whether it is being trained, and its measured speed."""

    target: Target
    trained: int
    released: int
    busy: bool
    rate: float | None  # environment steps/s of the run's last updates; None before the first

    @property
    def steps_left(self) -> int:
        """Environment steps to go."""
        return max(self.target.timesteps - max(self.trained, self.released), 0)

    @property
    def hours_left(self) -> float | None:
        """At the measured speed; None where none was measured."""
        return self.steps_left / self.rate / 3600 if self.rate else None

    @property
    def state(self) -> str:
        """``released``, ``trained`` (not released yet), ``training``, ``begun`` or ``waiting``."""
        if self.released >= self.target.timesteps:
            return "released"
        if self.busy:
            return "training"
        if self.steps_left == 0:
            return "trained"
        return "begun" if max(self.trained, self.released) else "waiting"


def read_campaign(path: Path | str) -> list[Target]:
    """The table, in its order.

    Raises:
        InterpError: the file is missing, or a line is not one of the table; the message names it.
    """
    path = Path(path)
    try:
        data = read_file(path, 2**20)
    except InterpError as error:
        raise InterpError(f"cannot read the campaign {str(error).removeprefix('cannot read ')}") from error
    try:
        text = data.decode("utf-8-sig")  # spreadsheets begin their UTF-8 with a mark, or write Latin-1
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    lines = text.splitlines()
    rows = [(n, line) for n, line in enumerate(lines, start=1) if line.strip() and not line.lstrip().startswith("#")]
    if not rows or tuple(name.strip() for name in next(csv.reader([rows[0][1]]))) != COLUMNS:
        raise InterpError(f"{path} must begin with the line {','.join(COLUMNS)}.")
    targets = []
    for number, line in rows[1:]:
        try:
            targets.append(_target(next(csv.reader([line], strict=True))))
        except (InterpError, ValueError, csv.Error) as error:
            raise InterpError(f"{path}, line {number}: {error}") from error
    return targets


def standings(targets: Sequence[Target], runs_dir: Path | str, checkpoints: Path | str) -> list[Standing]:
    """How far each target is."""
    places = [(target, Path(runs_dir) / target.name, Path(checkpoints) / target.name) for target in targets]
    return [
        Standing(target, _steps(run), _steps(released), being_trained(run), _rate(run) or _rate(released))
        for target, run, released in places
    ]


def next_target(found: Sequence[Standing], skip: set[str]) -> Standing | None:
    """The first target that is neither released nor at work; runs named in ``skip`` are passed over."""
    busy = skip | {s.target.name for s in found if s.busy}
    return next((s for s in found if s.state != "released" and s.target.name not in busy), None)


@dataclass
class Campaign:
    """Trains and releases the targets.

    Args:
        targets: see `read_campaign`.
        runs_dir, checkpoints: folders of the resumable and of the released runs.
        jobs: runs trained at the same time.
        slice_minutes: after this long a run stops cleanly, and whatever then comes first in the table goes on.
        max_minutes: no slice begins or goes on after this; None trains until everything is released.
        threads: CPU threads of each run.
        device: see `interp train`; only PPO and SPPO use it. Jobs on a GPU that is named share the cores that step
            their environments.
        episodes: evaluated a side for a release; None as `interp checkpoints release`.
        say: called with a line for each thing that happens.
    """

    targets: Sequence[Target]
    runs_dir: Path
    checkpoints: Path
    jobs: int = 1
    slice_minutes: float = 30.0
    max_minutes: float | None = None
    threads: int = 1
    device: str = "auto"
    episodes: int | None = None
    say: Callable[[str], None] = print

    def run(self) -> dict[str, str]:
        """Work until the time is up or nothing is left.

        Returns:
            run name → last line of its log, for the runs that failed; they are not tried again in this campaign.

        Raises:
            InterpError: numbers out of range.
        """
        if self.jobs < 1 or self.threads < 1 or self.slice_minutes <= 0:
            raise InterpError("jobs and threads must be at least 1, and slices longer than 0 minutes.")
        deadline = time.monotonic() + 60 * self.max_minutes if self.max_minutes is not None else float("inf")
        with shared_gpu(self.device, self.jobs, say=self.say) as environment:
            return self._work(deadline, {**environment, "OMP_NUM_THREADS": str(self.threads)})

    def _work(self, deadline: float, environment: dict[str, str]) -> dict[str, str]:
        working: dict[str, subprocess.Popen] = {}
        failed: dict[str, str] = {}
        try:
            while True:
                for name in [name for name, process in working.items() if process.poll() is not None]:
                    at_work = list(working)
                    if working.pop(name).returncode:
                        failed[name] = self._last_line(name)
                    self.say(
                        f"{name}: " + (f"failed. {failed[name]}" if name in failed else self._reached(name, at_work))
                    )
                while len(working) < self.jobs and (minutes := (deadline - time.monotonic()) / 60) > 0:
                    found = standings(self.targets, self.runs_dir, self.checkpoints)
                    upcoming = next_target(found, {*failed, *working})
                    if upcoming is None:
                        break
                    working[upcoming.target.name] = self._begin(upcoming, min(minutes, self.slice_minutes), environment)
                if not working:
                    return failed
                time.sleep(POLL_SECONDS)
        finally:
            for process in working.values():  # they save and end
                with contextlib.suppress(ProcessLookupError):
                    process.send_signal(signal.SIGINT)
            for process in working.values():
                process.wait()

    def _begin(self, standing: Standing, minutes: float, environment: dict[str, str]) -> subprocess.Popen:
        """Start a slice of training, or the release of a run that is trained."""
        target = standing.target
        if standing.steps_left == 0:
            self.say(f"{target.name}: measuring and releasing {standing.trained:,} steps")
            command = ["checkpoints", "release", self.runs_dir / target.name, "--folder", self.checkpoints]
            command += ["--episodes", self.episodes] if self.episodes is not None else []
        else:
            self.say(f"{target.name}: training to {target.timesteps:,} steps, for at most {minutes:.1f} minutes")
            command = self._slice(standing, minutes)
        self.runs_dir.mkdir(parents=True, exist_ok=True)
        with self._log(target.name).open("a", encoding="utf-8") as log:
            return subprocess.Popen(
                ends_with_us(sys.executable, "-m", "interp_lib.cli", *map(str, command)),
                stdout=log,
                stderr=log,
                env=environment,
                process_group=0,
            )

    def _slice(self, standing: Standing, minutes: float) -> list[object]:
        """The command that trains for a while, from where the run is."""
        target, run_dir = standing.target, self.runs_dir / standing.target.name
        procgen = ALGORITHMS[target.algorithm].procgen
        if standing.released > standing.trained and procgen:
            # Released weights, counters and λ are enough to go on from; SAC would lack its replay buffer.
            shutil.rmtree(run_dir, ignore_errors=True)
            shutil.copytree(self.checkpoints / target.name, run_dir)
        # SAC's first save may have been killed between its state and its config.
        begun = standing.trained or any((run_dir / n).exists() for n in ("config.json", "training_state.zip"))
        command = ["train", target.algorithm, target.env, "--seed", target.seed, "--run-dir", run_dir, "--quiet"]
        command += ["--timesteps", target.timesteps, "--max-minutes", f"{minutes:.3f}", "--threads", self.threads]
        if procgen:
            command += ["--device", self.device]
            if self.device.startswith("cuda"):
                command += ["--env-threads", max((os.cpu_count() or 1) // self.jobs, 1)]
        return command + ["--resume"] * bool(begun)

    def _log(self, name: str) -> Path:
        return self.runs_dir / f"{name}.log"

    def _last_line(self, name: str) -> str:
        lines = self._log(name).read_text(encoding="utf-8", errors="replace").splitlines()
        lines = [line for line in lines if line.strip()]
        return lines[-1].removeprefix("interp: ") if lines else f"See {self._log(name)}."

    def _reached(self, name: str, at_work: Sequence[str]) -> str:
        trained, released = _steps(self.runs_dir / name), _steps(self.checkpoints / name)
        rates = {other: _rate(self.runs_dir / other) for other in at_work}
        line = f"{trained:,} steps trained, {released:,} released"
        if rates[name]:
            line += f", {rates[name]:,.0f} steps/s"
        if len(rates) > 1 and all(rates.values()):
            line += f" of {sum(filter(None, rates.values())):,.0f} in the {len(rates)} runs at work"
        return line


def render_standings(found: Sequence[Standing], *, only_left: bool = False) -> str:
    """A line a target (with ``only_left``: those not released), and what is left in all at the measured speeds."""
    lines = [f"{'run':<28}{'goal':>12}{'trained':>12}{'released':>12}{'steps/s':>9}{'hours left':>12}  state"]
    for s in found:
        if only_left and s.state == "released":
            continue
        rate = "" if s.rate is None else f"{s.rate:.0f}"
        hours = "0" if s.steps_left == 0 else "unknown" if s.hours_left is None else f"{s.hours_left:.1f}"
        line = f"{s.target.name:<28}{s.target.timesteps:>12,}{s.trained:>12,}{s.released:>12,}"
        lines.append(line + f"{rate:>9}{hours:>12}  {s.state}")
    last = {s.target.name: s for s in found}  # a run's last row asks for the most steps
    known = [0.0 if s.steps_left == 0 else s.hours_left for s in last.values()]
    unknown = known.count(None)
    done = sum(s.state == "released" for s in found)
    tail = f"{done} of {len(found)} rows released; one at a time and at the measured speeds "
    tail += f"{sum(hours for hours in known if hours):.1f} hours are left"
    return "\n".join([*lines, tail + (f", and {unknown} runs of unknown speed." if unknown else ".")])


def _target(values: list[str]) -> Target:
    if len(values) != len(COLUMNS):
        raise InterpError(f"{len(values)} values where {len(COLUMNS)} belong.")
    algorithm, env, seed, timesteps = (value.strip() for value in values)
    if algorithm not in ALGORITHMS:
        raise InterpError(f"unknown algorithm '{algorithm}'. Valid: {', '.join(ALGORITHMS)}.")
    env = ALGORITHMS[algorithm].full_name(env)
    target = Target(algorithm, env, int(seed), int(timesteps))
    if target.timesteps <= 0:
        raise InterpError(f"timesteps must be positive, not {target.timesteps}.")
    return target


def _steps(run_dir: Path) -> int:
    return read_run(run_dir).timesteps if (run_dir / "config.json").exists() else 0


def _rate(run_dir: Path) -> float | None:
    if not (run_dir / "progress.csv").exists():
        return None
    from ..agents.learning_curve import read_progress

    rates = read_progress(run_dir)["fps"].dropna().tail(10)
    return float(rates.median()) if len(rates) else None
