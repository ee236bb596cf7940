"""What a run says about its origin: complete, publishable, cheap."""

import datetime
import getpass
import importlib.metadata
import json
import platform
import socket
import subprocess
import sys
from pathlib import Path

from conftest import ROOT

from interp_lib.common.provenance import git_state, provenance


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=A", "-c", "user.email=a@example.org"]
    done = subprocess.run(["git", "-C", str(folder), *identity, *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_versions_hardware_and_date():
    origin = provenance()
    assert origin["libraries"]["python"] == platform.python_version()
    for name in ("torch", "numpy", "procgen-mirror", "gymnasium", "mujoco", "stable-baselines3"):
        assert origin["libraries"][name] == importlib.metadata.version(name)
    assert origin["hardware"]["cores"] >= 1 and origin["hardware"]["cpu"]
    age = datetime.datetime.now(datetime.UTC) - datetime.datetime.fromisoformat(origin["date"])
    assert datetime.timedelta(0) <= age < datetime.timedelta(minutes=1)


def test_can_be_published():
    text = json.dumps(provenance())
    values = json.loads(text)
    assert set(values) == {"libraries", "git", "hardware", "date"}
    assert "/home" not in text and str(ROOT) not in text
    words = set(text.replace('"', " ").split())
    assert not words & {socket.gethostname(), getpass.getuser()}


def test_git_state(tmp_path):
    nothing = {"revision": None, "dirty": None}
    assert git_state(tmp_path) == nothing
    git(tmp_path, "init", "-q")
    assert git_state(tmp_path) == nothing  # no commit yet
    (tmp_path / "a.txt").write_text("1")
    git(tmp_path, "add", "a.txt")
    git(tmp_path, "commit", "-q", "-m", "x")
    revision = git(tmp_path, "rev-parse", "HEAD")
    (tmp_path / "untracked.txt").write_text("results may lie about")
    assert git_state(tmp_path) == {"revision": revision, "dirty": False}
    (tmp_path / "a.txt").write_text("2")
    assert git_state(tmp_path) == {"revision": revision, "dirty": True}
    # A package installed somewhere inside another project's repository has not that project's revision.
    (tmp_path / "site-packages").mkdir()
    assert git_state(tmp_path / "site-packages") == nothing


def test_imports_nothing_heavy():
    code = "import sys; from interp_lib.common.provenance import provenance; provenance(); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "numpy", "gymnasium"} & set(done.stdout.split())
