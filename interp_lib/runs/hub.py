"""Push released runs to a model repository of the Hugging Face Hub, or to a shared folder, and pull them from there.

A repository holds one folder a run, as ``checkpoints/`` does. Only files that a released run consists of are taken from
it, chosen by name, so a pickle that lies beside them never reaches this machine; none is opened but config.json, and a
run is put in its place once its checksums agree.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..common.errors import InterpError
from .checks import verify_run
from .folder import NOTES, RETURNS, RUN_NAME, SHIPPED_FILES, find_runs, read_run
from .stores import Store, bring, open_store, reading, shipped_files

_NEEDED = frozenset(SHIPPED_FILES) - {*NOTES, RETURNS}  # early releases kept no returns
_OF_THE_HUB = (".gitattributes", "README.md")  # in every repository, so not worth a word
_MOST_NAMES = 5


def push(
    repo: str,
    names: Sequence[str] = (),
    folder: Path | str = "checkpoints",
    *,
    revision: str | None = None,
    private: bool = False,
    replace: bool = False,
    say: Callable[[str], Any] = print,
) -> list[str]:
    """Bring released runs from ``folder`` to a repository, each in one commit.

    Args:
        repo: ``USER/NAME`` of a model repository, made if it is not there; or a folder that exists.
        names: runs; none for all of ``folder``.
        revision: branch, made if it is not there (default: the main one).
        private: make the repository a private one, and push to none that is not.
        replace: also where the repository has a different run of the same name.
        say: is called with one line a run.

    Returns:
        The runs that were kept as the repository had them, because they differ and ``replace`` is not set.

    Raises:
        InterpError: a run is missing or not as it was released, in which case none is pushed; or the repository can't
            be reached or written to.
    """
    found = [read_run(Path(folder) / _checked(name)) for name in dict.fromkeys(names)] if names else find_runs(folder)
    if not found:
        raise InterpError(f"no runs in {folder}. Train one: interp train sppo fruitbot")
    problems = [problem for run in found for problem in verify_run(run)]
    problems += [f"{run.path / file} is missing" for run in found for file in _NEEDED - shipped_files(run.path)]
    if problems:
        raise InterpError(f"nothing was pushed: {'; '.join(problems)}. Release it again, or name the runs to push.")
    store = open_store(repo, revision)
    store.make(private)
    there, _ = _sorted_out(store.paths())

    def push_one(name: str) -> str:
        store.put(runs[name], stale=there.get(name, set()) - shipped_files(runs[name]))
        return f"pushed to {store.name} ({_megabytes(runs[name])})"

    runs = {run.name: run.path for run in found}
    differing = {name: _differing(store, there[name], path) for name, path in runs.items() if name in there}
    return _bring_each(runs, differing, push_one, store.name, replace, say)


def pull(
    repo: str,
    names: Sequence[str] = (),
    folder: Path | str = "checkpoints",
    *,
    revision: str | None = None,
    replace: bool = False,
    say: Callable[[str], Any] = print,
) -> list[str]:
    """Bring released runs from a repository to ``folder``; each is there as a whole and verified, or not at all.

    Args:
        repo, replace: as in :func:`push`.
        names: runs; none for all that the repository has.
        revision: branch, tag or commit (default: the newest state of the main branch).
        say: is called with one line a run, and one about files that were left out.

    Returns:
        The runs that were kept as ``folder`` had them, because they differ and ``replace`` is not set.

    Raises:
        InterpError: the repository can't be reached or has no such run, a run is not as it was released, or
            ``folder`` can't be written. The runs before that one have been pulled.
    """
    for name in names:
        _checked(name)
    store = open_store(repo, revision)
    runs, others = _sorted_out(store.paths())
    for name in [name for name, files in runs.items() if not _NEEDED <= files]:
        others += [f"{name}/{file}" for file in runs.pop(name)]
    absent = [name for name in names if name not in runs]
    if absent or not runs:
        what = f"complete run {', '.join(absent)}" if absent else "complete run"
        raise InterpError(f"{store.name} has no {what} (there: {', '.join(runs) or 'none'}). Check its name.")
    others = sorted(path for path in others if not names or path.partition("/")[0] in names)
    if others:
        # The names are anybody's: repr shows control characters and sends none to the terminal.
        some = ", ".join(repr(path) for path in others[:_MOST_NAMES])
        more = f" and {len(others) - _MOST_NAMES:,} more" if len(others) > _MOST_NAMES else ""
        say(f"left out, as no part of a released run: {some}{more}")

    def pull_one(name: str) -> str:
        bring(store, runs[name], targets[name])
        return f"pulled to {folder} ({_megabytes(targets[name])})"

    targets = {name: Path(folder) / name for name in names or runs}
    differing = {name: _differing(store, runs[name], path) for name, path in targets.items() if path.exists()}
    return _bring_each(targets, differing, pull_one, folder, replace, say)


def _bring_each(
    names: Iterable[str],
    differing: Mapping[str, list[str]],
    transfer: Callable[[str], str],
    place: Path | str,
    replace: bool,
    say: Callable[[str], Any],
) -> list[str]:
    """Bring runs to ``place`` but those that it has, and return those that it keeps.

    Args:
        differing: of each run that ``place`` has, the files that are not the same there.
        transfer: does it, and returns what to say.
    """
    kept = []
    for name in names:
        files = differing.get(name)
        if files == []:
            say(f"{name}: already in {place}, unchanged")
        elif files and not replace:
            kept.append(name)
            what = ", ".join(files)
            say(f"{name}: kept, because {place} has a different one ({what}); --replace overwrites it")
        else:
            say(f"{name}: {transfer(name)}")
    return kept


def _checked(name: str) -> str:
    if not RUN_NAME.fullmatch(name):
        raise InterpError(f"'{name}' is no name of a run. Give the name of its folder, such as sppo-ninja-s2021.")
    return name


def _sorted_out(paths: Iterable[str]) -> tuple[dict[str, set[str]], list[str]]:
    """The shipped files of each run, by its name; and the paths that are none."""
    runs: dict[str, set[str]] = {}
    others = []
    for path in sorted(paths):
        name, _, file = path.partition("/")
        if RUN_NAME.fullmatch(name) and file in SHIPPED_FILES:
            runs.setdefault(name, set()).add(file)
        elif path not in _OF_THE_HUB:
            others.append(path)
    return runs, others


def _differing(store: Store, files: set[str], run_dir: Path) -> list[str]:
    """Shipped files of a run that are not the same in ``store``, which has ``files``, and in ``run_dir``."""
    here = shipped_files(run_dir)
    with reading(run_dir):
        altered = {file for file in files & here if not store.same(f"{run_dir.name}/{file}", run_dir / file)}
    return sorted((files ^ here) | altered)


def _megabytes(run_dir: Path) -> str:
    return f"{sum((run_dir / file).stat().st_size for file in shipped_files(run_dir)) / 1e6:.2f} MB"
