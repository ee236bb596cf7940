"""Run folders: loading, releasing, verifying, and what is said when a file is missing, truncated or altered."""

import json
import shutil

import pytest
import torch
from conftest import ROOT

from interp_lib import InterpError, load_agent
from interp_lib.agents.learning_curve import ProgressLog, read_progress
from interp_lib.cli import build_parser
from interp_lib.common.storage import atomic_write, read_json, read_tensors, write_tensors
from interp_lib.pipeline.release import evaluate_and_release, list_runs, render_list
from interp_lib.runs.card import render_card
from interp_lib.runs.checks import released_returns, verify_run
from interp_lib.runs.folder import Run, find_run, find_runs, read_run


@pytest.fixture()
def run_dir(tiny_sppo, tmp_path):
    return shutil.copytree(tiny_sppo, tmp_path / tiny_sppo.name)


@pytest.fixture(scope="module")
def released(tiny_sppo, tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints")
    evaluate_and_release(tiny_sppo, folder, episodes=4)
    return folder


def test_a_released_run_holds_what_was_measured_on_it(released, tiny_sppo):
    run = read_run(released / "sppo-fruitbot-s0")
    assert sorted(p.name for p in run.path.iterdir()) == [
        "card.md", "config.json", "policy.safetensors", "progress.csv", "returns.csv",
    ]  # fmt: skip
    sides = ("train", "unseen", "train_deterministic", "unseen_deterministic", "random")
    assert {side: r["episodes"] for side, r in run.results.items()} == dict.fromkeys(sides, 4)
    assert {r["actions"] for r in run.results.values()} == {"sampled", "most probable", "uniform"}
    assert verify_run(run) == []
    assert all(w.dtype == torch.float16 for w in read_tensors(run.path / "policy.safetensors").values())
    card = (run.path / "card.md").read_text()
    assert "384 environment steps" in card and "0.0% of that budget" in card
    # The run it came from keeps its float32 weights: it may still be training.
    assert all(w.dtype == torch.float32 for w in read_tensors(tiny_sppo / "policy.safetensors").values())


def test_the_return_of_every_episode_is_kept(released, tmp_path):
    run = read_run(released / "sppo-fruitbot-s0")
    returns = released_returns(run)
    assert returns.keys() == run.results.keys()
    for side, values in returns.items():
        assert len(values) == 4 and values.mean() == pytest.approx(run.results[side]["mean"], abs=1e-3)
    # Runs released before returns were kept have none; a file that the config doesn't name is not believed.
    old = {**run.config, "files": {n: h for n, h in run.config["files"].items() if n != "returns.csv"}}
    assert released_returns(Run(run.path, old)) == {}
    assert [problem.rpartition(" ")[2] for problem in verify_run(Run(run.path, old))] == ["returns.csv"]
    copy = shutil.copytree(run.path, tmp_path / run.name)
    early = shutil.copytree(run.path, tmp_path / "early", ignore=shutil.ignore_patterns("returns.csv"))
    assert verify_run(Run(early, old)) == []
    with (copy / "returns.csv").open("a") as file:
        file.write("1,1,1,1,1\n")
    with pytest.raises(InterpError, match=r"returns\.csv was altered"):
        released_returns(read_run(copy))
    (copy / "returns.csv").unlink()
    with pytest.raises(InterpError, match=r"cannot read .*returns\.csv"):
        released_returns(read_run(copy))


def test_a_released_run_can_be_measured_again(released, tmp_path):
    folder = tmp_path / "checkpoints"
    shutil.copytree(released / "sppo-fruitbot-s0", folder / "sppo-fruitbot-s0")
    again = evaluate_and_release(folder / "sppo-fruitbot-s0", folder, episodes=4)
    assert again.config == read_run(released / "sppo-fruitbot-s0").config and verify_run(again) == []


def test_the_card_says_when_a_run_is_no_better_than_random(released):
    config = read_run(released / "sppo-fruitbot-s0").config
    above = {
        "unseen": {**config["results"]["unseen"], "low": 3.1},
        "random": {**config["results"]["random"], "high": 3.0},
    }
    overlapping = {**above, "random": {**above["random"], "high": 3.2}}
    assert "Not better than a random policy" not in render_card({**config, "results": above})
    assert "Not better than a random policy" in render_card({**config, "results": overlapping})


def test_listing_names_steps_returns_and_checksums(released):
    (row,) = list_runs(released)
    assert {"algorithm", "env", "seed", "timesteps", "return_train", "return_test"} <= row.keys()
    assert (row["algorithm"], row["env"], row["timesteps"]) == ("sppo", "fruitbot", 384)
    assert "sppo-fruitbot-s0" in render_list([row])
    with pytest.raises(InterpError, match="no runs in"):
        list_runs(released / "sppo-fruitbot-s0")


def test_an_altered_release_is_noticed(released, tmp_path):
    copy = shutil.copytree(released / "sppo-fruitbot-s0", tmp_path / "sppo-fruitbot-s0")
    with (copy / "progress.csv").open("a") as file:
        file.write("1,2\n")
    with (copy / "returns.csv").open("a") as file:
        file.write("1,1,1,1,1\n")
    (copy / "policy.safetensors").unlink()
    problems = verify_run(read_run(copy))
    assert len(problems) == 3 and "missing" in problems[0] and "altered" in problems[1]
    assert "returns.csv was altered" in problems[2]


def test_the_longest_run_is_found(released, tmp_path):
    assert find_run(released, "sppo", "fruitbot").name == "sppo-fruitbot-s0"
    assert find_runs(released, algorithm="ppo") == []
    with pytest.raises(InterpError, match=r"there: fruitbot.*interp train sppo coinrun"):
        find_run(released, "sppo", "coinrun")


def test_a_variant_is_no_seed_of_the_runs_without(released, tmp_path):
    shutil.copytree(released / "sppo-fruitbot-s0", tmp_path / "sppo-fruitbot-200levels-s0")
    (alone,) = find_runs(tmp_path)
    assert alone.variant == "200levels" and find_run(tmp_path, "sppo", "fruitbot") == alone
    shutil.copytree(released / "sppo-fruitbot-s0", tmp_path / "sppo-fruitbot-s0")
    assert find_run(tmp_path, "sppo", "fruitbot").name == "sppo-fruitbot-s0"
    shutil.copytree(released / "sppo-fruitbot-s0", tmp_path / "any name")
    assert [read_run(tmp_path / name).variant for name in ("sppo-fruitbot-s0", "any name")] == ["", ""]


@pytest.mark.parametrize("keep", [0, 7, 5000])
def test_truncated_weights_are_one_clear_error(run_dir, keep):
    weights = run_dir / "policy.safetensors"
    weights.write_bytes(weights.read_bytes()[:keep])
    with pytest.raises(InterpError, match=r"policy\.safetensors is damaged"):
        load_agent(run_dir)


def test_other_damage_is_named(run_dir, tmp_path):
    with pytest.raises(InterpError, match="no run folder"):
        load_agent(tmp_path / "nowhere")
    config = read_json(run_dir / "config.json")
    (run_dir / "config.json").write_text("{")
    with pytest.raises(InterpError, match="not valid JSON"):
        load_agent(run_dir)
    (run_dir / "config.json").write_text(json.dumps({**config, "algorithm": "dqn"}))
    with pytest.raises(InterpError, match="unknown algorithm 'dqn'"):
        load_agent(run_dir)
    (run_dir / "config.json").write_text(json.dumps({"env": "ninja"}))
    with pytest.raises(InterpError, match="lacks algorithm, seed, timesteps"):
        load_agent(run_dir)


def test_weights_of_another_shape_are_refused(run_dir):
    tensors = read_tensors(run_dir / "policy.safetensors")
    write_tensors(run_dir / "policy.safetensors", {**tensors, "policy.weight": torch.zeros(3, 3)})
    with pytest.raises(InterpError, match="does not fit this agent"):
        load_agent(run_dir)


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(RuntimeError), atomic_write(path) as file:
        file.write(b"half")
        raise RuntimeError
    assert path.read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_full_disk_is_one_clear_error(run_dir):
    agent = load_agent(run_dir)
    with pytest.raises(InterpError, match="cannot write"):
        agent.save("/proc/interp")  # no file can be created there, even by root


def test_progress_rows_after_the_checkpoint_are_taken_back(tmp_path):
    log = ProgressLog(tmp_path / "progress.csv", ("total_timesteps", "eprewmean", "vq_loss"))
    log.start(keep_through=0)
    for step in (10, 20, 30):
        log.append({"total_timesteps": step, "eprewmean": step / 3})
    with log.path.open("a") as file:
        file.write("4")  # killed in the middle of a row
    log.start(keep_through=20)
    assert log.path.read_text().splitlines() == ["total_timesteps,eprewmean,vq_loss", "10,3.33333,", "20,6.66667,"]
    assert read_progress(tmp_path)["total_timesteps"].tolist() == [10, 20]
    log.path.write_text("a,b\n1,2\n")
    with pytest.raises(InterpError, match="lacks the columns"):
        read_progress(tmp_path)


def test_the_command_of_a_card_trains_such_a_run_again():
    """A run on 200 levels is not trained again by a command that says nothing of them."""
    run = read_run(ROOT / "checkpoints" / "sppo-coinrun-200levels-s2021")
    command = next(line for line in render_card(run.config).splitlines() if line.startswith("interp train"))
    args = build_parser().parse_args(command.split()[1:])
    options = {name: value for name, value in vars(args).items() if name.startswith("option_") and value is not None}
    assert options == {"option_num_levels": run.num_levels} and run.num_levels == 200
    assert (args.algorithm, args.env, args.seed, args.timesteps) == ("sppo", "coinrun", run.seed, run.timesteps)
