"""Evaluations and videos while SAC and ProtoSAC train."""

from __future__ import annotations

import av
import pandas as pd
import pytest

from interp_lib.agents.protosac import ProtoSAC, callbacks, train_run
from interp_lib.agents.protosac.callbacks import EVALUATION_COLUMNS
from interp_lib.agents.protosac.training import COLUMNS
from interp_lib.cli import main
from interp_lib.common.errors import InterpError

SMALL = {"net_arch": (32, 32), "batch_size": 32, "learning_starts": 50, "n_prototypes": 6, "latent_dim": 8}


def train(run_dir, **options):
    options = {"overrides": SMALL, "algorithm": "protosac", "env": "pendulum"} | options
    return train_run(options.pop("algorithm"), options.pop("env"), run_dir=run_dir, progress=False, **options)


def test_evaluations_are_logged_and_leave_training_as_it_is(tmp_path):
    plain = train(tmp_path / "plain", timesteps=110)
    run = train(tmp_path / "run", timesteps=110, eval_every=40, eval_episodes=2)
    assert (plain / "policy.safetensors").read_bytes() == (run / "policy.safetensors").read_bytes()
    rows = pd.read_csv(run / "evaluations.csv")
    assert tuple(rows.columns) == EVALUATION_COLUMNS
    assert rows.total_timesteps.tolist() == [40, 80] and (rows.episodes == 2).all() and (rows.length_mean == 200).all()
    assert (rows.return_min <= rows.return_mean).all() and (rows.return_mean <= rows.return_max).all()
    assert rows.return_mean.between(-2000, 0).all() and rows.return_mean[0] != rows.return_mean[1]
    curve = pd.read_csv(run / "progress.csv")
    assert curve.columns.tolist() == list(COLUMNS)
    assert curve[curve.total_timesteps > 51].critic_loss.notna().all()  # also in the rows after an evaluation

    # A resumed run goes on at the multiples of eval_every and keeps the rows there are.
    train(run, timesteps=130, resume=True, overrides=None, eval_every=40, eval_episodes=2)
    again = pd.read_csv(run / "evaluations.csv")
    assert again.total_timesteps.tolist() == [40, 80, 120]
    assert again.iloc[:2].equals(rows)

    # Rows written after the last saved state belong to steps that are trained again, here without evaluations.
    with (run / "evaluations.csv").open("a") as file:
        file.write("160,-1,0,-1,-1,200,2\n")
    train(run, timesteps=135, resume=True, overrides=None)
    assert pd.read_csv(run / "evaluations.csv").equals(again)


def test_evaluating_the_same_agent_twice_plays_the_same_episodes(tmp_path):
    # Nothing is learned before step 1,000, and the deterministic actions don't change.
    run = train(
        tmp_path, timesteps=4, eval_every=2, eval_episodes=2, algorithm="sac", overrides={"learning_starts": 99}
    )
    rows = pd.read_csv(run / "evaluations.csv")
    assert rows.return_mean[0] == rows.return_mean[1] and rows.return_std[0] > 0


def test_evaluations_count_the_steps_of_all_environments(tmp_path):
    run = train(tmp_path, timesteps=60, eval_every=20, eval_episodes=1, overrides=SMALL | {"n_envs": 2})
    assert pd.read_csv(run / "evaluations.csv").total_timesteps.tolist() == [20, 40, 60]


def test_videos_show_an_episode_of_the_agent(tmp_path, monkeypatch):
    monkeypatch.setattr(callbacks, "_MOST_FRAMES", 20)
    arguments = ["train", "protosac", "pendulum", "--timesteps", "60", "--video-every", "25", "--quiet"]
    settings = ["--set", "net_arch=32,32", "--set", "learning_starts=40"]
    assert main([*arguments, "--run-dir", str(tmp_path), *settings]) == 0
    videos = sorted((tmp_path / "videos").iterdir())
    assert [v.name for v in videos] == ["step-000000025.mp4", "step-000000050.mp4"]
    with av.open(str(videos[0])) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264" and stream.frames == 21
        first, *_, last = (frame.to_ndarray(format="rgb24") for frame in container.decode(stream))
    assert first.shape == (500, 500, 3) and first.std() > 0 and (first != last).any()
    assert ProtoSAC.load_run(tmp_path).num_timesteps == 60


# Gymnasium's half-made viewer complains once more when it is collected.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_without_opengl_videos_are_refused_before_training(tmp_path, monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "none-such")
    with pytest.raises(InterpError, match="apt-get install libegl1"):
        train(tmp_path / "run", env="hopper", timesteps=10, video_every=5)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("option", ["eval_every", "video_every", "eval_episodes"])
def test_counts_below_one(option, tmp_path):
    with pytest.raises(InterpError, match=f"{option} is 0; it must be at least 1"):
        train(tmp_path, timesteps=10, **({"eval_every": 5} | {option: 0}))
