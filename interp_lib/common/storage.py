"""Files that are either whole or not there: atomic writes, safetensors weights, JSON configs.

Everything a released run holds goes through here, so there is one place where half-written or altered files
are recognised. Nothing in this module unpickles anything.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import stat
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from .errors import InterpError

if TYPE_CHECKING:
    import torch


@contextlib.contextmanager
def atomic_write(path: Path | str) -> Iterator[BinaryIO]:
    """Open a temporary sibling of ``path`` for writing; it takes the place of ``path`` only once it is complete.

    The data is fsynced before the rename, so after a crash ``path`` holds either its old or its new content.

    Raises:
        InterpError: the folder can't be written to, or the disk is full. The old file is untouched.
    """
    path = Path(path)
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Not mkstemp, whose files are readable by nobody else: here the umask says who may read them.
        name = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        descriptor = os.open(name, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o666)
        temporary = name
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        temporary = None
    except OSError as error:
        raise InterpError(
            f"cannot write {path}: {error.strerror or error}. Free space or choose another folder."
        ) from error
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """A temporary folder, gone afterwards.

    Raises:
        InterpError: it can't be made, or what is done within fails for want of room or another OSError.
    """
    try:
        with tempfile.TemporaryDirectory(prefix="interp-", ignore_cleanup_errors=True) as folder:
            yield Path(folder)
    except OSError as error:
        place = tempfile.tempdir or "the temporary folder"
        raise InterpError(
            f"cannot work in {place}: {error.strerror or error}. Free space, or name another in TMPDIR."
        ) from error


def remove_temporaries(folder: Path | str) -> None:
    """Delete what :func:`atomic_write` left in ``folder`` when its process was killed; nothing may be writing there."""
    for path in Path(folder).glob(".*.????????"):  # eight random characters
        with contextlib.suppress(OSError):
            path.unlink()


def write_text(path: Path | str, text: str) -> None:
    """Write ``text`` as UTF-8, atomically."""
    with atomic_write(path) as file:
        file.write(text.encode())


def write_json(path: Path | str, value: Any) -> None:
    """Write ``value`` as indented JSON, atomically."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def read_json(path: Path | str) -> Any:
    """Read a JSON file.

    Raises:
        InterpError: the file is missing or is not valid JSON. Numbers that are none (NaN, Infinity), names that come
            twice and nesting without end are no valid JSON here.
    """
    try:
        text = read_file(path, 2**24).decode("utf-8-sig")
        return json.loads(text, parse_constant=_no_number, object_pairs_hook=_distinct)
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else error
        raise InterpError(
            f"{path} is damaged: not valid JSON ({reason}). Restore it or train the run again."
        ) from error


def _no_number(text: str) -> Any:
    raise ValueError(f"{text} is no number")


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        twice = next(name for i, (name, _) in enumerate(pairs) if name in dict(pairs[:i]))
        raise ValueError(f"{twice!r} is there twice")
    return found


def read_file(path: Path | str, most: int = 2**29) -> bytes:
    """The content of a file that may have come from anywhere.

    Args:
        most: bytes that such a file can have; a larger one is refused before it fills the memory.

    Raises:
        InterpError: it is missing, no regular file, larger than that, or can't be read.
    """
    path = Path(path)
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # a pipe would never end
            raise InterpError(f"cannot read {path}: it is no regular file. Restore it or train the run again.")
        if status.st_size > most:
            raise InterpError(f"{path} is damaged: {status.st_size:,} bytes are too many. Restore it.")
        return path.read_bytes()
    except FileNotFoundError as error:
        raise InterpError(f"cannot read {path}: it does not exist.") from error
    except OSError as error:
        raise InterpError(f"cannot read {path}: {error.strerror or error}.") from error


def write_tensors(path: Path | str, tensors: Mapping[str, torch.Tensor]) -> None:
    """Write named tensors as one safetensors file, atomically."""
    import safetensors.torch  # here, because it imports torch, which takes seconds

    data = safetensors.torch.save({name: t.detach().cpu().contiguous() for name, t in tensors.items()})
    with atomic_write(path) as file:
        file.write(data)


def read_tensors(path: Path | str) -> dict[str, torch.Tensor]:
    """Read a safetensors file.

    Raises:
        InterpError: the file is missing, truncated or altered in its structure.
    """
    import safetensors.torch

    data = read_file(path)
    try:
        return safetensors.torch.load(data)
    except (safetensors.SafetensorError, ValueError, KeyError, RuntimeError, TypeError) as error:
        raise InterpError(f"{path} is damaged ({error}). Restore it or train the run again.") from error


def load_state(module: torch.nn.Module, tensors: Mapping[str, torch.Tensor], source: Path | str) -> None:
    """Load ``tensors`` into ``module``, casting half-precision releases to the module's dtype.

    Raises:
        InterpError: names or shapes don't match the module, or a number isn't finite.
    """
    refuse_nonfinite(tensors, source)
    try:
        module.load_state_dict(dict(tensors), strict=True)
    except RuntimeError as error:
        detail = " ".join(str(error).split())
        raise InterpError(f"{source} does not fit this agent: {detail[:300]}") from error


def refuse_nonfinite(tensors: Mapping[str, torch.Tensor], source: Path | str) -> None:
    """Raise InterpError where ``tensors`` hold NaN, infinite or complex numbers."""
    broken = next((name for name, t in tensors.items() if t.is_complex() or not t.float().isfinite().all()), None)
    if broken is not None:
        raise InterpError(f"{source} is damaged: {broken:.80} is not finite. Restore it or train the run again.")
