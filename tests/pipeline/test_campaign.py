"""Campaigns: the table, what comes next, and real slices that are killed, resumed and released."""

import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from interp_lib import InterpError
from interp_lib.pipeline.campaign import (
    Campaign,
    Standing,
    next_target,
    read_campaign,
    render_standings,
    standings,
)
from interp_lib.pipeline.workbench import Target
from interp_lib.runs.checks import verify_run
from interp_lib.runs.folder import find_runs, read_run
from interp_lib.runs.training import train

HEADER = "algorithm,env,seed,timesteps\n"


def test_the_campaign_of_this_repository_can_be_read_and_covers_both_papers():
    targets = read_campaign("campaign.csv")
    for algorithm in ("ppo", "sppo"):
        assert {t.env for t in targets if t.algorithm == algorithm} == {"fruitbot", "coinrun", "ninja", "jumper"}
    for algorithm in ("sac", "protosac"):
        assert len({t.env for t in targets if t.algorithm == algorithm}) == 7


def test_names_are_understood_as_everywhere_and_remarks_are_passed_over(tmp_path):
    (tmp_path / "c.csv").write_text("# mine\n" + HEADER + "\n  # later\nsac, Pendulum-v1 ,3,100\n")
    assert read_campaign(tmp_path / "c.csv") == [Target("sac", "pendulum", 3, 100)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must begin with the line algorithm,env,seed,timesteps"),
        ("sac,pendulum,0,100\n", "must begin with"),
        (HEADER + "sac,pendulum,0\n", "line 2: 3 values where 4 belong"),
        (HEADER + "\nsarsa,pendulum,0,100\n", "line 3: unknown algorithm 'sarsa'"),
        (HEADER + "sppo,nimja,0,100\n", "line 2: unknown Procgen game 'nimja'. Did you mean ninja"),
        (HEADER + "sac,pendulum,zero,100\n", "line 2: .*zero"),
        (HEADER + "sac,pendulum,0,-1\n", "line 2: timesteps must be positive"),
    ],
)
def test_a_wrong_line_is_named(tmp_path, text, message):
    (tmp_path / "c.csv").write_text(text)
    with pytest.raises(InterpError, match=message):
        read_campaign(tmp_path / "c.csv")


def test_a_missing_table_is_named(tmp_path):
    with pytest.raises(InterpError, match="cannot read the campaign .*none.csv"):
        read_campaign(tmp_path / "none.csv")


def standing(run, goal, trained=0, released=0, busy=False, rate=None):
    algorithm, env, seed = run.split("-")
    return Standing(Target(algorithm, env, int(seed[1:]), goal), trained, released, busy, rate)


def test_the_first_row_that_needs_work_comes_next():
    found = [
        standing("sac-pendulum-s0", 100, trained=100, released=100),
        standing("sac-hopper-s0", 100, trained=50, busy=True),
        standing("sac-hopper-s1", 100, trained=100),
        standing("sac-hopper-s2", 100),
    ]
    assert [s.state for s in found] == ["released", "training", "trained", "waiting"]
    assert next_target(found, set()) is found[2]  # it only lacks its release
    assert next_target(found, {"sac-hopper-s1"}) is found[3]
    assert next_target(found[:2], set()) is None


def test_what_is_left_is_counted_once_a_run_and_at_its_own_speed():
    found = [
        standing("ppo-ninja-s0", 3_600, trained=1_800, rate=1.0),
        standing("ppo-ninja-s0", 7_200, trained=1_800, rate=1.0),
        standing("ppo-jumper-s0", 100),
        standing("ppo-coinrun-s0", 100, trained=100, released=100, rate=5.0),
    ]
    text = render_standings(found)
    assert "1 of 4 rows released" in text and "1.5 hours are left, and 1 runs of unknown speed" in text
    assert "ppo-coinrun-s0" in text and "ppo-coinrun-s0" not in render_standings(found, only_left=True)


def test_standings_are_read_from_the_run_folders(tmp_path, tiny_sppo):
    run = read_run(tiny_sppo)
    target = Target(run.algorithm, run.env, run.seed, 10 * run.timesteps)
    shutil.copytree(tiny_sppo, tmp_path / "runs" / target.name)
    (found,) = standings([target], tmp_path / "runs", tmp_path / "checkpoints")
    assert (found.trained, found.released, found.busy) == (run.timesteps, 0, False)
    assert found.state == "begun" and found.hours_left == pytest.approx(found.steps_left / found.rate / 3600)


def test_runs_that_share_a_gpu_share_the_cores_and_say_how_fast_they_are(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 16)
    targets = [Target("sppo", "ninja", seed, 1000) for seed in (0, 1)]
    for target, rates in zip(targets, ((1.0, 3000.0, 4000.0, 5000.0), (6000.0,)), strict=True):
        curve = tmp_path / target.name / "progress.csv"
        curve.parent.mkdir()
        rows = "".join(f"{step},0,{rate}\n" for step, rate in enumerate(rates, start=1))
        curve.write_text("total_timesteps,eprewmean,fps\n" + rows)
    campaign = Campaign(targets, tmp_path, tmp_path / "checkpoints", jobs=8, device="cuda")
    command = campaign._slice(Standing(targets[0], 0, 0, False, None), 1.0)
    assert command[command.index("--env-threads") + 1] == 2 and command[command.index("--device") + 1] == "cuda"
    campaign.device = "cpu"
    assert "--env-threads" not in campaign._slice(Standing(targets[0], 0, 0, False, None), 1.0)
    names = [target.name for target in targets]
    alone, both = (campaign._reached(names[0], names[:n]) for n in (1, 2))
    assert alone.endswith(", 3,500 steps/s") and both.endswith(", 3,500 steps/s of 9,500 in the 2 runs at work")


def test_two_processes_never_train_one_run(tmp_path):
    from filelock import FileLock

    from interp_lib.runs.training import LOCK, being_trained

    assert not being_trained(tmp_path / "r")
    (tmp_path / "r").mkdir()
    with FileLock(tmp_path / "r" / LOCK):
        assert being_trained(tmp_path / "r")
        with pytest.raises(InterpError, match="another process trains .*r. Wait for it"):
            train("sac", "pendulum", timesteps=10, seed=0, run_dir=tmp_path / "r")
    assert not being_trained(tmp_path / "r")


@pytest.mark.slow
def test_a_killed_campaign_loses_nothing_released_and_goes_on(tmp_path):
    table = tmp_path / "c.csv"
    table.write_text(HEADER + "sac,pendulum,0,300\nsac,pendulum,1,100000\nsac,pendulum,0,400\n")
    command = [sys.executable, "-m", "interp_lib.cli", "campaign", "run", "--file", str(table), "--episodes", "2"]
    command += ["--runs", str(tmp_path / "runs"), "--folder", str(tmp_path / "checkpoints"), "--slice-minutes", "0.1"]
    log = tmp_path / "log"
    with log.open("w") as file:
        process = subprocess.Popen(command, stdout=file, start_new_session=True)
    try:
        deadline = time.monotonic() + 240
        while "sac-pendulum-s1: training" not in log.read_text():
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
        time.sleep(5)
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # the campaign and the slice it started
        process.wait()
    (released,) = find_runs(tmp_path / "checkpoints")
    assert released.name == "sac-pendulum-s0" and released.timesteps == 300 and verify_run(released) == []
    # The second row is out of reach, so the next campaign is told about the first run alone.
    campaign = Campaign(
        [t for t in read_campaign(table) if t.seed == 0], tmp_path / "runs", tmp_path / "checkpoints", episodes=2
    )
    assert campaign.run() == {}
    (released,) = find_runs(tmp_path / "checkpoints")
    assert released.timesteps == 400 and verify_run(released) == []


@pytest.mark.slow
def test_a_failing_run_is_reported_and_does_not_stop_the_others(tmp_path):
    (tmp_path / "runs" / "sac-pendulum-s1").mkdir(parents=True)
    (tmp_path / "runs" / "sac-pendulum-s1" / "training_state.zip").write_bytes(b"half a file")
    lines = []
    campaign = Campaign(
        [Target("sac", "pendulum", seed, 300) for seed in (1, 0)],
        tmp_path / "runs",
        tmp_path / "checkpoints",
        jobs=2,
        episodes=2,
        say=lines.append,
    )
    failed = campaign.run()
    assert list(failed) == ["sac-pendulum-s1"] and "is damaged" in failed["sac-pendulum-s1"]
    assert [run.name for run in find_runs(tmp_path / "checkpoints")] == ["sac-pendulum-s0"]
    assert any("sac-pendulum-s1: failed" in line for line in lines)
