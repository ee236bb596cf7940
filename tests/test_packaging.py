"""One environment, described four times: pyproject.toml, the lock, environment.yml and what is installed."""

import importlib.metadata
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest
import yaml
from conftest import ROOT
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from interp_lib.pipeline.doctor import SUPPORTED_PYTHONS

PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = PYPROJECT["project"]


def lock_requirements() -> list[Requirement]:
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


def pins_on(python: str) -> dict[str, str]:
    """Pins that apply to one Python version: canonical name → version."""
    environment = {**default_environment(), "python_version": python, "python_full_version": f"{python}.0"}
    pins = {}
    for requirement in lock_requirements():
        if requirement.marker is None or requirement.marker.evaluate(environment):
            (specifier,) = requirement.specifier
            assert specifier.operator == "==", f"{requirement} is not pinned"
            assert canonicalize_name(requirement.name) not in pins, f"{requirement.name} is pinned twice"
            pins[canonicalize_name(requirement.name)] = specifier.version
    return pins


@pytest.mark.parametrize("python", ["3.11", "3.12"])
def test_lock_satisfies_pyproject(python):
    pins = pins_on(python)
    for text in (
        PROJECT["dependencies"] + PROJECT["optional-dependencies"]["dev"] + PYPROJECT["build-system"]["requires"]
    ):
        wanted = Requirement(text)
        pin = pins.get(canonicalize_name(wanted.name))
        assert pin is not None, f"{text} has no pin: run `make lock`"
        assert wanted.specifier.contains(pin), f"{text} is pinned to {pin}: run `make lock`"


def test_lock_names_no_machine_and_no_torch_build():
    text = (ROOT / "requirements.lock").read_text()
    # A local version ('+cpu'), CUDA's wheels or an index would tie the lock to one kind of machine.
    assert not re.search(r"^[^#\n]*(\+|://|--|nvidia|triton)", text, re.MULTILINE)
    assert pins_on("3.11")["numpy"].startswith("1.26.")  # gym3 and procgen refuse numpy 2


def test_running_environment_is_the_locked_one():
    pins = pins_on(f"{sys.version_info.major}.{sys.version_info.minor}")
    installed = {name: importlib.metadata.version(name) for name in pins}
    # torch may be another build of the same version, or the user's own choice (make install TORCH=...).
    choice = ROOT / ".venv" / ".torch"
    own_torch = choice.exists() and choice.read_text().strip() != "lock"
    for name, pin in pins.items():
        if name == "torch" and own_torch:
            continue
        assert installed[name].partition("+")[0] == pin, f"{name} {installed[name]} is installed, {pin} is locked"


def test_conda_environment_installs_the_lock():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    (pip,) = [entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict)]
    assert pip == ["-r requirements.lock", "-e ."]
    (python,) = [entry for entry in environment["dependencies"] if str(entry).startswith("python=")]
    assert SpecifierSet(PROJECT["requires-python"]).contains(python.partition("=")[2] + ".0")
    # Anything else from conda would be a second, unlocked source of versions.
    assert [entry for entry in environment["dependencies"] if isinstance(entry, str)] == [python, "pip"]


def test_supported_pythons_agree():
    requires = SpecifierSet(PROJECT["requires-python"])
    accepted = {(3, minor) for minor in range(8, 20) if requires.contains(f"3.{minor}.0")}
    script = re.search(r'^supported="(.*)"', (ROOT / "tools" / "find_python.sh").read_text(), re.MULTILINE)[1]
    assert accepted == set(SUPPORTED_PYTHONS) == {tuple(map(int, version.split("."))) for version in script.split()}


def test_citation_names_both_papers():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == PROJECT["version"] and citation["license"] == PROJECT["license"]
    titles = [reference["title"] for reference in citation["references"]]
    assert any("Semantic Clustering" in title for title in titles)
    assert any(title.startswith("This State Looks Like That") for title in titles)
    assert all(entry.get("authors") for entry in [citation, *citation["references"]])


# The set-up itself, in a folder with a package of its own and an empty lock, so that no network is needed.

BACKEND = """
import zipfile
def build_editable(folder, config_settings=None, metadata_directory=None):
    name = "tiny-1.0-py3-none-any.whl"
    with zipfile.ZipFile(f"{folder}/{name}", "w") as wheel:
        wheel.writestr("tiny.py", "answer = 42")
        wheel.writestr("tiny-1.0.dist-info/METADATA", "Metadata-Version: 2.1\\nName: tiny\\nVersion: 1.0\\n")
        wheel.writestr("tiny-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr("tiny-1.0.dist-info/RECORD", "")
    return name
"""


@pytest.fixture
def checkout(tmp_path):
    shutil.copytree(ROOT / "tools", tmp_path / "tools")
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "requirements.lock").write_text("# nothing\n")
    (tmp_path / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "tiny_backend"\nbackend-path = ["."]\n'
    )
    (tmp_path / "tiny_backend.py").write_text(BACKEND)
    return tmp_path


def environment(**changes: str) -> dict[str, str]:
    kept = {
        name: value for name, value in os.environ.items() if name not in ("PYTHON", "TORCH", "MAKEFLAGS", "MAKELEVEL")
    }
    return {**kept, "PIP_NO_INDEX": "1", "PYTHONPATH": "", **changes}


def make_install(folder: Path, **changes: str) -> subprocess.CompletedProcess[str]:
    command = ["make", "--no-print-directory", "install"]
    return subprocess.run(command, cwd=folder, env=environment(**changes), capture_output=True, text=True)


def test_killed_install_is_repaired_and_then_quick(checkout):
    killed = subprocess.Popen(
        ["tools/install.sh"], cwd=checkout, env=environment(PYTHON=sys.executable), start_new_session=True
    )
    while not (checkout / ".venv" / "bin").exists():
        assert killed.poll() is None
        time.sleep(0.01)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()

    repaired = make_install(checkout, PYTHON=sys.executable)
    assert repaired.returncode == 0, repaired.stderr
    assert "did not finish" in repaired.stdout
    tiny = subprocess.run(
        [".venv/bin/python", "-c", "import tiny; print(tiny.answer)"], cwd=checkout, capture_output=True, text=True
    )
    assert tiny.stdout == "42\n"

    before = time.monotonic()
    again = make_install(checkout)
    assert (again.returncode, again.stdout, again.stderr) == (0, "", "")
    assert time.monotonic() - before < 2

    # A changed lock is installed, and one that can't be leaves no environment that looks finished.
    (checkout / "requirements.lock").write_text("no-such-package==1.0\n")
    broken = make_install(checkout)
    assert broken.returncode != 0 and "no-such-package" in broken.stderr
    assert not (checkout / ".venv" / ".installed").exists()


def test_unsupported_python_is_refused_in_one_line(checkout):
    old = checkout / "old-python"
    old.write_text("#!/bin/sh\necho 3.9.18\n")  # what the version question gets from such a Python
    old.chmod(0o755)
    refused = make_install(checkout, PYTHON=str(old))
    assert refused.returncode != 0
    ours = [line for line in refused.stderr.splitlines() if not line.startswith("make")]
    assert len(ours) == 1
    assert "Python 3.11 or 3.12" in ours[0] and "found 3.9.18" in ours[0]
    assert not (checkout / ".venv").exists()


def test_make_help_lists_every_target():
    makefile = (ROOT / "Makefile").read_text()
    targets = re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)[1].split()
    shown = subprocess.run(["make", "--no-print-directory", "help"], cwd=ROOT, capture_output=True, text=True).stdout
    assert [target for target in targets if f"make {target} " not in shown] == []
