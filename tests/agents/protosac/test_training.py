"""Training SAC and ProtoSAC into run folders: progress, stopping, resuming, settings."""

from __future__ import annotations

import _thread
import dataclasses
import json
import threading
import zipfile
from itertools import count
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from interp_lib.agents.learning_curve import read_progress
from interp_lib.agents.protosac import SAC, SETTINGS, ProtoSAC, TaskSettings, task_settings, train_run, training
from interp_lib.agents.protosac.training import COLUMNS, _load_state
from interp_lib.cli import main
from interp_lib.common.errors import InterpError
from interp_lib.envs.names import CONTINUOUS_TASKS

SMALL = {"net_arch": (32, 32), "batch_size": 32, "learning_starts": 50, "n_prototypes": 6, "latent_dim": 8}


def train(algorithm: str, run_dir, **options):
    return train_run(algorithm, "pendulum", run_dir=run_dir, progress=False, **({"overrides": SMALL} | options))


def steps_of(optimizer):
    return {int(state["step"]) for state in optimizer.state.values()}


def test_a_run_is_trained_logged_and_resumed(tmp_path):
    run = train("protosac", tmp_path / "run", timesteps=300)
    first = read_progress(run)
    assert tuple(first.columns) == COLUMNS
    assert first.total_timesteps.iloc[-1] == 300 and first.total_timesteps.is_monotonic_increasing
    last = first.iloc[-1]
    assert -2000 < last.eprewmean < 0 and last.eplenmean == 200 and last.fps > 0
    assert 1 <= last.prototypes_per_decision <= last.prototypes_used <= 6
    assert np.isfinite(
        first.iloc[-1].drop("separation_loss").to_numpy(float)
    ).all()  # the encoder's space alone has one

    config = json.loads((run / "config.json").read_text())
    assert (config["timesteps"], config["hyperparameters"]["n_prototypes"]) == (300, 6)
    assert "torch" in json.dumps(config["provenance"])
    before = _load_state(run, "protosac", "pendulum")
    assert before.replay_buffer.pos == 300 and before.replay_buffer.observations[:300].any(axis=(1, 2)).all()
    assert steps_of(before.actor.optimizer) == {250}
    released = ProtoSAC.load_run(run)
    for name, tensor in released.policy.actor.state_dict().items():
        torch.testing.assert_close(tensor, before.actor.state_dict()[name], rtol=0, atol=0)

    # Rows written after the last saved state belong to steps that are trained again.
    with (run / "progress.csv").open("a") as file:
        file.write("310" + "," * (len(COLUMNS) - 1) + "\n")
    train("protosac", run, timesteps=450, resume=True, overrides=None)
    second = read_progress(run)
    assert 310 not in second.total_timesteps.tolist() and second.total_timesteps.iloc[-1] == 450
    assert second.total_timesteps.is_monotonic_increasing
    assert second.time_elapsed.is_monotonic_increasing
    assert second.iloc[: len(first)].equals(first)
    after = _load_state(run, "protosac", "pendulum")
    assert after.num_timesteps == 450 and after.replay_buffer.pos == 450
    np.testing.assert_array_equal(after.replay_buffer.actions[:300], before.replay_buffer.actions[:300])
    assert steps_of(after.actor.optimizer) == {400}
    # The new steps explore anew instead of repeating the first ones.
    assert not np.array_equal(after.replay_buffer.actions[300:350], before.replay_buffer.actions[:50])

    with pytest.raises(InterpError, match="already at 450 steps"):
        train("protosac", run, timesteps=450, resume=True, overrides=None)
    with pytest.raises(InterpError, match="already holds a run"):
        train("protosac", run, timesteps=300)
    with pytest.raises(InterpError, match="run of protosac on pendulum, not sac on pendulum"):
        train("sac", run, timesteps=900, resume=True, overrides=None)
    with pytest.raises(InterpError, match="keeps its settings"):
        train("protosac", run, timesteps=900, resume=True)


def test_the_same_seed_trains_the_same_agent(tmp_path):
    weights = [
        (train("protosac", tmp_path / str(i), timesteps=120, seed=seed) / "policy.safetensors").read_bytes()
        for i, seed in enumerate((4, 4, 5))
    ]
    assert weights[0] == weights[1] != weights[2]


def test_a_stopped_run_is_whole(tmp_path):
    run = train("sac", tmp_path / "minutes", timesteps=100_000, max_minutes=0.5 / 60)
    agent = SAC.load_run(run)
    assert 0 < agent.num_timesteps < 100_000

    timer = threading.Timer(1.0, _thread.interrupt_main)
    timer.start()
    run = train("sac", tmp_path / "interrupt", timesteps=100_000)
    assert 0 < SAC.load_run(run).num_timesteps < 100_000
    train("sac", run, timesteps=SAC.load_run(run).num_timesteps + 20, resume=True, overrides=None)


def test_bad_arguments(tmp_path):
    for options, message in (
        ({"timesteps": -5}, "timesteps is -5"),
        ({"timesteps": 0}, "timesteps is 0"),
        ({"max_minutes": 0}, "max_minutes is 0"),
        ({"resume": True, "overrides": None}, "no training state"),
        ({"overrides": {"n_prototype": 3}}, "Did you mean n_prototypes"),
    ):
        with pytest.raises(InterpError, match=message):
            train("protosac", tmp_path / "run", **options)
    with pytest.raises(InterpError, match="unknown algorithm 'dqn'"):
        train("dqn", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_damaged_training_state_is_reported(tmp_path):
    run = train("sac", tmp_path, timesteps=60)
    state = run / "training_state.zip"
    content = state.read_bytes()
    state.write_bytes(content[: len(content) // 2])
    with pytest.raises(InterpError, match="training_state.zip is damaged"):
        train("sac", run, timesteps=100, resume=True, overrides=None)
    with zipfile.ZipFile(state, "w") as archive:
        archive.writestr("position", "3")
    with pytest.raises(InterpError, match="training_state.zip is damaged"):
        train("sac", run, timesteps=100, resume=True, overrides=None)


def test_a_task_without_settings_is_named(monkeypatch):
    monkeypatch.delitem(SETTINGS, "hopper")
    with pytest.raises(InterpError, match="hopper has no settings. Add an entry"):
        task_settings("hopper")


def test_settings_of_every_task_can_be_overridden_from_text():
    assert set(SETTINGS) == set(CONTINUOUS_TASKS)
    settings = task_settings(
        "3", {"net_arch": "64,32", "batch_size": "1e2", "ent_coef": "auto_0.1", "action_noise": "none", "tau": "0.01"}
    )
    assert settings.net_arch == (64, 32) and settings.batch_size == 100 and settings.tau == 0.01
    assert settings.ent_coef == "auto_0.1" and settings.action_noise is None
    assert task_settings("halfcheetah").batch_size == 256
    assert task_settings("hopper", {"learning_rate": "1e-3"}).learning_rate == 1e-3
    for bad in ({"batch_size": "many"}, {"batch_size": 1.5}, {"net_arch": "big"}, {"tau": None}):
        with pytest.raises(InterpError, match="should be of type"):
            task_settings("hopper", bad)


def test_long_runs_save_their_state_on_the_way(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "_SAVE_EVERY_SECONDS", 0.0)
    # Saves again after nine times as long as it took: on a clock of its own, which no busy disk holds up.
    monkeypatch.setattr(training, "time", SimpleNamespace(monotonic=count().__next__))
    saved = []
    save = training._save_state
    monkeypatch.setattr(
        training, "_save_state", lambda agent, run: saved.append(agent.num_timesteps) or save(agent, run)
    )
    train("sac", tmp_path, timesteps=60)
    assert len(saved) > 2 and saved[0] < 10 and saved[-1] == 60


def test_every_setting_is_a_flag_of_its_algorithm(tmp_path, monkeypatch):
    given = []
    monkeypatch.setattr("interp_lib.runs.training.train", lambda *_, options, **__: given.append(options) or tmp_path)
    values = {"batch_size": "64", "net_arch": "32,32", "ent_coef": "auto_0.1", "gamma": "0.9", "action_noise": "none"}
    flags = [text for name, value in values.items() for text in (f"--{name.replace('_', '-')}", value)]
    for algorithm, more in (("sac", []), ("protosac", ["--n-prototypes", "9", "--mixture", "gmm"])):
        assert main(["train", algorithm, "pendulum", *flags, *more, "--set", "tau=0.5", "--set", "gamma=0.8"]) == 0
        settings = task_settings("pendulum", given[-1])
        assert settings.batch_size == 64 and settings.net_arch == (32, 32) and settings.action_noise is None
        assert (settings.ent_coef, settings.gamma, settings.tau) == ("auto_0.1", 0.9, 0.5)  # a flag before --set
    assert (settings.n_prototypes, settings.mixture) == (9, "gmm")
    with pytest.raises(SystemExit):
        main(["train", "sac", "pendulum", "--n-prototypes", "9"])
    for field in dataclasses.fields(TaskSettings)[1:]:
        assert field.metadata["help"], field.name
