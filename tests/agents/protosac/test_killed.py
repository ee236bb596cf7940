"""ProtoSAC killed and interrupted: real processes, real signals. The run folder can always be resumed."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest

from interp_lib import load_agent
from interp_lib.agents.protosac.training import STATE, _load_state
from interp_lib.common.storage import read_json
from interp_lib.runs.training import LOCK

pytestmark = pytest.mark.slow

TIMEOUT = 240  # seconds; only a machine that hangs needs them
KILLS = 8
ENDLESS = 1_000_000
SETTINGS = ["net_arch=32,32", "batch_size=32", "learning_starts=50", "n_prototypes=6", "projection_interval=100"]
# Saves take a tenth of the time: again after nine times as long as the last one took.
OFTEN = "import interp_lib.envs; from interp_lib.agents.protosac import training; training._SAVE_EVERY_SECONDS = 0.0; "
MAIN = "import sys; from interp_lib.cli import main; sys.exit(main())"


def start(run_dir, timesteps, *, resume=True, often=True):
    options = ["--run-dir", str(run_dir), "--timesteps", str(timesteps), "--seed", "3", "--quiet"]
    options += ["--resume"] if resume else [text for setting in SETTINGS for text in ("--set", setting)]
    command = [sys.executable, "-c", (OFTEN if often else "") + MAIN, "train", "protosac", "pendulum", *options]

    def listen():
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a parent in the background would have it ignored

    return subprocess.Popen(
        command, env={**os.environ, "OMP_NUM_THREADS": "1"}, preexec_fn=listen, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )  # fmt: skip


def wait_for(condition, process):
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        assert process.poll() is None, f"training ended by itself: {process.communicate()}"
        assert time.monotonic() < deadline, "training hangs"
        time.sleep(0.0005)


def saved(run_dir):
    return (run_dir / STATE).stat().st_mtime_ns if (run_dir / STATE).exists() else 0


def wait_for_another_save(run_dir, process):
    earlier = saved(run_dir)
    wait_for(lambda: saved(run_dir) != earlier, process)


def leftovers(run_dir):
    return [path.name for path in run_dir.glob(".*") if path.name != LOCK]


def consistent(run_dir, copy):
    """Counters of a state that a kill has left → its steps. On a copy: reading a state mends the config."""
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(run_dir, copy)
    agent = _load_state(copy, "protosac", "pendulum")
    steps = agent.num_timesteps
    assert agent.replay_buffer.pos == steps and not agent.replay_buffer.full
    assert agent._n_updates == max(0, steps - 50)  # an update a step once learning has begun
    moments = agent.critic.optimizer.state_dict()["state"]
    assert (moments[0]["step"] if moments else 0) == agent._n_updates
    assert steps - 100 < agent._last_projection <= steps or steps <= 151
    assert agent._episode_num <= steps // 200 + KILLS
    return steps


def finish(run_dir, timesteps):
    process = start(run_dir, timesteps)
    out, err = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 0 and err == "", err
    assert leftovers(run_dir) == []
    curve = pd.read_csv(run_dir / "progress.csv")
    assert curve.total_timesteps.is_monotonic_increasing and curve.total_timesteps.is_unique
    assert curve.total_timesteps.iloc[-1] == read_json(run_dir / "config.json")["timesteps"] == timesteps
    assert load_agent(run_dir, device="cpu").prototypes.projected


def test_killed_at_random_moments_it_goes_on_from_its_last_save(tmp_path):
    seed = int(os.environ.get("KILL_SEED", random.randrange(1000)))
    print(f"KILL_SEED={seed}")
    dice = random.Random(seed)
    run_dir, torn, steps = tmp_path / "killed", 0, 0
    for kill in range(KILLS):
        process = start(run_dir, ENDLESS, resume=kill > 1)  # the first one leaves nothing to resume
        if kill == 0:
            wait_for((run_dir / "progress.csv").exists, process)
            delay, while_saving = 0.0, None
        else:
            wait_for_another_save(run_dir, process)
            delay = dice.uniform(0, 0.6)
            while_saving = [None, STATE, "policy.safetensors", "config.json"][kill % 4]
        time.sleep(delay)
        if while_saving:
            wait_for(lambda name=while_saving: any(run_dir.glob(f".{name}.*")), process)
        process.kill()
        _, err = process.communicate(timeout=TIMEOUT)
        assert process.returncode == -signal.SIGKILL and err == ""
        torn += bool(leftovers(run_dir))
        if kill == 0 and saved(run_dir):
            shutil.rmtree(run_dir)  # it had been quicker
        elif kill:
            before, steps = steps, consistent(run_dir, tmp_path / "copy")
            assert steps > before and load_agent(run_dir, device="cpu").num_timesteps <= steps
        print(f"kill {kill}: {delay:.3f} s after a save, writing {while_saving}: {steps} steps, {leftovers(run_dir)}")
    assert torn > 0, "no kill hit a file being written"
    finish(run_dir, steps + 120)


@pytest.mark.parametrize("when", ["learning", "saving", "projecting at the end"])
def test_two_quick_interrupts_are_one_line(when, tmp_path):
    run_dir, steps = tmp_path / "run", 1500 if "end" in when else ENDLESS
    process = start(run_dir, steps, resume=False, often=when == "saving")
    wait_for_another_save(run_dir, process)
    if when == "saving":
        wait_for(lambda: any(run_dir.glob(f".{STATE}.*")), process)
    elif when == "learning":
        time.sleep(1)
    else:
        wait_for(lambda: "\n1500," in (run_dir / "progress.csv").read_text(), process)
    process.send_signal(signal.SIGINT)
    time.sleep(random.choice([0.0, 0.001, 0.02, 0.1, 0.5]))
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=TIMEOUT)
    if process.returncode == 0:  # it was quicker to stop than the second one to arrive
        assert err == "" and saved(run_dir)
    else:
        assert process.returncode == 130 and err.startswith("interp: interrupted") and err.count("\n") == 1, err
        assert ("can be resumed" in err) == bool(saved(run_dir)), err
    assert leftovers(run_dir) == []
    reached = _load_state(run_dir, "protosac", "pendulum").num_timesteps if saved(run_dir) else 0
    finish(run_dir, reached + 60)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_run_that_is_told_to_end_saves_what_it_reached(number, tmp_path):
    process = start(tmp_path / "run", 20_000, resume=False, often=False)
    wait_for((tmp_path / "run/progress.csv").exists, process)
    wait_for(lambda: "\n400," in (tmp_path / "run/progress.csv").read_text(), process)
    process.send_signal(number)
    _, err = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 128 + number and "Traceback" not in err and "can be resumed" in err
    reached = consistent(tmp_path / "run", tmp_path / "copy")
    last_row = int((tmp_path / "run/progress.csv").read_text().splitlines()[-1].split(",")[0])
    assert reached >= last_row  # nothing that the curve shows is lost
    finish(tmp_path / "run", reached + 30)
