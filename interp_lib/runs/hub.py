"""Push released runs to a model repository of the Hugging Face Hub, or to a shared folder, and pull them from there.

A repository holds one folder a run, as ``checkpoints/`` does. Only files that a released run consists of are taken from
it, chosen by name, so a pickle that lies beside them never reaches this machine; none is opened but config.json, and a
run is put in its place once its checksums agree.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..common.errors import InterpError
from .checks import verify_run
from .folder import NOTES, RETURNS, RUN_NAME, SHIPPED_FILES, find_runs, read_run, sha256
from .release import put_in_place, workplace

if TYPE_CHECKING:
    from huggingface_hub.hf_api import ModelInfo, RepoSibling

_NEEDED = frozenset(SHIPPED_FILES) - {*NOTES, RETURNS}  # early releases kept no returns
_OF_THE_HUB = (".gitattributes", "README.md")  # in every repository, so not worth a word
_MOST_NAMES = 5
_TIMEOUT = 30.0


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
    problems += [f"{run.path / file} is missing" for run in found for file in _NEEDED - _shipped(run.path)]
    if problems:
        raise InterpError(f"nothing was pushed: {'; '.join(problems)}. Release it again, or name the runs to push.")
    store = _open(repo, revision)
    store.make(private)
    there, _ = _sorted_out(store.paths())

    def bring(name: str) -> str:
        store.put(runs[name], stale=there.get(name, set()) - _shipped(runs[name]))
        return f"pushed to {store.name} ({_megabytes(runs[name])})"

    runs = {run.name: run.path for run in found}
    differing = {name: _differing(store, there[name], path) for name, path in runs.items() if name in there}
    return _bring_each(runs, differing, bring, store.name, replace, say)


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
        repo: ``USER/NAME`` of a model repository; or a folder.
        names: runs; none for all that the repository has.
        revision: branch, tag or commit (default: the newest state of the main branch).
        replace: also where ``folder`` has a different run of the same name.
        say: is called with one line a run, and one about files that were left out.

    Returns:
        The runs that were kept as ``folder`` had them, because they differ and ``replace`` is not set.

    Raises:
        InterpError: the repository can't be reached or has no such run, a run is not as it was released, or
            ``folder`` can't be written. The runs before that one have been pulled.
    """
    for name in names:
        _checked(name)
    store = _open(repo, revision)
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

    def bring(name: str) -> str:
        _bring(store, runs[name], targets[name])
        return f"pulled to {folder} ({_megabytes(targets[name])})"

    targets = {name: Path(folder) / name for name in names or runs}
    differing = {name: _differing(store, runs[name], path) for name, path in targets.items() if path.exists()}
    return _bring_each(targets, differing, bring, folder, replace, say)


def _bring_each(
    names: Iterable[str],
    differing: Mapping[str, list[str]],
    bring: Callable[[str], str],
    place: Path | str,
    replace: bool,
    say: Callable[[str], Any],
) -> list[str]:
    """Bring runs to ``place`` but those that it has, and return those that it keeps.

    Args:
        differing: of each run that ``place`` has, the files that are not the same there.
        bring: does it, and returns what to say.
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
            say(f"{name}: {bring(name)}")
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


def _shipped(run_dir: Path) -> set[str]:
    return {file for file in SHIPPED_FILES if (run_dir / file).is_file()}


def _differing(store: _Store, files: set[str], run_dir: Path) -> list[str]:
    """Shipped files of a run that are not the same in ``store``, which has ``files``, and in ``run_dir``."""
    here = _shipped(run_dir)
    with _reading(run_dir):
        altered = {file for file in files & here if not store.same(f"{run_dir.name}/{file}", run_dir / file)}
    return sorted((files ^ here) | altered)


def _megabytes(run_dir: Path) -> str:
    return f"{sum((run_dir / file).stat().st_size for file in _shipped(run_dir)) / 1e6:.2f} MB"


def _bring(store: _Store, files: Collection[str], target: Path) -> None:
    """Fetch a run beside ``target``, verify it there, and move it into its place."""
    work = workplace(target)
    fresh = work / target.name
    try:
        shutil.rmtree(work, ignore_errors=True)
        for file in sorted(files):
            store.fetch(f"{target.name}/{file}", work)
        _verify(fresh, store.name)
        put_in_place(fresh, target)
    except OSError as error:
        reason = " ".join(str(error.strerror or error).split())
        what = f"cannot bring {target.name} to {target}: {reason}"
        raise InterpError(f"{what}. Free space or choose another folder.") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _verify(run_dir: Path, origin: str) -> None:
    try:
        problems = verify_run(read_run(run_dir))
    except InterpError as error:
        problems = [str(error)]
    if problems:
        found = "; ".join(problems).replace(f"{run_dir}/", "").replace(str(run_dir), run_dir.name)
        raise InterpError(f"{origin} holds {run_dir.name} not as it was released, so it was not taken: {found}")


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InterpError(f"cannot read {error.filename or path}: {error.strerror or error}.") from error


def _open(repo: str, revision: str | None) -> _Store:
    if not Path(repo).is_dir():
        return _Hub(repo, revision)
    if revision is not None:
        raise InterpError(f"{repo} is a folder, which has no revisions. Leave out --revision.")
    return _Folder(Path(repo))


class _Folder:
    """A folder that this machine can read, such as a shared drive; paths in it are relative and have slashes."""

    def __init__(self, path: Path) -> None:
        self.path, self.name = path, str(path)

    def make(self, private: bool) -> None:
        """See to it that runs can be put there."""
        if private:
            raise InterpError(f"{self.name} is a folder: who may read it is said by chmod. Leave out --private.")

    def paths(self) -> list[str]:
        """All files, two levels deep: that is enough for runs, and deeper ones could be a whole drive."""
        found = (path for pattern in ("*", "*/*") for path in self.path.glob(pattern) if path.is_file())
        return [path.relative_to(self.path).as_posix() for path in found]

    def same(self, path: str, file: Path) -> bool:
        """Whether a file of the place has the content of a local one."""
        return sha256(self.path / path) == sha256(file)

    def fetch(self, path: str, into: Path) -> None:
        """Copy a file to ``into / path``."""
        (into / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(self.path / path, into / path)

    def put(self, run_dir: Path, stale: Collection[str]) -> None:
        """Take in a run as a whole; ``stale`` are files that its predecessor has and it has not."""
        _bring(_Folder(run_dir.parent), _shipped(run_dir), self.path / run_dir.name)


class _Hub:
    """The same of a repository of models on the Hub that HF_ENDPOINT names; the token is that of the ``hf`` command.

    Files are fetched one by one: interrupted, ``snapshot_download`` waits for all that are under way.
    """

    def __init__(self, repo: str, revision: str | None) -> None:
        from huggingface_hub import HfApi  # here, because only these two commands need it

        self.name, self.revision, self._api = repo, revision, HfApi(library_name="interp_lib")

    def make(self, private: bool) -> None:
        with self._errors():
            self._api.create_repo(self.name, private=private or None, exist_ok=True)
            if private and self._api.model_info(self.name, timeout=_TIMEOUT).private is False:
                raise InterpError(f"{self.name} is public. Make it private there first, or leave out --private.")
            if self.revision is not None:
                self._api.create_branch(self.name, branch=self.revision, exist_ok=True)

    @cached_property
    def _state(self) -> ModelInfo:
        """One commit and its files: what is fetched later belongs to it, whatever is pushed meanwhile."""
        with self._errors():
            return self._api.model_info(self.name, revision=self.revision, files_metadata=True, timeout=_TIMEOUT)

    @cached_property
    def _files(self) -> dict[str, RepoSibling]:
        return {file.rfilename: file for file in self._state.siblings or ()}

    def paths(self) -> list[str]:
        return list(self._files)

    def same(self, path: str, file: Path) -> bool:
        entry = self._files[path]
        if entry.lfs is not None:
            return entry.lfs.sha256 == sha256(file)
        data = file.read_bytes()
        return entry.blob_id == hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()  # as git names content

    def fetch(self, path: str, into: Path) -> None:
        with self._errors():
            self._api.hf_hub_download(self.name, path, revision=self._state.sha, local_dir=into)

    def put(self, run_dir: Path, stale: Collection[str]) -> None:
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete

        name, files = run_dir.name, sorted(_shipped(run_dir))
        with _reading(run_dir), self._errors():
            self._api.create_commit(
                self.name,
                [
                    *(CommitOperationAdd(f"{name}/{file}", run_dir / file) for file in files),
                    *(CommitOperationDelete(f"{name}/{file}") for file in sorted(stale)),
                ],
                commit_message=f"Release {name}",
                revision=self.revision,
            )

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        """Say in one line what the Hub or the way to it objects to; errors of this machine's files pass."""
        from huggingface_hub import errors as e

        # HTTPError: the HTTP client's own, by the name under which every version of the library has it.
        of_the_hub = (e.HfHubHTTPError, e.HTTPError, e.OfflineModeIsEnabled, e.FileMetadataError)
        of_an_answer = (ValueError, KeyError, TypeError)  # or of a name
        of_a_file = (e.LocalEntryNotFoundError, RuntimeError)  # with the reason as its cause
        try:
            yield
        except (*of_the_hub, *of_an_answer, *of_a_file) as error:
            reason = error.__cause__ if isinstance(error, of_a_file) else None
            raise InterpError(self._explained(reason or error)) from error

    def _explained(self, error: BaseException) -> str:
        from huggingface_hub import constants
        from huggingface_hub import errors as e

        hub, repo, who = constants.ENDPOINT, self.name, "`hf auth login`, or set HF_TOKEN"
        match error:
            case e.HFValidationError():
                return f"'{repo}' is no folder here, and no repository of the Hub, whose names are USER/NAME."
            case e.OfflineModeIsEnabled():
                return f"HF_HUB_OFFLINE is set, so {repo} can't be reached. Unset it, or name a folder."
            case e.GatedRepoError():
                return f"{repo} is open only to those its owner admits. Ask on {hub}/{repo}, then {who}."
            case e.RepositoryNotFoundError():
                return f"{hub} has no repository {repo} that you may use. Check the name; if it is private: {who}."
            case e.RevisionNotFoundError():
                return f"{repo} has no revision {self.revision}. Leave out --revision for its newest state."
            case e.HfHubHTTPError(response=response) if response.status_code == 401:
                return f"{hub} does not know you, or not your token: {who} to one that may use {repo}."
            case e.HfHubHTTPError(response=response) if response.status_code == 403:
                return f"your token may not do this with {repo}. Make one that may, then {who}."
            case e.HfHubHTTPError(response=response, server_message=message):
                said = f": {message}" if message else ""
                return " ".join(f"{hub} answered with status {response.status_code}{said}. Try again later.".split())
            case e.FileMetadataError() | ValueError() | KeyError() | TypeError():
                return f"{hub} does not answer as a Hub does. Check HF_ENDPOINT and the proxy."
        reason = " ".join(str(error).split()) or type(error).__name__
        return f"cannot reach {hub} ({reason}). Check the network and HF_ENDPOINT, or name a folder."


_Store = _Folder | _Hub
