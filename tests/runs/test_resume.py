"""Going on with a run: what is refused, what can change, and that nothing of it is lost without a word."""

import shutil

import pytest
import torch

from interp_lib import InterpError, load_agent
from interp_lib.agents.sppo.agents import SPPO, TRAINING_STATE
from interp_lib.agents.sppo.config import PPOConfig
from interp_lib.cli import main
from interp_lib.common.storage import read_json
from interp_lib.envs.procgen import Levels


@pytest.fixture()
def run_dir(tiny_sppo, tmp_path):
    return shutil.copytree(tiny_sppo, tmp_path / tiny_sppo.name)


def train(run_dir, *options):
    words = ["train", "sppo", "fruitbot", "--run-dir", run_dir, "--device", "cpu", "--quiet", *options]
    return main([str(word) for word in words])


def one_line(capsys):
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("interp: ") and len(err.splitlines()) == 1, err
    return err


@pytest.mark.parametrize("resume", [["--resume"], []])
@pytest.mark.parametrize("left", [[TRAINING_STATE], ["policy.safetensors"], ["progress.csv"]])
def test_a_run_whose_config_is_gone_is_not_overwritten(left, resume, run_dir, capsys):
    for path in run_dir.iterdir():
        if path.name not in left:
            path.unlink()
    before = {path.name: path.read_bytes() for path in run_dir.iterdir()}
    assert train(run_dir, "--timesteps", 128, *resume) == 2
    assert f"{left[0]} of a run whose config.json is gone" in one_line(capsys)
    assert {path.name: path.read_bytes() for path in run_dir.iterdir()} == before


def test_what_a_kill_before_the_first_save_leaves_is_started_over(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/progress.csv").write_text("total_timesteps,eprewmean\n")
    tiny = ["--num-envs", 2, "--num-steps", 4, "--num-minibatches", 1, "--num-epochs", 1]
    assert train(tmp_path / "run", "--timesteps", 8, *tiny) == 0
    assert load_agent(tmp_path / "run").timesteps == 8


def test_learning_rate_and_precision_can_change_and_the_rest_is_refused_by_name(run_dir, capsys):
    same = ["--resume", "--timesteps", 512, "--num-envs", 8]
    assert train(run_dir, *same, "--num-levels", 200, "--gamma", 0.5, "--learning-rate", 1e-6) == 2
    refused = one_line(capsys)
    assert "num_levels is 0, gamma is 0.999" in refused and "learning_rate" not in refused
    assert train(run_dir, *same, "--seed", 9) == 2 and "has seed 0, not 9" in one_line(capsys)
    assert train(run_dir, *same, "--learning-rate", 1e-6, "--seed", 0) == 0
    config = read_json(run_dir / "config.json")
    assert config["hyperparameters"]["learning_rate"] == config["history"][-1]["learning_rate"] == 1e-6
    again = SPPO.load(run_dir, device="cpu", resume=True)  # and it stays so
    assert again._trainer.updater.optimizer.param_groups[0]["lr"] == again.config.learning_rate == 1e-6


def test_a_mistyped_folder_is_no_new_run(run_dir, capsys):
    assert train(run_dir.with_name("sppo-fruitbt-s0"), "--resume") == 2
    assert f"Did you mean {run_dir}?" in one_line(capsys)
    assert train(run_dir.parent / "nowhere/run", "--resume") == 2 and "to resume" in one_line(capsys)
    assert not run_dir.with_name("sppo-fruitbt-s0").exists()


def test_a_curve_that_was_cut_is_not_lost_without_a_word(run_dir, capsys):
    curve = run_dir / "progress.csv"
    lines = curve.read_text().splitlines(keepends=True)
    curve.write_text("".join(lines[:2]))
    assert train(run_dir, "--resume", "--timesteps", 512) == 2
    assert "was cut: it ends at step 128, and the run is at 384" in one_line(capsys)
    curve.unlink()
    assert train(run_dir, "--resume", "--timesteps", 512) == 0
    assert "is missing: the curve begins after step 384" in capsys.readouterr().err
    assert curve.read_text().count("\n") == 2


@pytest.mark.parametrize("seed", ["-1", "3000000000", "99999999999"])
@pytest.mark.parametrize("command", ["train ppo ninja", "train sac pendulum", "evaluate x", "embed x", "prototypes x"])
def test_seeds_out_of_range_are_refused_before_anything_runs(seed, command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        main([*command.split(), f"--seed={seed}"])
    assert stop.value.code == 2 and "a seed is a whole number from 0 to" in one_line(capsys)
    assert list(tmp_path.iterdir()) == []


def test_unseen_levels_start_past_those_of_training():
    for levels, start, first in ((0, 0, 200_000), (200_000, 0, 200_000), (300_000, 0, 300_000), (500, 7, 200_007)):
        assert Levels.unseen(PPOConfig(num_levels=levels, start_level=start)).start_level == first
    with pytest.raises(InterpError, match="leave no unseen levels"):
        PPOConfig(start_level=2147400000)


def test_an_early_state_without_digest_goes_on(run_dir):
    state = torch.load(run_dir / TRAINING_STATE, weights_only=True)
    del state["config"]
    torch.save(state, run_dir / TRAINING_STATE)
    assert SPPO.load(run_dir, device="cpu", resume=True).timesteps == 384
