"""How rows of readability.csv are made: agents are loaded, distilled or trained, and measured on the same episodes."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..agents.protosac.settings import task_settings
from ..agents.registry import ALGORITHMS
from ..agents.returns import evaluate_continuous
from ..common.errors import InterpError
from ..common.provenance import git_state
from ..common.statistics import NOTHING, Interval, bootstrap_mean, columns, sums_interval
from ..runs.folder import Run, find_run, find_runs, load_agent, read_run, sha256
from ..runs.training import train
from .readability import (
    DISTILLED,
    ENCODER,
    KEY,
    MEASURES,
    MEDOIDS,
    OURS,
    SAC,
    SETTINGS,
    SWEPT,
    keep_row,
    matching,
    read_rows,
)  # fmt: skip
from .study import PrototypeStudy

_FIRST_EPISODE, _FIRST_STATE = 1_000, 10_000  # seeds of the episodes that are measured, and of those that are imitated


@dataclass(frozen=True)
class Job:
    """One row to be made.

    Attributes:
        task, agent, seed, settings: the row's key; ``settings`` is a text, empty for baselines.
        sac: the run that is 1 on the scale.
        make: trains, distils or loads the agent, and names the run it comes from.
        made_of: says what the agent depends on, so that a row of other weights is made anew; None: not trained yet.
        episodes: to be measured.
    """

    task: str
    agent: str
    seed: int
    settings: str
    sac: Run
    make: Callable[[], tuple[Any, Run]]
    made_of: Callable[[], str | None]
    episodes: int

    @property
    def title(self) -> str:
        """For a progress bar."""
        return f"{self.task} s{self.seed}, {self.agent} {self.settings}".strip()

    def is_done(self, rows: pd.DataFrame) -> bool:
        """Whether ``rows`` has it, of the same weights and as many episodes."""
        same = rows[matching(rows, vars(self), (*KEY, "episodes"))]
        made_of = self.made_of()
        return len(same) > 0 and made_of in (None, same["made of"].iloc[0])

    def row(self) -> dict[str, Any]:
        """Measure it."""
        agent, run = self.make()
        sac, random = _scale(self.sac.path, self.task, self.episodes)
        row: dict[str, Any] = {name: vars(self)[name] for name in (*KEY, "episodes")}
        row |= {"steps": run.timesteps, "run": run.name, "made of": self.made_of(), "revision": _revision()}
        found = dict.fromkeys(MEASURES[2:], NOTHING)
        if hasattr(agent, "explain"):
            study = PrototypeStudy.record(agent, self.task, self.episodes, seed=_FIRST_EPISODE)
            returns = np.array([trace.total for trace in study.traces])
            leaders = study.likeness.agent
            found = {name: getattr(leaders, name) for name in MEASURES[2:5]} | {"sharing": study.likeness.sharing}
            row |= {"K": agent.n_prototypes} | {name: getattr(agent, name) for name in SETTINGS}
        else:
            returns = sac
        found |= {"return": bootstrap_mean(returns), "scaled": scaled_return(returns, sac, random)}
        for name in MEASURES:
            row |= columns(name, found[name])
        return {name: float(f"{value:.6g}") if isinstance(value, float) else value for name, value in row.items()}


def scaled_return(returns: np.ndarray, sac: np.ndarray, random: np.ndarray) -> Interval:
    """Mean return on the scale from a random policy (0) to SAC (1), each (N,) on the same episodes, paired."""
    sums = np.stack([returns, sac, random], 1)
    return sums_interval(sums, lambda s: (s[:, 0] - s[:, 2]) / (s[:, 1] - s[:, 2]))


@cache
def _scale(sac: Path, task: str, episodes: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns (N,) of SAC and of a random policy."""
    agents = load_agent(sac), None
    sac_, random = (evaluate_continuous(a, task, episodes, seed=_FIRST_EPISODE).returns for a in agents)
    return sac_, random


def _revision() -> str:
    state = git_state()
    return f"{state['revision'] or 'unknown'!s:.12}{' with changes' if state['dirty'] else ''}"


def make_rows(path: Path | str, jobs: Sequence[Job], *, progress: bool = True) -> pd.DataFrame:
    """Make the rows that are not there yet, and keep each as soon as it is measured; returns all of the file.

    Raises:
        InterpError: the file is damaged, or an agent can't be made.
    """
    from tqdm.auto import tqdm

    path = Path(path)
    with tqdm(jobs, unit="agent", disable=not progress) as bar:
        for job in bar:
            bar.set_description(job.title)
            if not (path.exists() and job.is_done(read_rows(path))):
                keep_row(path, job.row())
    return read_rows(path)


def baseline_jobs(
    folders: Sequence[Path | str], tasks: Iterable[str], *, episodes: int, states: int = 20_000,
    seeds: Iterable[int] | None = None, prototypes: int | None = None,
) -> list[Job]:  # fmt: skip
    """A job for each baseline of every task, for each seed that SAC and ProtoSAC were released with.

    Args:
        folders: of released runs.
        states: that SAC visits for its distillation.
        seeds: only these; None: all.
        prototypes: K of those made of SAC; None: as many as the seed's ProtoSAC has.

    Raises:
        InterpError: no such pair of runs, or fewer than two episodes.
    """
    if episodes < 2:
        raise InterpError(f"an interval needs two episodes or more, not {episodes}.")
    jobs: list[Job] = []
    for task in tasks:
        sacs, ours = ([r for f in folders for r in find_runs(f, algorithm=a, env=task)] for a in ("sac", "protosac"))
        for sac in sacs:
            pair = [run for run in ours if run.seed == sac.seed]
            if pair and (seeds is None or sac.seed in seeds):
                count = prototypes or max(run.config["hyperparameters"]["n_prototypes"] for run in pair)
                jobs += _of_seed(task, sac, pair, count, states, episodes)
    if not jobs:
        raise InterpError(f"no seed of {', '.join(tasks)} has both a sac and a protosac run in {folders[0]}.")
    return jobs


def _of_seed(task: str, sac: Run, ours: Sequence[Run], count: int, states: int, episodes: int) -> Iterator[Job]:
    @cache
    def visited() -> np.ndarray:
        from ..agents.protosac.distilled import visited_states

        return visited_states(load_agent(sac.path), task, states, seed=_FIRST_STATE)

    def imitation(method: str) -> Callable[[], tuple[Any, Run]]:
        from ..agents.protosac import distilled

        return lambda: (getattr(distilled, method)(load_agent(sac.path), visited(), count), sac)

    def job(agent: str, make: Callable[[], tuple[Any, Run]], *parts: object) -> Job:
        return Job(task, agent, sac.seed, "", sac, make, lambda: _digest(sac.path, *parts), episodes)

    yield job(SAC, partial(_loaded, sac))
    yield job(DISTILLED, imitation("distilled"), count, states)
    yield job(MEDOIDS, imitation("k_medoids"), count, states)
    for run in ours:
        encodes = run.config["hyperparameters"].get("space", "encoder") == "encoder"
        yield job(ENCODER if encodes else OURS, partial(_loaded, run), run.path)


def _loaded(run: Run) -> tuple[Any, Run]:
    return load_agent(run.path), run


def sweep_jobs(
    task: str, steps: int, seed: int, values: Mapping[str, Sequence[str]], *, folders: Sequence[Path | str],
    runs_dir: Path | str, episodes: int, progress: bool = True,
) -> list[Job]:  # fmt: skip
    """A job for each combination of settings, which trains a ProtoSAC into ``runs_dir`` first, or goes on with that.

    Args:
        values: setting → the values it is to have, as a command line has them.
        folders: of released SAC runs; that of ``seed``, or else the longest, is the scale.

    Raises:
        InterpError: unknown settings, no SAC run, or fewer than two episodes.
    """
    if episodes < 2:
        raise InterpError(f"an interval needs two episodes or more, not {episodes}.")
    runs = [run for folder in folders for run in find_runs(folder, algorithm="sac", env=task) if run.seed == seed]
    sac = runs[0] if runs else find_run(folders[0], "sac", task, seed=seed)
    jobs: list[Job] = []
    for combination in itertools.product(*values.values()):
        chosen = dict(zip(values, combination, strict=True))
        task_settings(task, chosen)  # a wrong name or value is found before anything is trained
        settings = " ".join(f"{name}={value}" for name, value in chosen.items())
        name = "-".join([task, f"s{seed}", str(steps), *(f"{name}_{value}" for name, value in chosen.items())])
        run_dir = Path(runs_dir) / name
        make = partial(_trained, run_dir, task, steps, seed, chosen, progress)
        made_of = partial(_once_trained, sac, run_dir, steps)
        jobs.append(Job(task, SWEPT, seed, f"{settings} ({steps:,} steps)".strip(), sac, make, made_of, episodes))
    return jobs


def _trained(
    run_dir: Path, task: str, steps: int, seed: int, settings: dict[str, str], progress: bool
) -> tuple[Any, Run]:
    if _steps(run_dir) < steps:
        begun = (run_dir / ALGORITHMS["protosac"].state).exists()
        options = None if begun else settings  # a resumed run has its own
        train(
            "protosac", task, timesteps=steps, seed=seed, run_dir=run_dir, options=options, resume=True,
            progress=progress,
        )  # fmt: skip
    if (reached := _steps(run_dir)) < steps:
        raise KeyboardInterrupt(f"stopped at {reached:,} of {steps:,} steps; the same command goes on from there.")
    return load_agent(run_dir), read_run(run_dir)


def _once_trained(sac: Run, run_dir: Path, steps: int) -> str | None:
    return _digest(sac.path, run_dir) if _steps(run_dir) >= steps else None


def _steps(run_dir: Path) -> int:
    return read_run(run_dir).timesteps if (run_dir / "config.json").exists() else 0


def _digest(*parts: object) -> str:
    """Twelve letters for weights of runs (folders) and numbers."""
    texts = (sha256(part / "policy.safetensors") if isinstance(part, Path) else str(part) for part in parts)
    return hashlib.sha256(" ".join(texts).encode()).hexdigest()[:12]
