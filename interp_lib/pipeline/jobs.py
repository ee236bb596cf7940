"""One job of the Snakefile: `python -m interp_lib.pipeline.jobs PARENT KIND NAME OUTPUT`, run in the figures folder.

A job that succeeds leaves its output, for most kinds a stamp: what it made, from what, on what and in what time.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..common.errors import InterpError
from ..common.outputs import clear_outputs, saved_outputs
from ..common.pages import ExplorerInfo
from ..common.processes import end_with_parent, ending_orderly
from ..common.provenance import provenance
from ..common.storage import write_json
from ..common.surroundings import settle
from ..runs.checks import run_digest
from ..runs.folder import Run, load_agent, read_run, sha256
from .manifest import write_manifest
from .plan import PLAN, Plan
from .progress import Watcher
from .report import build_report, export_html
from .runner import NotebookError, NotebookResult, run_notebook
from .workbench import train_fresh

if TYPE_CHECKING:
    from ..clusters.states import StateSet


def main() -> int:
    """Do one job; the exit code says whether it succeeded, and why not is one line on stderr.

    PARENT is the id of the process that started this: the job ends with it.
    """
    parent, kind, name, output = sys.argv[1:]
    settle()
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # a kernel that is stopped leaves it with tracebacks
    end_with_parent(int(parent))  # a killed Snakemake must leave nothing that writes beside its next
    with ending_orderly() as ending:
        try:
            JOBS[kind](Plan.read(PLAN), name, Path(output))
        except InterpError as error:
            print(f"{name}: {error}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            return ending.status
    return 0


def train_job(plan: Plan, name: str, output: Path) -> None:
    """Train a fresh run, or take the one that is complete."""
    run = plan.training(name)
    with _timed(name) as timer:
        trained = train_fresh(plan.runs, plan.profile, run.algorithm, run.env, run.seed, progress=_shows_bars())
    _leave(output, timer, run=trained.name, timesteps=trained.timesteps)


def states_job(plan: Plan, name: str, output: Path) -> None:
    """Collect the states of an SPPO run."""
    from ..clusters.collect import open_states

    with _timed(f"states of {name}") as timer:
        agent = load_agent(plan.run(name).path)
        states = plan.figures / plan.states_target(name)
        open_states(agent, states, steps=plan.collect_steps, progress=False)
    _leave(output, timer, steps=plan.collect_steps)


def notebook_job(plan: Plan, name: str, output: Path) -> None:
    """Execute a notebook, with an .ipynb and an .html copy, and check that it used what the plan says.

    Raises:
        InterpError: an output was made from a run the plan doesn't count among the inputs, so that a change of that
            run would go unnoticed.
        SystemExit: a cell failed, which has been said.
    """
    result = refresh(plan, name)
    if result.error:
        sys.exit(1)
    outputs = saved_outputs(plan.figures).get(name, [])
    runs = {run.name: run.folder for output in outputs for run in output.runs}
    hidden = sorted(run for run in runs if not plan.may_use(name, run))
    if hidden:
        raise InterpError(f"it showed {', '.join(hidden)}, which its metadata (interp: runs) do not name.")
    files = {f"{name}/{file}": digest for output in outputs for file, digest in output.files.items()}
    folders = {run: plan.figures / folder if folder else None for run, folder in sorted(runs.items())}
    digests = {run: run_digest(read_run(folder)) if folder else None for run, folder in folders.items()}
    _leave(output, result.seconds, parameters=plan.shown_parameters(name), runs=digests, files=files)


def explorer_job(plan: Plan, name: str, output: Path) -> None:
    """Write the page on which the clusters or prototypes of a run can be explored without Python."""
    from ..clusters.states import load_states

    run, parameters = plan.run(name), plan.explorer_parameters(name)
    page = plan.figures / "explorers" / f"{name}.html"
    with _timed(f"explorer of {name}") as timer:
        agent, states = load_agent(run.path), None
        if run.record.explains != "prototypes":
            states = load_states(plan.figures / plan.states_target(name), agent)
        write_explorer(agent, run, page, states, **parameters)
    files = {f"explorers/{page.name}": sha256(page)}
    _leave(output, timer, parameters=parameters, runs={name: run_digest(run)}, files=files)


def write_explorer(
    agent: Any, run: Run, page: Path, states: StateSet | None, *, episodes: int = 10, seed: int = 0
) -> ExplorerInfo:
    """Write the page of an SPPO run's clusters in ``states`` or, without, of a ProtoSAC run's prototypes in episodes.

    Raises:
        InterpError: the run's descriptions are damaged, or the page can't be written.
    """
    if states is None:
        from ..prototypes.page import export_prototype_explorer
        from ..prototypes.traces import record_episodes

        return export_prototype_explorer(
            agent, record_episodes(agent, run.env, episodes, seed=seed), page, run=run.name
        )
    from ..clusters.descriptions import read_descriptions
    from ..clusters.page import export_explorer

    return export_explorer(agent, states, page, descriptions=read_descriptions(run.path, states.num_codes))


def report_job(plan: Plan, *target: object) -> None:
    """Write page and manifest from what lies in the figures folder."""
    write_manifest(plan.figures)
    build_report(plan.figures)


JOBS: dict[str, Callable[..., None]] = {
    "train": train_job,
    "states": states_job,
    "notebook": notebook_job,
    "explorer": explorer_job,
    "report": report_job,
}


def refresh(plan: Plan, stem: str) -> NotebookResult:
    """Redo everything one notebook makes: its outputs, its executed copy (.ipynb and .html) and its result.

    What an earlier run left goes first: old pictures must not pass for new ones.

    Returns:
        The result, which is also kept as ``<figures>/executed/<notebook>.result.json`` for the report.
    """
    executed = plan.figures / "executed" / f"{stem}.ipynb"
    clear_outputs(plan.figures, stem)
    for stale in (executed, executed.with_suffix(".html"), executed.with_suffix(".result.json")):
        stale.unlink(missing_ok=True)
    with Watcher(stem, bars=_shows_bars()) as watcher:
        # Should this process be killed, the report mustn't take what is there by then for everything.
        _record(NotebookResult(stem, "stopped", 0.0, NotebookError("Interrupted", "it did not finish"), executed))
        try:
            parameters = plan.parameters(stem)
        except InterpError as problem:
            result = NotebookResult(stem, "failed", 0.0, NotebookError("InterpError", str(problem)), executed)
        else:
            result = run_notebook(plan.notebook(stem), executed, parameters, on_cell=watcher.cell)
        if executed.is_file():
            export_html(executed)
        _record(result)
        failure = f": {result.error}" if result.error else ""
        watcher.finish(f"{result.status} in {duration(result.seconds)}{failure}")
    return result


def duration(seconds: float) -> str:
    """Seconds as people say them."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    if seconds < 5400:
        return f"{int(seconds) // 60} min {int(seconds) % 60:02d} s"
    return f"{seconds / 3600:.1f} h"


def _record(result: NotebookResult) -> None:
    value = asdict(result) | {"executed_path": result.executed_path.name}
    write_json(result.executed_path.with_suffix(".result.json"), value)


def _leave(output: Path, seconds: float | list[float], **made: Any) -> None:
    taken = seconds[0] if isinstance(seconds, list) else seconds
    write_json(output, {"seconds": round(taken, 1), **made, "provenance": provenance()})


@contextlib.contextmanager
def _timed(what: str) -> Iterator[list[float]]:
    """Say what begins and how long it took; the list holds the seconds afterwards."""
    print(what, file=sys.stderr, flush=True)
    started, seconds = time.monotonic(), [0.0]
    yield seconds
    seconds[0] = time.monotonic() - started
    print(f"{what}  done in {duration(seconds[0])}", file=sys.stderr, flush=True)


def _shows_bars() -> bool:
    """Whether this job has the terminal for itself (reproduce.py says so)."""
    return os.environ.get("INTERP_BARS") == "1" and sys.stderr.isatty()


if __name__ == "__main__":
    sys.exit(main())
