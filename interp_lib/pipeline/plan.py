"""What `interp reproduce` makes, and from what: the targets of the Snakefile beside this file, with their inputs.

    runs (fresh ones: trained first) → states (frames an SPPO agent saw) → notebooks → report and manifest
                                                                       ↘ explorers ↗

Every target leaves a stamp, figures/.pipeline/<kind>/<name>.json, which Snakemake compares with the target's inputs
and parameters. A plan is made from its settings alone, so that a job on another machine makes the same one.
"""

from __future__ import annotations

import contextlib
import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from ..agents.registry import SEMANTIC_ALGORITHMS
from ..common.errors import InterpError
from ..common.storage import read_json, write_json
from ..envs.names import CONTINUOUS_TASKS, PROCGEN_GAMES, continuous_task, procgen_game
from ..runs.folder import Run, find_run, find_runs
from .imports import PACKAGE, dependencies
from .runner import declared_parameters
from .workbench import PROFILES, fresh_run_dir, fresh_steps, states_file

SOURCES = ("pretrained", "fresh")
STAMPS = ".pipeline"
PLAN = f"{STAMPS}/plan.json"
_NO_RUN = (InterpError, ValueError, KeyError, StopIteration)  # no such run: the notebook that wants it says so


class Use(NamedTuple):
    """Runs a notebook shows: these algorithms on the environment its parameter ``env`` names.

    ``seed`` is a parameter's name or a number. It matters to fresh runs; of released ones every seed may be shown.
    """

    algorithms: tuple[str, ...]
    env: str
    seed: str | int


_PROCGEN, _CONTINUOUS = ("ppo", "sppo"), ("sac", "protosac")
# Stated here, and checked against what each output says it was made from (jobs.run_notebook_job).
USES: dict[str, tuple[Use, ...]] = {
    "01_train": (Use(_PROCGEN, "env", "seed"), Use(_CONTINUOUS, "task", 0)),
    "02_evaluate_generalization": (Use(_PROCGEN, "env", "seed"), Use(_CONTINUOUS, "task", 0)),
    "03_embed_and_cluster": (Use(_PROCGEN, "env", "seed"),),
    "04_prototype_visualization": (Use(_CONTINUOUS, "task", "seed"), Use(("sppo",), "game", 2021)),
}
COMPARES_ALL = frozenset({"02_evaluate_generalization"})  # of released runs, besides its own
PROTOTYPES_OF = frozenset({"04_prototype_visualization"})  # whose ProtoSAC run gets a page to explore
STATES_OF = {"03_embed_and_cluster": "env", "04_prototype_visualization": "game"}  # whose SPPO run is collected from


class FreshRun(NamedTuple):
    """A run that ``--source fresh`` trains."""

    algorithm: str
    env: str
    seed: int
    steps: int

    @property
    def name(self) -> str:
        """Name of the run folder."""
        return f"{self.algorithm}-{self.env}-s{self.seed}"


@dataclass(frozen=True)
class Settings:
    """What the user asked for. Folders are absolute; ``only`` holds the stems of the chosen notebooks."""

    profile: str
    source: str
    env: str | None
    only: tuple[str, ...]
    figures: str
    notebooks: str


@dataclass(frozen=True)
class Plan:
    """Targets and inputs that follow from ``settings``."""

    settings: Settings
    _declared: dict[str, dict[str, Any]] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def read(cls, path: Path | str) -> Plan:
        """Read the settings that :meth:`write` left.

        Raises:
            InterpError: the file is missing or damaged.
        """
        value = read_json(path)
        return cls(Settings(**{**value, "only": tuple(value["only"])}))

    def write(self) -> None:
        """Leave the settings where jobs look for them."""
        write_json(self.figures / PLAN, asdict(self.settings))

    @property
    def figures(self) -> Path:
        """The figures folder."""
        return Path(self.settings.figures)

    @property
    def checkpoints(self) -> Path:
        """Released runs: beside the notebooks' folder, where the notebooks look for them too."""
        return Path(self.settings.notebooks).parent / "checkpoints"

    @property
    def runs(self) -> Path:
        """Where fresh runs are trained."""
        return Path(self.settings.notebooks).parent / "runs"

    # -- notebooks ----------------------------------------------------------------------------------------------

    def notebook(self, stem: str) -> Path:
        """The file of a notebook."""
        return Path(self.settings.notebooks) / f"{stem}.ipynb"

    def parameters(self, stem: str) -> dict[str, Any]:
        """What is injected into a notebook: of the settings those that it declares.

        Raises:
            InterpError: it has no parameters cell, or can't be read.
        """
        declared = self._defaults(stem)
        settings = {
            "profile": self.settings.profile,
            "source": self.settings.source,
            "figures_dir": self.settings.figures,
        }
        chosen = {name: value for name, value in settings.items() if name in declared}
        return chosen | dict.fromkeys(environment_parameters(declared, self.settings.env), self.settings.env)

    def shown_parameters(self, stem: str) -> dict[str, Any]:
        """The parameters that can change a result: all but the folder."""
        try:
            return {name: value for name, value in self.parameters(stem).items() if name != "figures_dir"}
        except InterpError as error:
            return {"unreadable": str(error)}

    def notebook_inputs(self, stem: str) -> list[str]:
        """Files whose change makes a notebook's outputs old: itself, code, runs and collected states.

        Raises:
            SyntaxError: a module can't be parsed.
        """
        path = self.notebook(stem)
        inputs = [str(path)]
        try:
            inputs += map(str, dependencies(path))
            inputs += self.fresh_stamps(stem) if self.settings.source == "fresh" else self._released_files(stem)
            run = self._states_run(stem)
            inputs += self._states_files(run) if run else []
        except (InterpError, ValueError, KeyError):
            pass  # running it will say what is wrong with it
        return inputs

    def is_current(self, stem: str) -> bool:
        """Whether the notebook's outputs are in the report: chosen now, or made before."""
        return stem in self.settings.only or (self.figures / stamp("notebooks", stem)).exists()

    def _defaults(self, stem: str) -> dict[str, Any]:
        if stem not in self._declared:
            self._declared[stem] = declared_parameters(self.notebook(stem))
        return self._declared[stem]

    def _value(self, stem: str, name: str) -> Any:
        return {**self._defaults(stem), **self.parameters(stem)}.get(name)

    def _uses(self, stem: str) -> list[tuple[tuple[str, ...], str, int]]:
        found = []
        for use in USES.get(stem, ()):
            env, seed = self._value(stem, use.env), use.seed
            if isinstance(env, str):
                canonical = procgen_game if use.algorithms[0] in SEMANTIC_ALGORITHMS else continuous_task
                found.append(
                    (use.algorithms, canonical(env), self._value(stem, seed) if isinstance(seed, str) else seed)
                )
        return found

    def may_use(self, stem: str, run: str) -> bool:
        """Whether ``run`` is one of those the plan counts among the notebook's inputs."""
        if stem not in USES or (stem in COMPARES_ALL and self.settings.source == "pretrained"):
            return True
        return any(
            run.rpartition("-s")[0] == f"{algorithm}-{env}"
            for algorithms, env, _ in self._uses(stem)
            for algorithm in algorithms
        )

    def _released_files(self, stem: str) -> list[str]:
        runs = [run for run in _released(self.checkpoints) if self.may_use(stem, run.name)]
        return [file for run in runs for file in run_files(run)]

    # -- states and explorers -----------------------------------------------------------------------------------

    def _states_run(self, stem: str) -> str | None:
        """Name of the SPPO run a notebook collects states of; None where it has none, or the run is missing."""
        if stem not in STATES_OF:
            return None
        env = procgen_game(self._value(stem, STATES_OF[stem]))
        if self.settings.source == "fresh":
            return next(r.name for r in self.fresh_runs([stem]) if r.algorithm == "sppo" and r.env == env)
        return self._shown(env).name

    def _shown(self, env: str) -> Run:
        return find_run(self.checkpoints, "sppo", env, seed=2021)

    def states_target(self, run: str) -> str:
        """The file of a run's states, relative to the figures folder."""
        return states_file(self.figures, run, self.settings.profile).relative_to(self.figures).as_posix()

    @property
    def collect_steps(self) -> int:
        """Steps of 64 environments that states are collected for."""
        return PROFILES[self.settings.profile].collect_steps

    def states_inputs(self, run: str) -> list[str]:
        """The run, and the code that plays it and writes states."""
        code = [*map(str, dependencies(PACKAGE / "clusters/states.py")), str(PACKAGE / "clusters/states.py")]
        return [*code, *self._run_inputs(run)]

    def _prototype_run(self, stem: str) -> tuple[str, int] | None:
        """Name of the ProtoSAC run a notebook explains, and the seed it shows; None where it explains none."""
        if stem not in PROTOTYPES_OF:
            return None
        env, seed = next((env, seed) for algorithms, env, seed in self._uses(stem) if "protosac" in algorithms)
        if self.settings.source == "fresh":
            return next(run.name for run in self.fresh_runs([stem]) if run.algorithm == "protosac"), seed
        return find_run(self.checkpoints, "protosac", env, seed=seed).name, seed

    def _states_files(self, run: str) -> list[str]:
        """What waits for the states of a run waits for their stamp as well: a file alone may be a notebook's, run by
        itself, and nothing would say what it was made of."""
        return [stamp("states", run), self.states_target(run)]

    def states_runs(self) -> list[str]:
        """Runs whose states the chosen notebooks show."""
        found: set[str | None] = set()
        for stem in self.settings.only:
            with contextlib.suppress(*_NO_RUN):
                found.add(self._states_run(stem))
        return sorted(run for run in found if run)

    def explorers(self) -> list[str]:
        """Runs that get a page to explore: those whose states are collected, and the ProtoSAC run that is explained."""
        return sorted({*self.states_runs(), *self._prototype_runs()})

    def _prototype_runs(self) -> dict[str, int]:
        """ProtoSAC runs that get a page to explore, each with the seed of its episodes."""
        found = []
        for stem in self.settings.only:
            with contextlib.suppress(*_NO_RUN):
                found.append(self._prototype_run(stem))
        return dict(run for run in found if run)

    def explorer_inputs(self, run: str) -> list[str]:
        """The run, for clusters its states, and the code that makes the page."""
        prototypes = run in self._prototype_runs()
        file = PACKAGE / ("prototypes/page.py" if prototypes else "clusters/page.py")
        inputs = [str(file), *map(str, dependencies(file)), *self._run_inputs(run)]
        return inputs if prototypes else [*inputs, *self._states_files(run)]

    def explorer_parameters(self, run: str) -> dict[str, int]:
        """Episodes behind the page of a ProtoSAC run and the seed of the first, as in the notebook that explains it;
        empty for clusters, whose states the profile chooses."""
        seed = self._prototype_runs().get(run)
        return {} if seed is None else {"episodes": PROFILES[self.settings.profile].continuous_episodes, "seed": seed}

    def _run_inputs(self, run: str) -> list[str]:
        if self.settings.source == "fresh":
            return [stamp("train", run)]
        return run_files(self.run(run))

    def run(self, name: str) -> Run:
        """A run of this plan by its name.

        Raises:
            InterpError: it is missing or damaged.
        """
        from ..runs.folder import read_run

        fresh = fresh_run_dir(self.runs, self.settings.profile, name)
        return read_run(fresh if self.settings.source == "fresh" else self.checkpoints / name)

    # -- fresh runs ---------------------------------------------------------------------------------------------

    def fresh_runs(self, stems: Iterable[str] | None = None) -> list[FreshRun]:
        """What ``--source fresh`` trains for the chosen notebooks."""
        if self.settings.source != "fresh":
            return []
        found: dict[str, FreshRun] = {}
        for stem in self.settings.only if stems is None else stems:
            try:
                uses = self._uses(stem)
            except InterpError:
                continue
            for algorithms, env, seed in uses:
                for algorithm in algorithms:
                    run = FreshRun(algorithm, env, seed, fresh_steps(self.settings.profile, algorithm, env))
                    found[run.name] = run
        return list(found.values())

    def fresh_stamps(self, stem: str) -> list[str]:
        """Stamps of the fresh runs a notebook shows."""
        return [stamp("train", run.name) for run in self.fresh_runs([stem])]

    def training(self, name: str) -> FreshRun:
        """The fresh run of this name."""
        return next(run for run in self.fresh_runs() if run.name == name)

    # -- report -------------------------------------------------------------------------------------------------

    def report_inputs(self) -> list[str]:
        """Stamps of everything that is shown, and the code of page and manifest."""
        files = [PACKAGE / "pipeline" / name for name in ("report.py", "manifest.py")]
        code = {*files, *(file for start in files for file in dependencies(start))}
        return [*self.made_stamps(), *sorted(map(str, code))]

    def made_stamps(self) -> list[str]:
        """Stamps of the notebooks and explorers on the page."""
        stamps = [stamp("notebooks", stem) for stem in self.all_notebooks() if self.is_current(stem)]
        return stamps + [stamp("explorers", run) for run in self.explorers()]

    def all_notebooks(self) -> list[str]:
        """Stems of the numbered notebooks, chosen or not."""
        return [path.stem for path in numbered_notebooks(Path(self.settings.notebooks))]


def stamp(kind: str, name: str) -> str:
    """Where a target of ``kind`` (train, states, notebooks, explorers) leaves its stamp, below the figures folder."""
    return f"{STAMPS}/{kind}/{name}.json"


def run_files(run: Run) -> list[str]:
    """The files of a released run that a notebook may read."""
    names = [*run.config.get("files", ()), "config.json", "card.md", "descriptions.yml"]
    return [str(run.path / name) for name in names if (run.path / name).is_file()]


def _released(folder: Path) -> list[Run]:
    return find_runs(folder) if folder.is_dir() else []


def numbered_notebooks(folder: Path) -> list[Path]:
    """``NN_*.ipynb`` of a folder, in order; those that Snakemake has no way to name are left out."""
    return [path for path in sorted(folder.glob("*.ipynb")) if re.fullmatch(r"\d+_[\w .,()+-]*", path.stem)]


def select_notebooks(folder: Path, only: str | Iterable[str] | None = None) -> list[Path]:
    """The numbered notebooks of ``folder`` in order, or those that ``only`` names by number or by name.

    Raises:
        InterpError: there are none, or ``only`` names one that isn't there.
    """
    found = {path.stem: path for path in numbered_notebooks(folder)}
    if not found:
        raise InterpError(f"no numbered notebooks in {folder.resolve()}. Run this in the repository's root.")
    if only is None:
        return list(found.values())
    wanted = [part.strip() for part in (only.split(",") if isinstance(only, str) else only)]
    chosen = set()
    for word in wanted:
        stem = word.removesuffix(".ipynb")
        matches = [s for s in found if s == stem or (stem.isdigit() and int(s.split("_")[0]) == int(stem))]
        if not matches:
            raise InterpError(f"no notebook '{word}'. Valid: {', '.join(found)} (or just the number).")
        chosen.update(matches)
    return [path for stem, path in found.items() if stem in chosen]


def make_plan(
    *,
    profile: str,
    source: str,
    only: str | Iterable[str] | None,
    env: str | None,
    figures: Path | str,
    notebooks: Path | str,
) -> Plan:
    """The plan for what a user asked for.

    Raises:
        InterpError: an argument is unknown, or none of the chosen notebooks works on ``env``.
    """
    _one_of("profile", profile, tuple(PROFILES))
    _one_of("source", source, SOURCES)
    env = canonical_environment(env) if env is not None else None
    chosen = select_notebooks(Path(notebooks), only)
    if env is not None and not any(_takes_environment(path, env) for path in chosen):
        raise InterpError(f"none of {', '.join(p.stem for p in chosen)} works on '{env}'. Leave out --env or --only.")
    stems = tuple(path.stem for path in chosen)
    places = str(Path(figures).resolve()), str(Path(notebooks).resolve())
    return Plan(Settings(profile, source, env, stems, *places))


def environments_of(notebooks: Path | str, only: str | Iterable[str] | None = None) -> dict[str, list[str]]:
    """Environments of released SPPO and ProtoSAC runs, each with the chosen notebooks that are about one environment.

    Raises:
        InterpError: an argument is unknown, no such agent is released, or no chosen notebook is about one environment.
    """
    plan = make_plan(profile="quick", source="pretrained", only=only, env=None, figures="", notebooks=notebooks)
    shown = {run.env for run in _released(plan.checkpoints) if run.algorithm in ("sppo", "protosac")}
    found = {}
    for env in (*PROCGEN_GAMES, *CONTINUOUS_TASKS):
        stems = [s for s in plan.settings.only if s not in COMPARES_ALL and _takes_environment(plan.notebook(s), env)]
        if stems and env in shown:
            found[env] = stems
    if not found:
        raise InterpError(
            f"nothing to show of every environment: none of {', '.join(plan.settings.only)} is about one that has an "
            f"SPPO or ProtoSAC run in {plan.checkpoints}."
        )
    return found


ENVIRONMENT_PARAMETERS = ("env", "task")  # Procgen game, continuous task


def environment_parameters(declared: Mapping[str, Any], env: str | None) -> list[str]:
    """The parameters of a notebook that take ``env``: those whose default is an environment of its kind."""
    if env is None:
        return []
    kinds = [kind for kind in (procgen_game, continuous_task) if _valid(env, kind)]
    defaults = {name: declared.get(name) for name in ENVIRONMENT_PARAMETERS}
    return [name for name, value in defaults.items() if isinstance(value, str) and any(_valid(value, k) for k in kinds)]


def canonical_environment(name: str) -> str:
    """A Procgen game's or a continuous task's own name.

    Raises:
        InterpError: it is neither.
    """
    for canonical in (procgen_game, continuous_task):
        try:
            return canonical(name)
        except InterpError:
            continue
    valid = (*PROCGEN_GAMES, *CONTINUOUS_TASKS)
    near = difflib.get_close_matches(name.lower(), valid, n=3, cutoff=0.5)
    hint = f"Did you mean {' or '.join(near)}?" if near else f"Valid names: {', '.join(valid)}."
    raise InterpError(f"unknown environment '{name}'. {hint}")


def _one_of(name: str, value: str, valid: tuple[str, ...]) -> None:
    if value not in valid:
        raise InterpError(f"unknown {name} '{value}'. Valid: {', '.join(valid)}.")


def _valid(name: str, canonical: Any) -> bool:
    try:
        canonical(name)
    except InterpError:
        return False
    return True


def _takes_environment(path: Path, env: str) -> bool:
    try:
        return bool(environment_parameters(declared_parameters(path), env))
    except InterpError:
        return True  # a broken notebook is reported as such when its turn comes
