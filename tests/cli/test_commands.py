"""The ``interp`` command: what it prints, its exit status, and one line instead of a traceback."""

import json
import os
import subprocess
import sys

import pytest
from conftest import ROOT

from interp_lib.cli import build_parser, main

COMMANDS = (
    "train",
    "evaluate",
    "embed",
    "videos",
    "browse",
    "prototypes",
    "campaign",
    "reproduce",
    "checkpoints",
    "doctor",
)


def run(capsys, *arguments):
    status = main([str(a) for a in arguments])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    said = capsys.readouterr().out
    assert f"example:\n  interp {command}" in said and "%%" not in said


@pytest.mark.parametrize("algorithm", ["ppo", "sppo", "sac", "protosac"])
def test_help_of_training_names_every_option(algorithm, capsys):
    with pytest.raises(SystemExit):
        main(["train", algorithm, "--help"])
    out = capsys.readouterr().out
    assert "--timesteps" in out and "--resume" in out and f"interp train {algorithm}" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "sppo", "nimja"], "ninja"),
        (["train", "protosac", "hoper"], "hopper"),
        (["train", "sppo", "ninja", "--timesteps", "-5"], "timesteps must be positive"),
        (["train", "sac", "pendulum", "--timesteps", "0"], "timesteps must be positive"),
        (["train", "sppo"], "which environment"),
        (["train", "sac", "pendulum", "--set", "gamma"], "NAME=VALUE"),
        (["evaluate", "nowhere"], "no run folder nowhere"),
        (["embed", "nowhere"], "no run folder nowhere"),
        (["videos", "nowhere"], "no run folder nowhere"),
        (["prototypes", "nowhere"], "no run folder nowhere"),
        (["checkpoints", "list", "--folder", "nowhere"], "no runs in nowhere"),
        (["reproduce", "--only", "99"], "99"),
    ],
)
def test_mistakes_get_one_line_and_status_two(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks/01_train.ipynb").write_text("{}")
    status, out, err = run(capsys, *arguments)
    assert status == 2 and out == ""
    assert message in err and err.startswith("interp: ") and len(err.strip().splitlines()) == 1
    assert not (tmp_path / "runs").exists()


def test_a_bad_option_gets_one_line(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["train", "sppo", "ninja", "--timesteps", "many"])
    assert stop.value.code == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_a_truncated_policy_gives_one_line_and_no_traceback(tiny_sppo, tmp_path):
    """As a user sees it: a process of its own."""
    (tmp_path / "run").mkdir()
    for name in ("config.json", "policy.safetensors"):
        (tmp_path / "run" / name).write_bytes((tiny_sppo / name).read_bytes())
    weights = tmp_path / "run/policy.safetensors"
    os.truncate(weights, weights.stat().st_size // 2)
    done = subprocess.run(
        [sys.executable, "-m", "interp_lib.cli", "evaluate", str(tmp_path / "run")], capture_output=True, text=True
    )
    assert done.returncode == 2 and done.stdout == ""
    assert len(done.stderr.strip().splitlines()) == 1 and "policy.safetensors is damaged" in done.stderr


def test_train_resume_and_evaluate(tmp_path, capsys):
    run_dir = tmp_path / "run"
    tiny = ["--num-envs", "4", "--num-steps", "16", "--num-minibatches", "2", "--quiet", "--run-dir", run_dir]
    status, out, _ = run(capsys, "train", "sppo", "fruitbot", "--timesteps", "64", *tiny)
    assert status == 0 and "saved" in out
    assert "already holds a run" in run(capsys, "train", "sppo", "fruitbot", "--timesteps", "64", *tiny)[2]
    assert "holds sppo on fruitbot" in run(capsys, "train", "sppo", "ninja", "--resume", *tiny)[2]
    assert run(capsys, "train", "sppo", "fruitbot", "--timesteps", "128", "--resume", *tiny)[0] == 0
    assert (run_dir / "progress.csv").read_text().count("\n") == 3
    status, out, _ = run(capsys, "evaluate", run_dir, "--episodes", "3", "--json")
    result = json.loads(out)
    assert status == 0 and result["timesteps"] == 128
    assert (
        result["results"]["unseen"]["low"] <= result["results"]["unseen"]["mean"] <= result["results"]["unseen"]["high"]
    )
    assert "must be positive" in run(capsys, "evaluate", run_dir, "--episodes", "0")[2]


def test_embed_and_videos_leave_pictures(tiny_sppo, tmp_path, capsys):
    status, out, _ = run(capsys, "embed", tiny_sppo, "--steps", "8", "--tsne-states", "200", "--out", tmp_path)
    assert status == 0 and "left out map_stability: stability over 500" in out
    folder = tmp_path / tiny_sppo.name
    assert {"states.h5", "fdr_and_tsne_space.png", "cluster_gallery.png", "cluster_table.csv"} <= {
        p.name for p in folder.iterdir()
    }
    evidence = ("code_usage", "space_quality", "counterfactual_kept", "temporal_coherence")
    assert all((folder / f"{name}.csv").is_file() for name in evidence)
    assert {"code_effect.csv", "groupings.png", "groupings_table.csv"} <= {p.name for p in folder.iterdir()}
    status, out, _ = run(
        capsys, "videos", tiny_sppo, "--episodes", "2", "--frames", "20", "--max-steps", "9", "--out", tmp_path
    )
    assert status == 0 and list(folder.glob("skill_*.mp4"))


def test_embed_groups_the_states_of_a_ppo_run_by_k_means(tiny_ppo, tmp_path, capsys):
    status, out, _ = run(capsys, "embed", tiny_ppo, "--steps", "8", "--tsne-states", "200", "--out", tmp_path)
    assert status == 0 and "left out map_stability: a ppo run has no" in out and "left out code_effect: a ppo" in out
    folder = tmp_path / tiny_ppo.name
    assert {"fdr_and_tsne_space.png", "cluster_gallery.png", "groupings.png"} <= {p.name for p in folder.iterdir()}
    assert "principal components" in (folder / "fdr_and_tsne_space.json").read_text()


@pytest.mark.parametrize(
    ("command", "names"),
    [
        ("embed", ["sac-pendulum-s100", "protosac-pendulum-s100"]),
        ("videos", ["ppo-ninja-s2021", "sac-pendulum-s100", "protosac-pendulum-s100"]),
        ("prototypes", ["ppo-ninja-s2021", "sppo-ninja-s2021", "sac-pendulum-s100"]),
        ("browse", ["ppo-ninja-s2021", "sac-pendulum-s100"]),
    ],
)
def test_a_run_that_explains_itself_otherwise_is_refused_in_one_line(command, names, tmp_path, capsys):
    where = ["--export", tmp_path / "page.html"] if command == "browse" else ["--out", tmp_path]
    for name in names:
        status, _, err = run(capsys, command, ROOT / "checkpoints" / name, *where)
        assert status == 2 and len(err.splitlines()) == 1, (name, err)
        assert "no clusters" in err or "no prototypes" in err, (name, err)
    assert not any(tmp_path.iterdir())


def test_importing_the_command_is_quick():
    """The heavy libraries wait until they are needed."""
    code = (
        "import sys, interp_lib.cli as c; c.build_parser(); print([m for m in ('torch', 'pandas') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_parser_knows_the_original_projects_spelling():
    args = build_parser().parse_args(["train", "protosac", "--environment", "5"])
    assert args.env_option == "5"
    assert build_parser().parse_args(["prototypes", "RUN", "--save-dir", "DIR"]).out.name == "DIR"


def test_a_task_is_trained_for_the_budget_of_its_settings(tmp_path, capsys):
    run_dir = tmp_path / "protosac-pendulum-s100"
    # Without --timesteps it trains for the budget of the settings.
    tiny = ["--set", "timesteps=300", "--set", "learning_starts=100", "--set", "n_prototypes=4"]
    assert run(capsys, "train", "protosac", "pendulum", *tiny, "--quiet", "--run-dir", run_dir)[0] == 0
    assert json.loads((run_dir / "config.json").read_text())["timesteps"] == 300


def test_doctor_ends_with_status_zero_where_everything_needed_works(capsys):
    status, out, _ = run(capsys, "doctor")
    assert "Procgen" in out and status == (0 if out.endswith("Everything needed works here.\n") else 1)


def test_the_old_gyms_banner_is_not_shown():
    code = "from interp_lib import SPPO, ProtoSAC; SPPO('ninja')._make_trainer(); import gym"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "unmaintained" not in done.stderr
