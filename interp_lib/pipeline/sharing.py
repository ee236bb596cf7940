"""Several runs on one GPU: by MPS, NVIDIA's Multi-Process Service, their kernels run side by side, not in turns."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any

CONTROL = "nvidia-cuda-mps-control"
_USES_A_GPU = (sys.executable, "-c", "import torch; torch.zeros(1, device='cuda').item()")
_SECONDS = 120.0


@contextlib.contextmanager
def shared_gpu(
    device: str, jobs: int, *, say: Callable[[str], None] = print, probe: Sequence[str] = _USES_A_GPU
) -> Iterator[dict[str, str]]:
    """The environment variables of runs on ``device``; with several ``jobs`` on a GPU there is an MPS for them within.

    Where the program is missing, may not run, or processes find no GPU through it, that is said in a line and the runs
    take turns. An MPS that is there already (``CUDA_MPS_PIPE_DIRECTORY`` says where) is used as it is.

    Args:
        say: called with that line.
        probe: a command that succeeds where processes find a GPU.
    """
    environment = dict(os.environ)
    if jobs < 2 or not device.startswith("cuda") or "CUDA_MPS_PIPE_DIRECTORY" in environment:
        yield environment
        return
    with tempfile.TemporaryDirectory(prefix="mps-", ignore_cleanup_errors=True) as folder:
        shared = environment | {"CUDA_MPS_PIPE_DIRECTORY": folder, "CUDA_MPS_LOG_DIRECTORY": folder}
        problem = _start(shared, probe)
        if problem:
            _stop(shared)
        say(
            f"{jobs} runs at once on a GPU: "
            + (f"they take turns ({problem})." if problem else "side by side, by MPS.")
        )
        try:
            yield environment if problem else shared
        finally:
            _stop(shared)


def _start(environment: dict[str, str], probe: Sequence[str]) -> str:
    """Start MPS → what went wrong, in half a line."""
    if shutil.which(CONTROL) is None:
        return f"there is no {CONTROL}"
    try:
        if status := _run([CONTROL, "-d"], environment):
            return f"{CONTROL} ended with status {status}"
        return "through MPS no GPU was found" if _run(probe, environment) else ""
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"MPS did not start ({type(error).__name__})"


def _stop(environment: dict[str, str]) -> None:
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        _run([CONTROL], environment, "quit\n")


def _run(command: Sequence[str], environment: dict[str, str], text: str = "") -> int:
    # No pipes: the service would keep them open.
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.run(command, input=text, text=True, env=environment, timeout=_SECONDS, **quiet).returncode
