"""What every notebook starts with: its profile, its source of agents, and the place its outputs go."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..agents.registry import ALGORITHMS
from ..common.errors import InterpError
from ..common.outputs import Outputs
from ..common.style import use_style
from ..runs.folder import Run, find_run, load_agent, read_run

if TYPE_CHECKING:
    from ..clusters.states import StateSet


@dataclass(frozen=True)
class Profile:
    """How much work a notebook does.

    ``quick`` fits minutes on two CPU cores and shows the methods; ``paper`` is the papers' budgets.
    """

    procgen_steps: int | None  # training steps of a fresh Procgen run; None: the paper's
    procgen_options: Mapping[str, Any]  # settings of a fresh Procgen run that differ from the paper's
    continuous_steps: int | None  # training steps of a fresh continuous run; None: the task's full budget
    evaluation_episodes: int  # a side, Procgen
    continuous_episodes: int
    collect_steps: int  # × 64 environments
    tsne_states: int
    video_episodes: int
    video_frames: int  # a cluster


PROFILES: dict[str, Profile] = {
    "quick": Profile(
        procgen_steps=8_192,
        procgen_options={"num_envs": 16, "num_steps": 64, "num_minibatches": 4, "skill_interval": 2},
        continuous_steps=2_000,
        evaluation_episodes=64,
        continuous_episodes=10,
        collect_steps=100,
        tsne_states=3_000,
        video_episodes=24,
        video_frames=120,
    ),
    "paper": Profile(
        procgen_steps=None,
        procgen_options={},
        continuous_steps=None,
        evaluation_episodes=512,
        continuous_episodes=50,
        collect_steps=500,
        tsne_states=25_600,
        video_episodes=256,
        video_frames=480,
    ),
}


SOURCES = ("pretrained", "fresh")


def check_choices(profile: str, source: str) -> None:
    """Refuse a profile or a source that is none.

    Raises:
        InterpError: unknown; the message lists those there are.
    """
    for what, value, valid in (("profile", profile, tuple(PROFILES)), ("source", source, SOURCES)):
        if value not in valid:
            raise InterpError(f"unknown {what} '{value}'. Valid: {', '.join(valid)}.")


class Workbench:
    """Set-up of one notebook.

    Args:
        notebook: its name, e.g. ``03_embed_and_cluster``.
        profile: ``quick`` or ``paper``.
        source: ``pretrained`` takes released runs, ``fresh`` trains with the profile's budget (and reuses a fresh run
            that is complete).
        figures_dir: where outputs go, in a folder of the notebook's name.
        checkpoints_dir: released runs.
        runs_dir: fresh runs go to ``<runs_dir>/fresh-<profile>``.
        **parameters: the notebook's other parameters, kept with every output.

    Raises:
        InterpError: unknown profile or source.
    """

    def __init__(
        self,
        notebook: str,
        *,
        profile: str,
        source: str,
        figures_dir: str,
        checkpoints_dir: str = "../checkpoints",
        runs_dir: str = "../runs",
        **parameters: Any,
    ) -> None:
        check_choices(profile, source)
        self.profile_name, self.profile, self.source = profile, PROFILES[profile], source
        self.checkpoints, self.runs = Path(checkpoints_dir), Path(runs_dir)
        self.outputs = Outputs(figures_dir, notebook, parameters={"profile": profile, "source": source, **parameters})
        use_style()

    def run(self, algorithm: str, env: str, *, seed: int = 0) -> Run:
        """The run to show: the released one that was trained longest (of equals, that of ``seed``), or a fresh one,
        trained now if need be."""
        if self.source == "pretrained":
            return find_run(self.checkpoints, algorithm, env, seed=seed)
        return train_fresh(self.runs, self.profile_name, algorithm, env, seed)

    def agent(self, algorithm: str, env: str, *, seed: int = 0) -> Any:
        """The agent of :meth:`run`."""
        return load_agent(self.run(algorithm, env, seed=seed).path)

    def states(self, run: Run) -> StateSet:
        """States of an SPPO run as the profile collects them, from a file that all notebooks share."""
        from ..clusters.collect import open_states

        path = states_file(self.outputs.folder, run.name, self.profile_name)
        return open_states(load_agent(run.path), path, steps=self.profile.collect_steps, progress=False)


class Target(NamedTuple):
    """A run that is to be trained until it has ``timesteps``."""

    algorithm: str
    env: str
    seed: int
    timesteps: int

    @property
    def name(self) -> str:
        """Name of the run folder."""
        return f"{self.algorithm}-{self.env}-s{self.seed}"


def states_file(figures: Path | str, run: str, profile: str | None = None) -> Path:
    """Where the states of a run are kept: those of a profile for all notebooks; others beside the run's pictures."""
    return Path(figures) / (f"{run}/states.h5" if profile is None else f"states/{run}-{profile}.h5")


def fresh_run_dir(runs: Path | str, profile: str, run: str) -> Path:
    """Folder of a fresh run, by its name."""
    return Path(runs) / f"fresh-{profile}" / run


def fresh_steps(profile: str, algorithm: str, env: str) -> int:
    """Environment steps of a fresh run."""
    budget = PROFILES[profile]
    steps = budget.procgen_steps if ALGORITHMS[algorithm].procgen else budget.continuous_steps
    return ALGORITHMS[algorithm].full_budget(env) if steps is None else steps


def train_fresh(runs: Path | str, profile: str, algorithm: str, env: str, seed: int, *, progress: bool = True) -> Run:
    """Train a run with the profile's budget; one that is complete is taken as it is, one that was begun goes on.

    Raises:
        InterpError: training failed, or another process trains it.
    """
    from ..runs.training import train

    path = fresh_run_dir(runs, profile, f"{algorithm}-{env}-s{seed}")
    steps = fresh_steps(profile, algorithm, env)
    if not (path / "config.json").exists() or read_run(path).timesteps < steps:
        settings = ALGORITHMS[algorithm].settings_class.__dataclass_fields__
        of_procgen = PROFILES[profile].procgen_options if ALGORITHMS[algorithm].procgen else {}
        options = {name: value for name, value in of_procgen.items() if name in settings}
        how: dict[str, Any] = {"options": options, "resume": path.exists(), "progress": progress}
        train(algorithm, env, timesteps=steps, seed=seed, run_dir=path, **how)
    return read_run(path)
