"""`interp reproduce`: the notebooks one after the other, each with a fresh kernel, then the report."""

from __future__ import annotations

import difflib
import os
import re
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..envs.names import CONTINUOUS_TASKS, PROCGEN_GAMES, continuous_task, procgen_game
from ..errors import InterpError
from .progress import watch
from .runner import NotebookError, NotebookResult, declared_parameters, run_notebook

PROFILES = ("quick", "paper")
SOURCES = ("pretrained", "fresh")
ENVIRONMENT_PARAMETERS = ("env", "task")  # Procgen game, continuous task
INTERRUPTED = 130  # what a shell reports for Ctrl-C


def reproduce(
    *,
    profile: str = "quick",
    source: str = "pretrained",
    only: str | Iterable[str] | None = None,
    env: str | None = None,
    figures: Path | str = "figures",
    notebooks: Path | str = "notebooks",
) -> int:
    """Run the notebooks and build the report ``<figures>/index.html``; progress and a summary go to the terminal.

    Args:
        profile: "quick" (minutes on two CPU cores) or "paper" (the papers' budgets).
        source: "pretrained" (the released runs) or "fresh" (train first).
        only: notebooks by number or name, such as "03" or "03,04". None runs all.
        env: a Procgen game or continuous task, for the notebooks with a parameter of that kind; the others keep theirs.
        figures: where outputs, executed notebooks and the report go.
        notebooks: where the notebooks are. They are never modified.

    Returns:
        Exit code: 0, 1 if a notebook failed (the others still ran), or 130 after Ctrl-C.

    Raises:
        InterpError: a bad argument, or the figures folder can't be written to; nothing has been run.
    """
    _one_of("profile", profile, PROFILES)
    _one_of("source", source, SOURCES)
    env = _environment(env) if env is not None else None
    chosen = select_notebooks(Path(notebooks), only)
    figures = Path(figures)
    _check_writable(figures)
    settings = {"profile": profile, "source": source, "figures_dir": str(figures.resolve())}
    if env is not None and not any(_takes_environment(path, env) for path in chosen):
        raise InterpError(f"none of {', '.join(p.stem for p in chosen)} works on '{env}'. Leave out --env or --only.")

    results: list[NotebookResult] = []
    interrupted = False
    try:
        for number, path in enumerate(chosen, start=1):
            with watch(f"[{number}/{len(chosen)}] {path.stem}") as watcher:
                results.append(refresh(path, figures, settings, env=env, on_cell=watcher.cell))
                watcher.finish(_outcome(results[-1]))
    except KeyboardInterrupt:
        interrupted = True
    from .report import build_report

    report = build_report(figures)
    print(_summary(results, chosen, report))
    if interrupted:
        return INTERRUPTED
    return 1 if any(result.error for result in results) else 0


def refresh(
    path: Path, figures: Path, settings: dict[str, Any], *, env: str | None = None, on_cell=None
) -> NotebookResult:
    """Redo everything one notebook makes: its outputs, its executed copy (.ipynb and .html) and its result.

    Settings the notebook doesn't declare are left out, and ``env`` reaches only a notebook of its kind. What an
    earlier run left goes first: old pictures must not pass for new ones.

    Returns:
        The result, which is also kept as ``<figures>/executed/<notebook>.result.json`` for the report.
    """
    from ..outputs import clear_outputs
    from .report import export_html

    executed = figures / "executed" / path.name
    clear_outputs(figures, path)
    for stale in (executed, executed.with_suffix(".html"), executed.with_suffix(".result.json")):
        stale.unlink(missing_ok=True)
    try:
        declared = declared_parameters(path)
    except InterpError as problem:
        result = NotebookResult(path.stem, "failed", 0.0, NotebookError("InterpError", str(problem)), executed)
    else:
        parameters = {name: value for name, value in settings.items() if name in declared}
        parameters |= dict.fromkeys(_environment_parameters(declared, env), env)
        # Should this process be killed, the report mustn't take what is there by then for everything.
        started = NotebookResult(path.stem, "stopped", 0.0, NotebookError("Interrupted", "it did not finish"), executed)
        _record(started)
        result = run_notebook(path, executed, parameters, on_cell=on_cell)
    if executed.is_file():
        export_html(executed)
    _record(result)
    return result


def _record(result: NotebookResult) -> None:
    from ..storage import write_json

    value = asdict(result) | {"executed_path": result.executed_path.name}
    write_json(result.executed_path.with_suffix(".result.json"), value)


def select_notebooks(folder: Path, only: str | Iterable[str] | None = None) -> list[Path]:
    """The numbered notebooks of ``folder`` in order, or those that ``only`` names by number or by name.

    Raises:
        InterpError: there are none, or ``only`` names one that isn't there.
    """
    found = {path.stem: path for path in sorted(folder.glob("*.ipynb")) if re.match(r"\d+_", path.name)}
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


def _one_of(name: str, value: str, valid: tuple[str, ...]) -> None:
    if value not in valid:
        raise InterpError(f"unknown {name} '{value}'. Valid: {', '.join(valid)}.")


def _environment(name: str) -> str:
    for canonical in (procgen_game, continuous_task):
        try:
            return canonical(name)
        except InterpError:
            continue
    valid = (*PROCGEN_GAMES, *CONTINUOUS_TASKS)
    near = difflib.get_close_matches(name.lower(), valid, n=3, cutoff=0.5)
    hint = f"Did you mean {' or '.join(near)}?" if near else f"Valid names: {', '.join(valid)}."
    raise InterpError(f"unknown environment '{name}'. {hint}")


def _environment_parameters(declared: Mapping[str, Any], env: str | None) -> list[str]:
    """The parameters of a notebook that take ``env``: those whose default is an environment of its kind."""
    if env is None:
        return []
    kinds = [kind for kind in (procgen_game, continuous_task) if _valid(env, kind)]
    defaults = {name: declared.get(name) for name in ENVIRONMENT_PARAMETERS}
    return [name for name, value in defaults.items() if isinstance(value, str) and any(_valid(value, k) for k in kinds)]


def _valid(name: str, canonical) -> bool:
    try:
        canonical(name)
    except InterpError:
        return False
    return True


def _takes_environment(path: Path, env: str) -> bool:
    try:
        return bool(_environment_parameters(declared_parameters(path), env))
    except InterpError:
        return True  # a broken notebook is reported as such when its turn comes


def _check_writable(folder: Path) -> None:
    try:
        (folder / "executed").mkdir(parents=True, exist_ok=True)
        for place in (folder, folder / "executed"):
            with tempfile.TemporaryFile(dir=place):
                pass
    except OSError as error:
        reason = error.strerror or error
        raise InterpError(f"cannot write to {folder}: {reason}. Make it writable or choose another folder.") from error


def _outcome(result: NotebookResult) -> str:
    return f"{result.status} in {_duration(result.seconds)}" + (f": {result.error}" if result.error else "")


def _summary(results: list[NotebookResult], chosen: list[Path], report: Path) -> str:
    """A table of what became of each notebook, then where to look."""
    by_name = {result.name: result for result in results}
    width = max(len(path.stem) for path in chosen)
    lines = ["", f"{'notebook':<{width}}  {'result':<8}  {'time':>7}  why"]
    for number, path in enumerate(chosen):
        result = by_name.get(path.stem)
        if result is None:
            status = "stopped" if number == len(results) else "not run"
            lines.append(f"{path.stem:<{width}}  {status:<8}  {'':>7}  Ctrl-C")
            continue
        why = _clip(str(result.error)) if result.error else ""
        if result.error and result.executed_path.is_file():
            why += f"  → {_shown(result.executed_path)}"
        lines.append(f"{path.stem:<{width}}  {result.status:<8}  {_duration(result.seconds):>7}  {why}".rstrip())
    return "\n".join([*lines, "", f"report: {_shown(report)}"])


def _shown(path: Path) -> str:
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative


def _clip(text: str, length: int = 160) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def _duration(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 60 else f"{int(seconds) // 60} min {int(seconds) % 60:02d} s"
