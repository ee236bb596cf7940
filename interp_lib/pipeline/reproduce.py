"""`interp reproduce`: find out what is old, make it anew with Snakemake, and say what became of everything."""

from __future__ import annotations

import contextlib
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..common.errors import InterpError
from ..common.provenance import cores
from ..common.storage import read_json
from .engine import Pending, execute, pending_jobs, shown
from .estimate import render_estimate
from .jobs import duration, report_job
from .manifest import altered_stamps, compare_outputs, drop_damaged_stamps
from .plan import PLAN, STAMPS, Plan, environments_of, make_plan, stamp
from .report import build_report
from .runner import NotebookError

INTERRUPTED = 130  # what a shell reports for Ctrl-C
LOCK = ".reproduce.lock"
_KINDS = {"train": "train", "states": "states", "notebook": "notebooks", "explorer": "explorers"}  # rule → its stamps


class Row(NamedTuple):
    """What became of one target."""

    name: str
    result: str
    seconds: float | None
    why: str


def reproduce(
    *,
    profile: str = "quick",
    source: str = "pretrained",
    only: str | Iterable[str] | None = None,
    env: str | None = None,
    figures: Path | str = "figures",
    notebooks: Path | str = "notebooks",
    jobs: int | None = None,
    executor: str | None = None,
    dry_run: bool = False,
    options: Sequence[str] = (),
) -> int:
    """Make what is missing or old: runs, states, notebooks, explorers, the report and the manifest.

    Args:
        profile: "quick" (minutes on two CPU cores) or "paper" (the papers' budgets).
        source: "pretrained" (the released runs) or "fresh" (train first).
        only: notebooks by number or name, such as "03" or "03,04". None takes all.
        env: a Procgen game or continuous task, for the notebooks with a parameter of that kind; the others keep theirs.
        figures: where outputs, executed notebooks and the report go.
        notebooks: where the notebooks are. They are never modified.
        jobs: how many at a time; None: one for each core, or 100 on a cluster.
        executor: a Snakemake executor plugin, such as "slurm"; None: this machine.
        dry_run: say what would run and why, and run nothing.
        options: more options for Snakemake.

    Returns:
        Exit code: 0, 1 if something failed (all that doesn't depend on it was made), or 130 after Ctrl-C.

    Raises:
        InterpError: a bad argument, the figures folder can't be written to, or another process works in it; nothing
            has been run.
    """
    plan = make_plan(profile=profile, source=source, only=only, env=env, figures=figures, notebooks=notebooks)
    if jobs is not None and jobs < 1:
        raise InterpError(f"--jobs must be at least 1, not {jobs}.")
    _check_writable(plan.figures)
    with _only_one(plan.figures) as lock:
        plan.write()
        for path in drop_damaged_stamps(plan.figures):
            print(f"{path} was damaged: what it belongs to is made again", file=sys.stderr)
        altered = altered_stamps(plan.figures)
        pending = [
            job._replace(reason=altered.get(stamp(_KINDS.get(job.rule, ""), job.name), job.reason))  # why we forced it
            for job in pending_jobs(plan.figures, forced=list(altered))
        ]
        if dry_run:
            print(_render_pending(pending))
            return 0
        if not pending:
            print(f"nothing to do: everything in {shown(plan.figures)} is up to date")
            return 0
        print(render_estimate(plan, pending, jobs or cores()), flush=True)
        started = time.monotonic()
        code, interrupted = execute(
            plan.figures,
            jobs=jobs or (100 if executor else cores()),
            executor=executor,
            forced=list(altered),
            options=options,
            keep_open=[lock],
        )
        if code:  # Snakemake makes no report then, and people look for what did work
            report_job(plan)
        print(_render_summary(_rows(plan, pending, interrupted=interrupted), plan, time.monotonic() - started))
        return INTERRUPTED if interrupted else int(code != 0)


def reproduce_everywhere(
    *, figures: Path | str = "figures", notebooks: Path | str = "notebooks", only: str | Iterable[str] | None = None,
    dry_run: bool = False, **chosen: Any,
) -> int:  # fmt: skip
    """:func:`reproduce` the notebooks about one environment for every one, each in a folder of its name in ``figures``.

    These are the environments of released SPPO and ProtoSAC runs. One that fails doesn't stop the others. The report
    in ``figures``, if there is one, gets links to theirs.

    Returns:
        Exit code: 0, 1 if something failed anywhere, or 130 after Ctrl-C.

    Raises:
        InterpError: as ``reproduce``, or none of the chosen notebooks is about one environment.
    """
    codes = {}
    for env, stems in environments_of(notebooks, only).items():
        print(f"{env}: {', '.join(stems)}", flush=True)
        place = Path(figures) / env
        codes[env] = reproduce(figures=place, notebooks=notebooks, only=stems, env=env, dry_run=dry_run, **chosen)
        print(flush=True)
        if codes[env] == INTERRUPTED:
            return INTERRUPTED
    if not dry_run and (Path(figures) / "index.html").exists():
        build_report(figures)
    failed = [env for env, code in codes.items() if code]
    count = f"{len(codes)} environment" + "s" * (len(codes) != 1)
    print(count + (f"; something failed for {', '.join(failed)}" if failed else ""))
    return int(bool(failed))


def check(*, figures: Path | str = "figures", notebooks: Path | str = "notebooks", jobs: int | None = None) -> int:
    """Run the quick profile again in a folder of its own and compare every output with the one in ``figures``.

    Returns:
        Exit code: 0 if all are identical or equal in numbers, 1 otherwise.

    Raises:
        InterpError: there is nothing to compare with.
    """
    figures = Path(figures)
    try:
        plan = Plan.read(figures / PLAN)
        if plan.profile != "quick" or not (figures / "manifest.json").exists():
            raise InterpError(f"what is in {figures} was not made with --profile quick.")
    except InterpError as error:
        raise InterpError(f"nothing to check: {error} Run: interp reproduce") from error
    with tempfile.TemporaryDirectory(prefix=".check-", dir=figures) as folder:
        again: dict[str, Any] = {"source": plan.source, "only": plan.only, "env": plan.env}
        code = reproduce(**again, figures=folder, notebooks=notebooks, jobs=jobs)
        if code == INTERRUPTED:
            return code
        found = compare_outputs(figures, Path(folder))
    order = ("identical", "equal", "differs", "missing")
    print()
    for one in sorted(found, key=lambda c: (order.index(c.verdict), c.file)):
        if one.verdict != "identical":
            print(f"{one.verdict:<10} {one.file}" + (f"  ({one.detail})" if one.detail else ""))
    counts = {verdict: sum(one.verdict == verdict for one in found) for verdict in order}
    print(
        f"of {len(found)} outputs {counts['identical']} are byte-identical, {counts['equal']} equal in numbers, "
        f"{counts['differs']} differ, {counts['missing']} are missing on one side"
    )
    return 1 if counts["differs"] or counts["missing"] or code else 0


@contextlib.contextmanager
def _only_one(figures: Path) -> Iterator[int]:
    """Hold the folder's lock; yields its file descriptor, which Snakemake inherits and so keeps locked when we die."""
    from filelock import FileLock, Timeout

    lock = FileLock(figures / LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise InterpError(
            f"another interp reproduce works in {shown(figures)}. Wait for it, or choose another folder with --figures."
        ) from error
    except OSError as error:
        raise InterpError(f"cannot lock {shown(figures / LOCK)}: {error.strerror or error}. Remove it.") from error
    try:
        descriptor = lock._context.lock_file_fd
        assert descriptor is not None  # it is locked
        yield descriptor
    finally:
        lock.release()


def _check_writable(folder: Path) -> None:
    for place in (folder, folder / "executed", folder / STAMPS, folder / ".snakemake"):
        try:
            place.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=place) as file:
                file.write(b"\0" * 65536)  # a full disk lets empty files be made
                file.flush()
        except OSError as error:
            raise InterpError(
                f"cannot write to {shown(place)}: {error.strerror or error}. Make room or make it writable, or choose "
                "another folder with --figures."
            ) from error


def _render_pending(pending: Sequence[Pending]) -> str:
    if not pending:
        return "nothing would run: everything is up to date"
    lines = [f"  {f'{job.rule} {job.name}'.strip():<40}  {job.reason}".rstrip() for job in pending]
    return "\n".join([f"{len(pending)} would run:", *lines])


def _rows(plan: Plan, pending: Sequence[Pending], *, interrupted: bool) -> list[Row]:
    wanted = [("train", run.name) for run in plan.fresh_runs()] + [("states", run) for run in plan.states_runs()]
    wanted += [("notebook", stem) for stem in plan.only] + [("explorer", run) for run in plan.explorers()]
    planned = {(job.rule, job.name): job.reason for job in pending}
    rows = []
    for rule, name in wanted:
        path = plan.figures / stamp(_KINDS[rule], name)
        if not path.exists():
            result, seconds, why = _unfinished(plan, name) if rule == "notebook" else (None, None, "")
            if result is None:
                result, why = ("stopped", "Ctrl-C") if interrupted else ("failed", why or "see above")
        elif (rule, name) in planned:
            result, seconds, why = "done", read_json(path)["seconds"], planned[rule, name]
        else:
            result, seconds, why = "reused", None, "nothing it depends on has changed"
        rows.append(Row(name if rule == "notebook" else f"{rule} {name}", result, seconds, why))
    return rows


def _unfinished(plan: Plan, stem: str) -> tuple[str | None, float | None, str]:
    """Result, seconds and reason of a notebook without a stamp, as its result file has them."""
    path = plan.figures / "executed" / f"{stem}.result.json"
    if not path.exists():
        return None, None, "what it depends on failed"
    value = read_json(path)
    if value["error"] is None:
        return None, value["seconds"], ""
    copy = path.with_name(f"{stem}.ipynb")
    where = f"  → {shown(copy)}" if copy.is_file() else ""
    why = str(NotebookError(**value["error"]))
    return value["status"], value["seconds"], (why if len(why) <= 160 else why[:159] + "…") + where


def _render_summary(rows: Sequence[Row], plan: Plan, seconds: float) -> str:
    """A line a target with its share of the work, and how long all of it took."""
    width = max((len(row.name) for row in rows), default=8)
    work = sum(row.seconds or 0.0 for row in rows)
    lines = ["", f"{'':<{width}}  {'result':<8}  {'time':>12}  share  why"]
    for row in rows:
        time_taken = duration(row.seconds) if row.seconds is not None else ""
        share = f"{row.seconds / work:.0%}" if row.seconds and work else ""
        lines.append(f"{row.name:<{width}}  {row.result:<8}  {time_taken:>12}  {share:>5}  {row.why}".rstrip())
    return "\n".join([*lines, "", f"{duration(seconds)} in all; report: {shown(plan.figures / 'index.html')}"])
