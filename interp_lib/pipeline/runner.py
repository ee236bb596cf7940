"""Runs one notebook with papermill and says how it went. Knows nothing about figures folders or other notebooks."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from ..common.processes import ends_with_us


class CellProgress(NamedTuple):
    """A code cell that starts now: ``number`` of ``total`` (from 1, as In [number] shows) below ``heading``."""

    number: int
    total: int
    heading: str


@dataclass(frozen=True)
class NotebookError:
    """Why a notebook failed; ``cell`` is the number in its In [...], None when no cell was to blame."""

    exception: str
    message: str
    cell: int | None = None

    def __str__(self) -> str:
        """One line: where, what, and the first line of the message."""
        where = f"In [{self.cell}] " if self.cell is not None else ""
        first = next(iter(self.message.strip().splitlines()), "")
        return where + (f"{self.exception}: {first}" if first else self.exception)


@dataclass(frozen=True)
class NotebookResult:
    """How a notebook went: ``status`` is "done", "failed" or "stopped"; ``executed_path`` is the copy with outputs."""

    name: str
    status: str
    seconds: float
    error: NotebookError | None
    executed_path: Path


def run_notebook(
    path: Path | str,
    executed_path: Path | str,
    parameters: Mapping[str, Any],
    *,
    on_cell: Callable[[CellProgress], None] | None = None,
) -> NotebookResult:
    """Execute a notebook from a fresh kernel, in its own folder, with the interpreter that runs this.

    The executed copy is saved after every cell, so it is there whatever happens. The notebook itself isn't touched.

    Args:
        path: the notebook.
        executed_path: where its executed copy goes.
        parameters: injected after the parameters cell.
        on_cell: called as each code cell starts.

    Returns:
        The result; a failing cell, a dying kernel or an unreadable notebook is a "failed" one, not an exception.

    Raises:
        KeyboardInterrupt: the user pressed Ctrl-C; the kernel has been stopped.
    """
    import papermill
    from nbclient.exceptions import DeadKernelError

    path, executed_path = Path(path).resolve(), Path(executed_path).resolve()
    executed_path.parent.mkdir(parents=True, exist_ok=True)
    cells: list[Any] = []
    reached: list[CellProgress] = []

    def note(cell: Any, cell_index: int) -> None:
        # An empty code cell isn't executed and gets no number.
        numbers = [i for i, cell in enumerate(cells) if cell.cell_type == "code" and cell.source.strip()]
        number = numbers.index(cell_index) + 1
        reached[:] = [CellProgress(number, len(numbers), _heading(cells[:cell_index]))]
        if on_cell is not None:
            on_cell(*reached)

    error = None
    started = time.monotonic()
    try:
        papermill.execute_notebook(
            _as_it_is(path),
            _as_it_is(executed_path),
            dict(parameters),
            kernel_name="python3",
            language="python",
            cwd=path.parent,
            progress_bar=False,
            kernel_manager_class=_this_interpreter(),
            on_notebook_start=lambda notebook: cells.extend(notebook.cells),
            on_cell_execute=note,
        )
    except papermill.PapermillExecutionError as problem:
        error = NotebookError(problem.ename, problem.evalue, problem.exec_count)
    except Exception as problem:  # unreadable notebook, full disk, no kernel: the other notebooks can still run
        message = str(problem)
        if isinstance(problem, DeadKernelError):
            message = (
                "the kernel died: out of memory, or a crash in native code. Try --profile quick or close other "
                "programs."
            )
        error = NotebookError(type(problem).__name__, message, reached[0].number if reached else None)
    seconds = time.monotonic() - started
    return NotebookResult(path.stem, "failed" if error else "done", seconds, error, executed_path)


def _this_interpreter() -> type:
    """A manager of kernels that are this interpreter's."""
    import zmq
    from ipykernel.kernelspec import get_kernel_dict
    from jupyter_client import AsyncKernelManager
    from jupyter_client.kernelspec import KernelSpec
    from traitlets import default

    class ThisInterpreter(AsyncKernelManager):
        @property
        def kernel_spec(self) -> KernelSpec:
            """Whatever "python3" kernel is installed for the user may belong to another environment."""
            spec = get_kernel_dict()
            return KernelSpec(**{**spec, "argv": ends_with_us(*spec["argv"])})

        def start_kernel(self, **kwargs) -> Awaitable[None]:
            # What the kernel says outside of cells, mostly while it is being stopped, would tear the progress bar.
            return super().start_kernel(stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **kwargs)

        @default("transport_encryption")
        def _encrypt(self) -> str:
            # Kernels listen on local ports, and clusters have other users.
            return "auto" if zmq.has("curve") else "disabled"

    return ThisInterpreter


def _heading(cells: list) -> str:
    """The last markdown heading in ``cells``."""
    for cell in reversed(cells):
        found = re.findall(r"^#{1,6}\s+(.+?)\s*#*$", cell.source, re.MULTILINE) if cell.cell_type == "markdown" else []
        if found:
            return found[-1]
    return ""


def _as_it_is(path: Path) -> str:
    """A path as papermill, which fills in parameters between braces, takes it for itself."""
    return str(path).replace("{", "{{").replace("}", "}}")
