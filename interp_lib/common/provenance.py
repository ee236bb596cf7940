"""Where a number came from: library versions, git revision, hardware and date, for every run and card."""

from __future__ import annotations

import datetime
import functools
import importlib.metadata
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

# The libraries that can change a number. Everything else is pinned in requirements.lock.
LIBRARIES: tuple[str, ...] = (
    "interp-lib", "torch", "numpy", "procgen-mirror", "gym3", "gymnasium", "mujoco", "box2d", "pygame",
    "stable-baselines3", "safetensors", "scikit-learn", "openTSNE", "scipy", "pandas", "av",
)  # fmt: skip
_CHECKOUT = Path(__file__).resolve().parents[2]


def provenance() -> dict[str, Any]:
    """Describe what is about to produce a result, without importing any of the heavy libraries.

    Holds no host name, user name or path, so that it can be published with a run.

    Returns:
        A JSON-able dict:
        ``libraries``: name → version, or None where it is not installed (with ``python`` first);
        ``git``: ``revision`` (40 hex digits) and ``dirty`` (tracked files differ from it), both None outside a
        checkout of this project;
        ``hardware``: ``cpu`` (model name), ``cores`` (those this process may use), ``gpu`` (name or None);
        ``date``: UTC, ISO 8601, whole seconds.
    """
    return {
        "libraries": {"python": platform.python_version(), **{name: _version(name) for name in LIBRARIES}},
        "git": git_state(),
        "hardware": {"cpu": cpu_model(), "cores": cores(), "gpu": gpu_name()},
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def git_state(checkout: Path | str = _CHECKOUT) -> dict[str, str | bool | None]:
    """Return the ``revision`` checked out and whether tracked files are ``dirty``; both None outside a checkout."""
    unknown: dict[str, str | bool | None] = {"revision": None, "dirty": None}
    top = _output("git", "-C", str(checkout), "rev-parse", "--show-toplevel")
    # An installed package can lie inside somebody else's repository, whose revision says nothing about this code.
    if not top or not os.path.samefile(top, checkout):
        return unknown
    revision = _output("git", "-C", str(checkout), "rev-parse", "--verify", "HEAD")
    changes = _output("git", "-C", str(checkout), "status", "--porcelain", "--untracked-files=no")
    if not revision or changes is None:
        return unknown
    return {"revision": revision, "dirty": bool(changes)}


def cores() -> int:
    """Return how many CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@functools.cache
def cpu_model() -> str:
    """Return the CPU's model name, or its architecture where the system does not tell more."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return _output("sysctl", "-n", "machdep.cpu.brand_string") or platform.processor() or platform.machine()


@functools.cache
def gpu_name() -> str | None:
    """Return the name of the first NVIDIA GPU, or None.

    Asks the driver unless torch is imported already: then the device torch would train on is named.
    """
    torch = sys.modules.get("torch")
    if torch is not None and hasattr(torch, "cuda"):
        return torch.cuda.get_device_name(0) if torch.cuda.is_available() else None
    names = _output("nvidia-smi", "--query-gpu=name", "--format=csv,noheader")
    return names.splitlines()[0].strip() if names else None


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _output(*command: str) -> str | None:
    """Return the stripped output of ``command``, or None where it is not installed or fails."""
    try:
        # Within a hook GIT_DIR and others name that repository, whatever folder is asked about.
        kept = {k: v for k, v in os.environ.items() if not k.startswith("GIT_") or k.startswith("GIT_CONFIG")}
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=20, check=True, env=kept
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
