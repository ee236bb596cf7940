"""Places that hold one folder a run: a model repository of the Hugging Face Hub, or a folder."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
from collections.abc import Collection, Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from ..common.errors import InterpError
from .checks import verify_run
from .folder import SHIPPED_FILES, read_run, sha256
from .release import put_in_place, workplace

if TYPE_CHECKING:
    from huggingface_hub.hf_api import ModelInfo, RepoSibling

_TIMEOUT = 30.0


def open_store(repo: str, revision: str | None) -> Store:
    """The folder of that name, or else the repository."""
    if not Path(repo).is_dir():
        return HubStore(repo, revision)
    if revision is not None:
        raise InterpError(f"{repo} is a folder, which has no revisions. Leave out --revision.")
    return FolderStore(Path(repo))


def shipped_files(run_dir: Path) -> set[str]:
    """Names of the files in a run folder that belong to a released run."""
    return {file for file in SHIPPED_FILES if (run_dir / file).is_file()}


def bring(store: Store, files: Collection[str], target: Path) -> None:
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
def reading(path: Path) -> Iterator[None]:
    """Turn what this machine's files object to into an InterpError."""
    try:
        yield
    except OSError as error:
        raise InterpError(f"cannot read {error.filename or path}: {error.strerror or error}.") from error


class FolderStore:
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
        bring(FolderStore(run_dir.parent), shipped_files(run_dir), self.path / run_dir.name)


class HubStore:
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

        name, files = run_dir.name, sorted(shipped_files(run_dir))
        with reading(run_dir), self._errors():
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


Store = FolderStore | HubStore
