"""Several runs on one GPU: MPS where it is there and works, a line where not."""

import os
import sys

import pytest

from interp_lib.pipeline.sharing import CONTROL, shared_gpu

FINDS_A_GPU, FINDS_NONE = ([sys.executable, "-c", f"raise SystemExit({status})"] for status in (0, 1))


@pytest.fixture()
def control(tmp_path, monkeypatch):
    """A program of that name that writes down what it is asked; its status is in a file."""
    (tmp_path / "status").write_text("0")
    script = tmp_path / CONTROL
    script.write_text(
        f'#!/bin/sh\necho "$@ $(cat) in $CUDA_MPS_PIPE_DIRECTORY" >>{tmp_path}/log\nexit $(cat {tmp_path}/status)\n'
    )
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_MPS_PIPE_DIRECTORY", raising=False)
    return tmp_path


def test_it_runs_as_long_as_the_runs_do(control):
    lines = []
    with shared_gpu("cuda", 8, say=lines.append, probe=FINDS_A_GPU) as environment:
        folder = environment["CUDA_MPS_PIPE_DIRECTORY"]
        assert os.path.isdir(folder) and (control / "log").read_text() == f"-d  in {folder}\n"
    assert (control / "log").read_text().endswith(f" quit in {folder}\n") and not os.path.exists(folder)
    assert lines == ["8 runs at once on a GPU: side by side, by MPS."]


@pytest.mark.parametrize("problem", ["not there", "may not", "no GPU through it"])
def test_without_it_the_runs_take_turns_and_a_line_says_why(problem, control, monkeypatch):
    if problem == "not there":
        monkeypatch.setenv("PATH", "/nowhere")
    (control / "status").write_text("1" if problem == "may not" else "0")
    lines = []
    with shared_gpu("cuda:0", 2, say=lines.append, probe=FINDS_NONE) as environment:
        assert "CUDA_MPS_PIPE_DIRECTORY" not in environment
    (line,) = lines
    reasons = {
        "not there": f"there is no {CONTROL}",
        "may not": "ended with status 1",
        "no GPU through it": "no GPU was",
    }
    assert "they take turns" in line and reasons[problem] in line


@pytest.mark.parametrize(("device", "jobs"), [("cpu", 8), ("auto", 8), ("cuda", 1)])
def test_nothing_is_started_for_one_run_or_without_a_gpu(device, jobs, control):
    with shared_gpu(device, jobs, say=pytest.fail, probe=FINDS_A_GPU) as environment:
        assert environment == dict(os.environ)
    assert not (control / "log").exists()


def test_one_that_is_there_is_used_as_it_is(control, monkeypatch):
    monkeypatch.setenv("CUDA_MPS_PIPE_DIRECTORY", "/elsewhere")
    with shared_gpu("cuda", 8, say=pytest.fail, probe=FINDS_A_GPU) as environment:
        assert environment["CUDA_MPS_PIPE_DIRECTORY"] == "/elsewhere"
    assert not (control / "log").exists()
