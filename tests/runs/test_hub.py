"""Pushing and pulling runs: through a fake Hub as the command does it, and through a folder."""

import json
import os
import pickle
import resource
import shutil
import signal
import socket
import subprocess
import sys

import pytest
from conftest import ROOT
from fake_hub import TOKEN, serve

from interp_lib import InterpError
from interp_lib.cli import main
from interp_lib.runs.checks import verify_run
from interp_lib.runs.folder import SHIPPED_FILES, find_runs, read_run, sha256
from interp_lib.runs.hub import pull, push
from interp_lib.runs.release import put_in_place

NAME = "sac-pendulum-s100"
RELEASED = ROOT / "checkpoints" / NAME


@pytest.fixture()
def checkpoints(tmp_path):
    """A folder with one released run."""
    shutil.copytree(RELEASED, tmp_path / "checkpoints" / NAME)
    return tmp_path / "checkpoints"


@pytest.fixture()
def hub():
    with serve() as hub:
        yield hub


@pytest.fixture()
def repository(hub):
    """The same run in a repository of the fake Hub, among other things."""
    files = {f"{NAME}/{path.name}": path.read_bytes() for path in RELEASED.iterdir()}
    others = {".gitattributes": b"", "README.md": b"# Runs", f"{NAME}/agent.pkl": pickle.dumps(sys.exit)}
    hub.commit("lab/runs", "main", {**files, **others, "../escaped/config.json": b"{}", "half-a-run/card.md": b""})
    return hub


def command(hub_url, tmp_path, *arguments, token=None):
    """Command line and environment of ``interp checkpoints`` with a Hub."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    own = {"HF_ENDPOINT": hub_url, "HF_HOME": str(tmp_path / "hf"), "NO_PROXY": "127.0.0.1,localhost"}
    own |= {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    line = [sys.executable, "-m", "interp_lib.cli", "checkpoints", *map(str, arguments)]
    return line, {**kept, **own, **({"HF_TOKEN": token} if token else {})}


def interp(hub_url, tmp_path, *arguments, token=None, **more):
    line, environment = command(hub_url, tmp_path, *arguments, token=token)
    done = subprocess.run(line, env=environment, capture_output=True, text=True, **more)
    return done.returncode, done.stdout, done.stderr


def contents(run_dir):
    return {path.name: path.read_bytes() for path in run_dir.iterdir()}


def one_line(err):
    return err.startswith("interp: ") and len(err.strip().splitlines()) == 1


def test_a_run_goes_to_the_hub_and_comes_back(hub, checkpoints, tmp_path):
    (checkpoints / NAME / "descriptions.yml").write_text("0: upright\n")
    (checkpoints / NAME / "notes.txt").write_text("mine")
    there = ("--folder", checkpoints)
    size = f"{sum((checkpoints / NAME / file).stat().st_size for file in SHIPPED_FILES) / 1e6:.2f} MB"
    status, out, err = interp(hub.url, tmp_path, "push", "lab/runs", "--private", *there, token=TOKEN)
    assert (status, out, err) == (0, f"{NAME}: pushed to lab/runs ({size})\n", "")
    released = contents(checkpoints / NAME)
    del released["notes.txt"]
    stored = dict(hub.repos["lab/runs"]["main"])
    assert stored.pop(".gitattributes")
    assert stored == {f"{NAME}/{file}": data for file, data in released.items()}
    assert hub.private["lab/runs"] and hub.messages == [f"Release {NAME}"]

    # A second one changes nothing; on a branch of its own it goes without the file that is gone.
    assert interp(hub.url, tmp_path, "push", "lab/runs", *there, token=TOKEN)[1].endswith("in lab/runs, unchanged\n")
    (checkpoints / NAME / "descriptions.yml").unlink()
    branch = ("--revision", "draft", "--replace")
    assert interp(hub.url, tmp_path, "push", "lab/runs", NAME, *branch, *there, token=TOKEN)[0] == 0
    assert hub.repos["lab/runs"]["draft"].keys() == stored.keys() - {f"{NAME}/descriptions.yml"} | {".gitattributes"}
    assert hub.messages == [f"Release {NAME}"] * 2
    assert interp(hub.url, tmp_path, "push", "lab/runs", NAME, *branch, *there, token=TOKEN)[1].endswith("unchanged\n")

    empty = tmp_path / "empty"
    status, out, err = interp(hub.url, tmp_path, "pull", "lab/runs", "--folder", empty, token=TOKEN)
    assert (status, out, err) == (0, f"{NAME}: pulled to {empty} ({size})\n", "")
    assert [path.name for path in empty.iterdir()] == [NAME] and contents(empty / NAME) == released
    assert main(["checkpoints", "verify", "--folder", str(empty)]) == 0


def test_only_the_files_of_runs_are_fetched(repository, tmp_path):
    folder = tmp_path / "down" / "checkpoints"
    status, out, err = interp(repository.url, tmp_path, "pull", "lab/runs", "--folder", folder)
    assert (status, err) == (0, "")
    left_out = f"'../escaped/config.json', 'half-a-run/card.md', '{NAME}/agent.pkl'"
    assert out.splitlines()[0] == f"left out, as no part of a released run: {left_out}"
    assert contents(folder / NAME) == contents(RELEASED)
    assert sorted(repository.fetched) == sorted(f"{NAME}/{file}" for file in contents(RELEASED))
    assert [path.name for path in tmp_path.iterdir()] == ["down"]  # no copy in the cache either


def test_an_altered_file_is_refused_and_leaves_nothing(repository, tmp_path):
    files = repository.repos["lab/runs"]["main"]
    repository.commit("lab/runs", "main", {**files, f"{NAME}/policy.safetensors": pickle.dumps(sys.exit)})
    status, out, err = interp(repository.url, tmp_path, "pull", "lab/runs", NAME, "--folder", tmp_path / "down")
    assert status == 2 and one_line(err) and out.count("\n") == 1
    assert "lab/runs holds sac-pendulum-s100 not as it was released, so it was not taken: policy.safetensors was" in err
    assert list((tmp_path / "down").iterdir()) == []


def test_a_pull_that_ends_in_between_leaves_no_run(repository, tmp_path):
    folder = tmp_path / "down"
    line, environment = command(repository.url, tmp_path, "pull", "lab/runs", "--folder", folder)
    repository.stall = True
    for number in (signal.SIGKILL, signal.SIGINT):
        repository.stalled.clear()
        process = subprocess.Popen(line, env=environment, stderr=subprocess.PIPE, text=True)
        assert repository.stalled.wait(60)
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
        # Nothing can tidy up after SIGKILL, so it is a folder that is no run, and that the next pull clears away.
        left = [f".{NAME}.new"] if number == signal.SIGKILL else []
        assert find_runs(folder) == [] and [path.name for path in folder.iterdir()] == left
    assert process.returncode == 130 and err == "interp: interrupted.\n"
    repository.stall = False

    def full():  # the same for Python as a full disk: a write fails in the middle of a file
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    status, _, err = interp(repository.url, tmp_path, "pull", "lab/runs", "--folder", folder, preexec_fn=full)
    assert status == 2 and one_line(err) and "Free space or choose another folder" in err
    assert list(folder.iterdir()) == []


def test_what_the_hub_objects_to_is_said_in_one_line(repository, checkpoints, tmp_path):
    folder = ("--folder", checkpoints)
    with socket.create_server(("127.0.0.1", 0)) as closed:
        nowhere = f"http://127.0.0.1:{closed.getsockname()[1]}"
    repository.private["lab/secret"] = True
    repository.commit("lab/secret", "main", {})
    cases = [
        (nowhere, ("pull", "lab/runs"), None, f"cannot reach {nowhere}"),
        (repository.url, ("pull", "lab/none"), TOKEN, "has no repository lab/none that you may use"),
        (repository.url, ("pull", "lab/secret"), None, "if it is private: `hf auth login`, or set HF_TOKEN"),
        (repository.url, ("pull", "lab/runs", "--revision", "v9"), None, "lab/runs has no revision v9"),
        (repository.url, ("push", "lab/new"), "hf_wrong", "does not know you, or not your token"),
        (repository.url, ("push", "lab/runs", "--private"), TOKEN, "lab/runs is public"),
        (f"{repository.url}/large", ("pull", "lab/runs"), None, "answered with status 404"),
    ]
    started = []
    for url, arguments, token, _ in cases:  # all at once: most of the time is Python's start
        line, environment = command(url, tmp_path, *arguments, *folder, token=token)
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        started.append(subprocess.Popen(line, env=environment, text=True, **pipes))
    for process, (*_, message) in zip(started, cases, strict=True):
        out, err = process.communicate(timeout=60)
        assert process.returncode == 2 and out == "" and one_line(err) and message in err, err
    assert contents(checkpoints / NAME) == contents(RELEASED) and list(repository.messages) == []


# -- the same rules, through a folder --------------------------------------------------------------------------------


def longer(run_dir):
    """Make of a released run another one of the same name, intact as well."""
    curve = (run_dir / "progress.csv").read_text().rstrip()
    (run_dir / "progress.csv").write_text(f"{curve}1\n")  # a digit more of the seconds in the last row
    config = json.loads((run_dir / "config.json").read_text())
    config["files"]["progress.csv"] = sha256(run_dir / "progress.csv")
    (run_dir / "config.json").write_text(json.dumps(config))
    assert verify_run(read_run(run_dir)) == []


def test_a_different_run_is_kept_on_both_sides_unless_it_is_to_be_replaced(checkpoints, tmp_path, capsys):
    shared = tmp_path / "shared"
    shared.mkdir()
    line = ["checkpoints", "push", str(shared), "--folder", str(checkpoints)]
    assert main(line) == 0 and main(line) == 0
    assert capsys.readouterr().out.splitlines()[1] == f"{NAME}: already in {shared}, unchanged"
    longer(checkpoints / NAME)
    mine, theirs = contents(checkpoints / NAME), contents(shared / NAME)

    assert main(line) == 1 and contents(shared / NAME) == theirs
    kept = "has a different one (config.json, progress.csv); --replace overwrites it"
    assert kept in capsys.readouterr().out
    back = ["checkpoints", "pull", str(shared), "--folder", str(checkpoints)]
    assert main(back) == 1 and contents(checkpoints / NAME) == mine
    assert kept in capsys.readouterr().out
    assert main([*back, "--replace"]) == 0 and contents(checkpoints / NAME) == theirs
    (checkpoints / NAME / "descriptions.yml").write_text("0: upright\n")  # written by hand: no less worth keeping
    assert pull(str(shared), folder=checkpoints) == [NAME]
    assert push(str(shared), folder=checkpoints, replace=True) == []
    assert contents(shared / NAME) == contents(checkpoints / NAME)
    assert [path.name for path in (*shared.iterdir(), *checkpoints.iterdir())] == [NAME, NAME]


@pytest.mark.parametrize("name", ["../checkpoints", "..", ".", "/etc", "a/b", "", "~", ".hidden", "a\\b"])
def test_a_name_that_leads_elsewhere_is_refused(name, checkpoints, tmp_path):
    for verb in (pull, push):
        with pytest.raises(InterpError, match="is no name of a run"):
            verb(str(checkpoints), [name], tmp_path / "down")
    assert not (tmp_path / "down").exists()


def edited(**changes):
    def edit(run_dir):
        config = json.loads((run_dir / "config.json").read_text())
        (run_dir / "config.json").write_text(json.dumps({**config, **changes}))

    return edit


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda run_dir: (run_dir / "config.json").write_text("{"), "config.json is damaged: not valid JSON"),
        (edited(files=None), "files is None"),
        (edited(files={}), "config.json has no checksum of policy.safetensors"),
        (edited(files={"../../secret": "0"}), "config.json has no checksum of policy.safetensors"),
        (edited(algorithm=["sac"]), "unknown algorithm"),
        (lambda run_dir: os.truncate(run_dir / "policy.safetensors", 7), "policy.safetensors was altered or damaged"),
    ],
)
def test_a_damaged_run_goes_neither_way(damage, message, checkpoints, tmp_path):
    shutil.copytree(checkpoints, tmp_path / "mine")
    damage(checkpoints / NAME)
    before = contents(tmp_path / "mine" / NAME)
    with pytest.raises(InterpError, match=message) as refused:
        pull(str(checkpoints), folder=tmp_path / "mine", replace=True)
    assert ".new" not in str(refused.value)
    assert contents(tmp_path / "mine" / NAME) == before and len(list((tmp_path / "mine").iterdir())) == 1
    (tmp_path / "shared").mkdir()
    with pytest.raises(InterpError, match=message):
        push(str(tmp_path / "shared"), folder=checkpoints)
    assert list((tmp_path / "shared").iterdir()) == []


def test_what_a_folder_has_not_and_what_it_cannot_do(checkpoints, tmp_path):
    with pytest.raises(InterpError, match=f"has no complete run sac-hopper-s0 .there: {NAME}"):
        pull(str(checkpoints), ["sac-hopper-s0"], tmp_path / "down")
    (checkpoints / NAME / "card.md").unlink()
    with pytest.raises(InterpError, match=r"card.md is missing. Release it again"):
        push(str(tmp_path), folder=checkpoints)
    with pytest.raises(InterpError, match=r"has no complete run .there: none"):
        pull(str(checkpoints), folder=tmp_path / "down")
    with pytest.raises(InterpError, match="no revisions"):
        pull(str(checkpoints), folder=tmp_path / "down", revision="main")
    with pytest.raises(InterpError, match="Leave out --private"):
        push(str(tmp_path), folder=RELEASED.parent, private=True)
    with pytest.raises(InterpError, match="cannot bring .* Free space"):
        pull(str(RELEASED.parent), [NAME], "/proc/interp")  # no file can be created there, even by root
    with pytest.raises(InterpError, match="no repository of the Hub"):
        pull("not/a/folder", folder=tmp_path / "down")


def test_a_move_that_fails_leaves_the_old_run(checkpoints, tmp_path):
    before = contents(checkpoints / NAME)
    with pytest.raises(OSError):
        put_in_place(tmp_path / "missing", checkpoints / NAME)
    assert contents(checkpoints / NAME) == before and [path.name for path in checkpoints.iterdir()] == [NAME]
