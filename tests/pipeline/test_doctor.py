"""The doctor on this machine, and on machines that are broken in the ways users report."""

import shutil
import types

import pytest

from interp_lib.pipeline import doctor
from interp_lib.pipeline.doctor import Check


def test_this_machine():
    checks = {check.name: check for check in doctor.run_checks()}
    names = [
        "Python",
        "Disk",
        "Surroundings",
        "Procgen",
        "MuJoCo",
        "Box2D",
        "Video",
        "PyTorch",
        "CUDA",
        "bfloat16",
        "Chromium",
    ]
    assert list(checks) == names
    # CI may have no OpenGL; everything else comes with the lock.
    for name in ("Python", "Procgen", "Box2D", "Video", "PyTorch"):
        assert checks[name].ok, checks[name]
    assert "64x64x3" in checks["Procgen"].detail
    assert not checks["CUDA"].required and not checks["bfloat16"].required
    assert not checks["Chromium"].required
    for check in checks.values():
        assert check.ok or check.fix or not check.required
        assert "\n" not in check.detail + check.fix


def test_unusable_renderer_names_the_variable(monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "no-such-renderer")
    check = doctor.check_library("MuJoCo")
    assert not check.ok and "no-such-renderer" in check.detail
    assert check.fix == "export MUJOCO_GL=egl"


BREAKAGES = {
    "not installed": ("procgen", "raise ModuleNotFoundError('No module named procgen')", "requirements.lock"),
    "no OpenGL": (
        "procgen",
        "raise OSError(\"cannot load library 'libenv.so': libGL.so.1: cannot open shared object file: no such file\")",
        "apt-get install libgl1",
    ),
    "aborts": ("av", "import os; os.abort()", "requirements.lock"),
}


@pytest.mark.parametrize("breakage", BREAKAGES)
def test_broken_library_is_a_finding(breakage, tmp_path, monkeypatch):
    module, code, fix = BREAKAGES[breakage]
    (tmp_path / f"{module}.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))  # found before the installed one
    check = doctor.check_library("Procgen" if module == "procgen" else "Video")
    assert not check.ok and check.required
    assert fix in check.fix
    if breakage == "no OpenGL":
        assert check.detail == "libGL.so.1: cannot open shared object file"
    if breakage == "aborts":
        assert check.detail == "the process died of signal 6"


def test_python_versions():
    assert doctor.check_python((3, 11, 0)).ok and doctor.check_python((3, 12, 9)).ok
    for version in ((3, 10, 13), (3, 13, 0)):
        check = doctor.check_python(version)
        assert not check.ok and "3.11 or 3.12" in check.fix


def test_full_disk(monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: types.SimpleNamespace(free=int(0.3e9)))
    check = doctor.check_disk()
    assert not check.ok and check.detail == "0.3 GB free" and "2 GB" in check.fix


def test_report_puts_the_fix_below_the_failure():
    checks = [
        Check("Python", True, "3.11.7"),
        Check("MuJoCo", False, "no display", "export MUJOCO_GL=egl"),
        Check("CUDA", False, "no GPU", required=False),
    ]
    assert doctor.render_report(checks).splitlines() == [
        "ok    Python  3.11.7",
        "FAIL  MuJoCo  no display",
        "              -> export MUJOCO_GL=egl",
        "note  CUDA    no GPU",
        "",
        "1 to fix: MuJoCo.",
    ]
    assert not doctor.healthy(checks)
    healthy = [checks[0], checks[2]]
    assert doctor.healthy(healthy) and doctor.render_report(healthy).endswith("Everything needed works here.")
