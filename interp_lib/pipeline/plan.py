"""What `interp reproduce` makes, and from what: the targets of the Snakefile beside this file, with their inputs.

    runs (fresh ones: trained first) → states (frames an SPPO agent saw) → notebooks → report and manifest
                                                                       ↘ explorers ↗

Every target leaves a stamp, figures/.pipeline/<kind>/<name>.json, which Snakemake compares with the target's inputs
and parameters. A plan is made from what the user asked for alone, so that a job on another machine makes the same one.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

from ..agents.registry import ALGORITHMS
from ..common.errors import InterpError
from ..common.storage import read_json, write_json
from ..envs.names import CONTINUOUS_TASKS, PROCGEN_GAMES
from ..runs.folder import Run, find_run, find_runs, read_run
from .imports import PACKAGE, dependencies
from .notebooks import (
    canonical_environment,
    declared_needs,
    declared_parameters,
    environment_parameters,
    numbered_notebooks,
    select_notebooks,
    takes_environment,
)
from .workbench import PROFILES, Target, check_choices, fresh_run_dir, fresh_steps, states_file

STAMPS = ".pipeline"
PLAN = f"{STAMPS}/plan.json"
_NO_RUN = (InterpError, ValueError, KeyError)  # no such run: the notebook that wants it says so


class Shown(NamedTuple):
    """A run that a notebook shows, and whether what it explains is collected and gets a page."""

    algorithm: str
    env: str
    seed: int
    explored: bool


@dataclass(frozen=True)
class Plan:
    """What the user asked for, and the targets and inputs that follow from it.

    Folders are absolute; ``only`` holds the stems of the chosen notebooks.
    """

    profile: str
    source: str
    env: str | None
    only: tuple[str, ...]
    figures: Path
    notebooks: Path

    @classmethod
    def read(cls, path: Path | str) -> Plan:
        """Read what :meth:`write` left.

        Raises:
            InterpError: the file is missing or damaged.
        """
        value = read_json(path)
        folders = {name: Path(value[name]) for name in ("figures", "notebooks")}
        return cls(**{**value, **folders, "only": tuple(value["only"])})

    def write(self) -> None:
        """Leave the plan where jobs look for it."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        write_json(self.figures / PLAN, values | {"figures": str(self.figures), "notebooks": str(self.notebooks)})

    @property
    def fresh(self) -> bool:
        """Whether runs are trained, and not the released ones shown."""
        return self.source == "fresh"

    @property
    def checkpoints(self) -> Path:
        """Released runs: beside the notebooks' folder, where the notebooks look for them too."""
        return self.notebooks.parent / "checkpoints"

    @property
    def runs(self) -> Path:
        """Where fresh runs are trained."""
        return self.notebooks.parent / "runs"

    # -- notebooks ----------------------------------------------------------------------------------------------

    def notebook(self, stem: str) -> Path:
        """The file of a notebook."""
        return self.notebooks / f"{stem}.ipynb"

    def parameters(self, stem: str) -> dict[str, Any]:
        """What is injected into a notebook: of what was asked for that which it declares.

        Raises:
            InterpError: it has no parameters cell, or can't be read.
        """
        declared = declared_parameters(self.notebook(stem))
        asked = {"profile": self.profile, "source": self.source, "figures_dir": str(self.figures)}
        chosen = {name: value for name, value in asked.items() if name in declared}
        return chosen | dict.fromkeys(environment_parameters(declared, self.env), self.env)

    def shown_parameters(self, stem: str) -> dict[str, Any]:
        """The parameters that can change a result: all but the folder."""
        try:
            return {name: value for name, value in self.parameters(stem).items() if name != "figures_dir"}
        except InterpError as error:
            return {"unreadable": str(error)}

    def notebook_inputs(self, stem: str) -> list[str]:
        """Files whose change makes a notebook's outputs old: itself, code, runs, data beside them and collected states.

        Raises:
            grimp.exceptions.SourceSyntaxError: a module can't be parsed.
        """
        inputs = [str(self.notebook(stem))]
        with contextlib.suppress(*_NO_RUN):  # running it will say what is wrong with it
            inputs += map(str, dependencies(self.notebook(stem)))
            if self.fresh:
                inputs += [stamp("train", run.name) for run in self.fresh_runs([stem])]
            else:
                inputs += [file for run in _released(self.checkpoints) if self.may_use(stem, run.name)
                           for file in run_files(run)]  # fmt: skip
            data = (self.checkpoints / name for name in (declared_needs(self.notebook(stem)) or {}).get("data", ()))
            inputs += [str(file) for file in data if file.is_file()]
            for run in self._explored([stem], "clusters"):
                inputs += self._states_files(run)
        return inputs

    def _shown(self, stem: str) -> Iterator[Shown]:
        """The runs a notebook names in its metadata."""
        for use in (declared_needs(self.notebook(stem)) or {}).get("runs", ()):
            values = declared_parameters(self.notebook(stem)) | self.parameters(stem)
            for algorithm in use["algorithms"]:
                if isinstance(env := values.get(use["env"]), str):
                    seed = values.get(use["seed"], use["seed"])
                    yield Shown(algorithm, ALGORITHMS[algorithm].full_name(env), seed, use.get("explored", False))

    def may_use(self, stem: str, run: str) -> bool:
        """Whether ``run`` is one of those the plan counts among the notebook's inputs; variants are."""
        needs = declared_needs(self.notebook(stem))
        if needs is None or (needs.get("compares_all") and not self.fresh):
            return True
        of = run.rpartition("-s")[0] + "-"
        return any(of.startswith(f"{shown.algorithm}-{shown.env}-") for shown in self._shown(stem))

    # -- states and explorers -----------------------------------------------------------------------------------

    def _explored(self, stems: Iterable[str], what: str) -> dict[str, Shown]:
        """Names of the runs whose ``what``, clusters or prototypes, notebooks let explore."""
        found = {}
        for stem in stems:
            with contextlib.suppress(*_NO_RUN):
                for shown in self._shown(stem):
                    if shown.explored and ALGORITHMS[shown.algorithm].explains == what:
                        run = f"{shown.algorithm}-{shown.env}-s{shown.seed}"
                        if not self.fresh:
                            run = find_run(self.checkpoints, shown.algorithm, shown.env, seed=shown.seed).name
                        found[run] = shown
        return found

    def states_target(self, run: str) -> str:
        """The file of a run's states, relative to the figures folder."""
        return states_file(self.figures, run, self.profile).relative_to(self.figures).as_posix()

    @property
    def collect_steps(self) -> int:
        """Steps of 64 environments that states are collected for."""
        return PROFILES[self.profile].collect_steps

    def states_inputs(self, run: str) -> list[str]:
        """The run, and the code that plays it and writes states."""
        return [*_code("clusters/collect.py"), *self._run_inputs(run)]

    def _states_files(self, run: str) -> list[str]:
        """What waits for the states of a run waits for their stamp as well: a file alone may be a notebook's, run by
        itself, and nothing would say what it was made of."""
        return [stamp("states", run), self.states_target(run)]

    def states_runs(self) -> list[str]:
        """Runs whose states the chosen notebooks show."""
        return sorted(self._explored(self.only, "clusters"))

    def explorers(self) -> list[str]:
        """Runs that get a page to explore: those whose states are collected, and the ProtoSAC run that is explained."""
        return sorted({*self.states_runs(), *self._explored(self.only, "prototypes")})

    def explorer_inputs(self, run: str) -> list[str]:
        """The run, for clusters its states, and the code that makes the page."""
        if run in self._explored(self.only, "prototypes"):
            return [*_code("prototypes/page.py"), *self._run_inputs(run)]
        return [*_code("clusters/page.py"), *self._run_inputs(run), *self._states_files(run)]

    def explorer_parameters(self, run: str) -> dict[str, int]:
        """Episodes behind the page of a ProtoSAC run and the seed of the first, as in the notebook that explains it;
        empty for clusters, whose states the profile chooses."""
        shown = self._explored(self.only, "prototypes").get(run)
        return {"episodes": PROFILES[self.profile].continuous_episodes, "seed": shown.seed} if shown else {}

    def _run_inputs(self, run: str) -> list[str]:
        return [stamp("train", run)] if self.fresh else run_files(self.run(run))

    def run(self, name: str) -> Run:
        """A run of this plan by its name.

        Raises:
            InterpError: it is missing or damaged.
        """
        return read_run(fresh_run_dir(self.runs, self.profile, name) if self.fresh else self.checkpoints / name)

    # -- fresh runs ---------------------------------------------------------------------------------------------

    def fresh_runs(self, stems: Iterable[str] | None = None) -> list[Target]:
        """What ``--source fresh`` trains for the chosen notebooks."""
        found: dict[str, Target] = {}
        for stem in (self.only if stems is None else stems) if self.fresh else ():
            with contextlib.suppress(InterpError):
                for algorithm, env, seed, _ in self._shown(stem):
                    run = Target(algorithm, env, seed, fresh_steps(self.profile, algorithm, env))
                    found[run.name] = run
        return list(found.values())

    def training(self, name: str) -> Target:
        """The fresh run of this name."""
        return next(run for run in self.fresh_runs() if run.name == name)

    # -- report -------------------------------------------------------------------------------------------------

    def report_inputs(self) -> list[str]:
        """Stamps of everything that is shown, and the code of page and manifest."""
        return [*self.made_stamps(), *sorted({*_code("pipeline/report.py"), *_code("pipeline/manifest.py")})]

    def made_stamps(self) -> list[str]:
        """Stamps of the notebooks, chosen now or made before, and explorers on the page."""
        stamps = {path.stem: stamp("notebooks", path.stem) for path in numbered_notebooks(self.notebooks)}
        shown = [file for stem, file in stamps.items() if stem in self.only or (self.figures / file).exists()]
        return shown + [stamp("explorers", run) for run in self.explorers()]


def stamp(kind: str, name: str) -> str:
    """Where a target of ``kind`` (train, states, notebooks, explorers) leaves its stamp, below the figures folder."""
    return f"{STAMPS}/{kind}/{name}.json"


def run_files(run: Run) -> list[str]:
    """The files of a released run that a notebook may read."""
    names = [*run.config.get("files", ()), "config.json", "card.md", "descriptions.yml"]
    return [str(run.path / name) for name in names if (run.path / name).is_file()]


def _code(module: str) -> list[str]:
    return [str(PACKAGE / module), *map(str, dependencies(PACKAGE / module))]


def _released(folder: Path) -> list[Run]:
    return find_runs(folder) if folder.is_dir() else []


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
    check_choices(profile, source)
    env = canonical_environment(env) if env is not None else None
    chosen = select_notebooks(Path(notebooks), only)
    if env is not None and not any(takes_environment(path, env) for path in chosen):
        raise InterpError(f"none of {', '.join(p.stem for p in chosen)} works on '{env}'. Leave out --env or --only.")
    stems = tuple(path.stem for path in chosen)
    return Plan(profile, source, env, stems, Path(figures).resolve(), Path(notebooks).resolve())


def environments_of(notebooks: Path | str, only: str | Iterable[str] | None = None) -> dict[str, list[str]]:
    """Environments of released SPPO and ProtoSAC runs, each with the chosen notebooks that are about one environment.

    Raises:
        InterpError: an argument is unknown, no such agent is released, or no chosen notebook is about one environment.
    """
    plan = make_plan(profile="quick", source="pretrained", only=only, env=None, figures="", notebooks=notebooks)
    explained = {run.env for run in _released(plan.checkpoints) if ALGORITHMS[run.algorithm].explains}
    about_one = [path for path in map(plan.notebook, plan.only)
                 if not (declared_needs(path) or {}).get("compares_all")]  # fmt: skip
    found = {env: [path.stem for path in about_one if takes_environment(path, env)]
             for env in (*PROCGEN_GAMES, *CONTINUOUS_TASKS) if env in explained}  # fmt: skip
    found = {env: stems for env, stems in found.items() if stems}
    if not found:
        raise InterpError(
            f"nothing to show of every environment: none of {', '.join(plan.only)} is about one that has an "
            f"SPPO or ProtoSAC run in {plan.checkpoints}."
        )
    return found
