"""Training that is killed, interrupted, or runs out of disk, as it happens to users: real processes, real signals.

Whatever happens, the run folder holds a checkpoint that loads, and resuming gives the bits of an undisturbed run.
"""

import ctypes
import os
import random
import resource
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest
import torch

from interp_lib import load_agent
from interp_lib.common.storage import read_json, read_tensors
from interp_lib.runs.training import LOCK

pytestmark = pytest.mark.slow

# Small updates, episodes that end, and a skill weight that changes: 32 steps an update.
SETTINGS = {
    "num-envs": 4,
    "num-steps": 8,
    "num-minibatches": 2,
    "num-epochs": 1,
    "skill-interval": 5,
    "precision": "fp32",
    "device": "cpu",
    "seed": 3,
}
STEPS = 32
ENDLESS = 1_000_000
TIMEOUT = 240  # seconds; only a machine that hangs needs them
KILLS = 12
CLOCK = ["fps", "time_elapsed"]


def start(run_dir, timesteps, *, save_seconds=0, before=None):
    """A training process of its own; ``before`` runs in it first."""

    def prepare():
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a parent in the background would have it ignored
        if before is not None:
            before()

    options = {**SETTINGS, "timesteps": timesteps, "run-dir": run_dir, "save-seconds": save_seconds}
    command = [sys.executable, "-m", "interp_lib.cli", "train", "sppo", "fruitbot", "--resume", "--quiet"]
    command += [text for name, value in options.items() for text in (f"--{name}", str(value))]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, env=environment, preexec_fn=prepare, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def finish(run_dir, updates):
    """Resume and train to the end → the rows of progress.csv, as text, without the clock."""
    process = start(run_dir, updates * STEPS)
    out, err = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 0 and err == "", err
    assert leftovers(run_dir) == []
    return rows(run_dir)


def rows(run_dir):
    return pd.read_csv(run_dir / "progress.csv", dtype=str).drop(columns=CLOCK)


def leftovers(run_dir):
    return [path.name for path in run_dir.glob(".*") if path.name != LOCK]


def wait_for(condition, process):
    """Poll as fast as possible: some of what is waited for lasts a millisecond."""
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        assert process.poll() is None, f"training ended by itself: {process.communicate()}"
        assert time.monotonic() < deadline, "training hangs"
        time.sleep(0.0005)


def wait_for_checkpoint(run_dir, process):
    """Until this process, and not the one before it, has saved once."""

    def saved():
        config = run_dir / "config.json"
        return config.stat().st_mtime_ns if config.exists() else 0

    earlier = saved()
    wait_for(lambda: saved() != earlier, process)


def ends_with_one_line(process, status):
    out, err = process.communicate(timeout=TIMEOUT)
    assert process.returncode == status, err
    assert out == "" and err.startswith("interp: ") and len(err.splitlines()) == 1, err
    return err


def checkpoint(run_dir):
    """The bytes of a checkpoint, for comparing."""
    return {name: (run_dir / name).read_bytes() for name in ("training_state.pt", "policy.safetensors", "config.json")}


def same_run(a, b):
    """Weights bit for bit, all of progress.csv but the clock."""
    tensors = [read_tensors(run / "policy.safetensors") for run in (a, b)]
    assert tensors[0].keys() == tensors[1].keys()
    for name, tensor in tensors[0].items():
        assert torch.equal(tensor, tensors[1][name]), name
    pd.testing.assert_frame_equal(rows(a), rows(b))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """A run of six updates that nothing happened to."""
    run_dir = tmp_path_factory.mktemp("undisturbed") / "run"
    assert len(finish(run_dir, 6)) == 6
    return run_dir


# -- SIGKILL ------------------------------------------------------------------------------------------------------


def test_killed_at_random_moments_it_ends_with_the_same_bits(tmp_path):
    seed = int(os.environ.get("KILL_SEED", random.randrange(1000)))
    print(f"KILL_SEED={seed}")
    dice = random.Random(seed)
    run_dir = tmp_path / "killed"
    torn = 0
    for kill in range(KILLS):
        process = start(run_dir, ENDLESS)
        if kill == 0:  # before anything but the header of progress.csv is there
            wait_for((run_dir / "progress.csv").exists, process)
            delay, while_saving = 0.0, None
        else:
            wait_for_checkpoint(run_dir, process)
            delay = dice.uniform(0, 1)
            while_saving = [None, "training_state.pt", "policy.safetensors", "config.json"][kill % 4]
        time.sleep(delay)
        if while_saving:
            wait_for(lambda name=while_saving: any(run_dir.glob(f".{name}.*")), process)
        process.kill()
        process.communicate(timeout=TIMEOUT)
        assert process.returncode == -signal.SIGKILL
        torn += bool(leftovers(run_dir))
        done = len((run_dir / "progress.csv").read_text().splitlines()) - 1
        print(
            f"kill {kill}: {delay:.3f} s after a checkpoint, writing {while_saving}: {done} rows, {leftovers(run_dir)}"
        )
        if kill > 0:
            assert load_agent(run_dir, device="cpu").timesteps > 0
    assert torn > 0, "no kill hit a file being written"
    total = done + 3
    finish(run_dir, total)
    finish(tmp_path / "straight", total)
    same_run(run_dir, tmp_path / "straight")
    assert len(rows(run_dir)) == total
    # One slice for each process whose checkpoint was gone on from; the steps add up without gaps.
    history = read_json(run_dir / "config.json")["history"]
    assert [part["from"] for part in history[1:]] == [part["to"] for part in history[:-1]]
    assert history[-1]["to"] == total * STEPS and len(history) == KILLS


# -- Ctrl-C -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("while_saving", [None, "training_state.pt", "policy.safetensors"])
def test_an_interrupted_run_says_so_and_resumes(while_saving, undisturbed, tmp_path):
    process = start(tmp_path / "run", ENDLESS)
    wait_for_checkpoint(tmp_path / "run", process)
    if while_saving:
        wait_for(lambda: any((tmp_path / "run").glob(f".{while_saving}.*")), process)
    process.send_signal(signal.SIGINT)
    assert "can be resumed from its last checkpoint" in ends_with_one_line(process, 130)
    assert leftovers(tmp_path / "run") == []
    agent = load_agent(tmp_path / "run", device="cpu")
    after = finish(tmp_path / "run", agent.timesteps // STEPS + 2)
    shared = min(len(after), 6)
    pd.testing.assert_frame_equal(after[:shared], rows(undisturbed)[:shared])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_run_that_is_told_to_end_can_be_resumed(number, undisturbed, tmp_path):
    process = start(tmp_path / "run", ENDLESS)
    wait_for_checkpoint(tmp_path / "run", process)
    process.send_signal(number)
    out, err = process.communicate(timeout=TIMEOUT)
    assert process.returncode in (-number, 128 + number) and out == "" and len(err.splitlines()) <= 1, err
    agent = load_agent(tmp_path / "run", device="cpu")
    after = finish(tmp_path / "run", agent.timesteps // STEPS + 2)
    shared = min(len(after), 6)
    pd.testing.assert_frame_equal(after[:shared], rows(undisturbed)[:shared])


def test_interrupted_before_the_first_checkpoint_it_starts_anew(undisturbed, tmp_path):
    process = start(tmp_path / "run", ENDLESS, save_seconds=10_000)
    progress = tmp_path / "run/progress.csv"
    wait_for(progress.exists, process)  # the first update is saved as soon as it is done
    process.send_signal(signal.SIGINT)
    assert "interrupted" in ends_with_one_line(process, 130)  # in the first update, or before it
    finish(tmp_path / "run", 6)
    same_run(tmp_path / "run", undisturbed)


@pytest.mark.parametrize("delay", [0.0, 0.05, 0.3])
def test_two_quick_interruptions_are_one_line_as_well(delay, undisturbed, tmp_path):
    process = start(tmp_path / "run", ENDLESS)
    wait_for_checkpoint(tmp_path / "run", process)
    process.send_signal(signal.SIGINT)
    time.sleep(delay)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=TIMEOUT)
    assert process.returncode in (130, -signal.SIGINT)  # the second may come when nothing is left but to end
    assert out == "" and len(err.splitlines()) == 1 and "can be resumed from its last checkpoint" in err, err
    agent = load_agent(tmp_path / "run", device="cpu")
    after = finish(tmp_path / "run", agent.timesteps // STEPS + 2)
    shared = min(len(after), 6)
    pd.testing.assert_frame_equal(after[:shared], rows(undisturbed)[:shared])


# -- disks --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("full_for", ["training_state.pt", "progress.csv"])
def test_no_room_for_a_file_is_one_line_and_costs_no_checkpoint(full_for, undisturbed, tmp_path):
    run_dir = tmp_path / "run"
    finish(run_dir, 2)
    before = checkpoint(run_dir)
    # The kernel refuses to let any file grow beyond the limit: half a state, or half a row, is written.
    room = 4_000_000 if full_for == "training_state.pt" else (run_dir / "progress.csv").stat().st_size + 20
    process = start(run_dir, ENDLESS, before=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (room, room)))
    message = ends_with_one_line(process, 2)
    assert f"cannot write {run_dir / full_for}: File too large" in message and "Free space" in message
    assert checkpoint(run_dir) == before and leftovers(run_dir) == []
    assert load_agent(run_dir, device="cpu").timesteps == 2 * STEPS
    finish(run_dir, 6)
    same_run(run_dir, undisturbed)


def test_a_full_disk_is_one_line_and_costs_no_checkpoint(undisturbed, tmp_path):
    """A disk with room for one checkpoint and half of the next."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("only root may mount a small disk, and not in every container")
    try:
        message = ends_with_one_line(start(disk / "run", ENDLESS), 2)
        assert "training_state.pt: No space left on device. Free space" in message
        assert leftovers(disk / "run") == []
        assert load_agent(disk / "run", device="cpu").timesteps == STEPS
        subprocess.run(["mount", "-o", "remount,size=40m", disk], check=True)
        finish(disk / "run", 6)
        same_run(disk / "run", undisturbed)
    finally:
        subprocess.run(["umount", disk], check=True)


def without_override():
    """Let permissions count for root too: CAP_DAC_OVERRIDE is gone after the next exec."""
    pr_capbset_drop, cap_dac_override = 24, 1
    if os.geteuid() == 0 and ctypes.CDLL(None).prctl(pr_capbset_drop, cap_dac_override, 0, 0, 0):
        raise PermissionError


@pytest.fixture()
def permissions_count(tmp_path):
    tmp_path.chmod(0o555)
    try:
        done = subprocess.run(["touch", tmp_path / "file"], preexec_fn=without_override, capture_output=True)
        if done.returncode == 0:
            pytest.skip("this user may write everywhere")
    except subprocess.SubprocessError:
        pytest.skip("root can't give up its right to write everywhere in this container")
    finally:
        tmp_path.chmod(0o755)


def test_a_run_folder_that_becomes_unwritable_is_one_line(permissions_count, undisturbed, tmp_path):
    run_dir = tmp_path / "run"
    process = start(run_dir, ENDLESS, before=without_override)
    wait_for_checkpoint(run_dir, process)
    run_dir.chmod(0o555)
    try:
        assert "Permission denied" in ends_with_one_line(process, 2)
    finally:
        run_dir.chmod(0o755)
    agent = load_agent(run_dir, device="cpu")
    after = finish(run_dir, agent.timesteps // STEPS + 2)
    shared = min(len(after), 6)
    pd.testing.assert_frame_equal(after[:shared], rows(undisturbed)[:shared])


def test_a_run_folder_that_cannot_be_made_is_one_line(permissions_count, tmp_path):
    tmp_path.chmod(0o555)
    try:
        message = ends_with_one_line(start(tmp_path / "run", ENDLESS, before=without_override), 2)
    finally:
        tmp_path.chmod(0o755)
    assert "Permission denied" in message and "choose another folder" in message
    assert not (tmp_path / "run").exists()
