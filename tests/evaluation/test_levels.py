"""From run folders to comparisons: which runs are compared, on which scale, and what is said where that is not fair."""

import dataclasses
import hashlib
import json
import zlib
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from interp_lib import InterpError
from interp_lib.common.outputs import Outputs, saved_outputs
from interp_lib.common.statistics import bootstrap_mean
from interp_lib.evaluation.comparison import between, compare, pair_runs
from interp_lib.evaluation.figures import plot_comparison, plot_levels, plot_published, plot_restricted
from interp_lib.evaluation.levels import (
    Evaluations,
    gap_sentences,
    level_table,
    longest_runs,
    paper_table,
    published_comparison,
    restricted_runs,
    restricted_table,
)
from interp_lib.evaluation.outputs import (
    runs_to_compare,
    save_comparison,
    save_learning_curves,
    save_levels,
    save_paper_table,
    save_published,
    save_restricted,
)
from interp_lib.runs.folder import find_runs, read_run
from interp_lib.runs.published import published_seeds

PROCGEN_SIDES = ("train", "unseen", "train_deterministic", "unseen_deterministic", "random")


@pytest.fixture()
def folder(tmp_path):
    return tmp_path / "checkpoints"


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch):
    monkeypatch.setattr("interp_lib.common.statistics.RESAMPLES", 60)


@pytest.fixture()
def evaluations():
    return Evaluations(4, 4)


def released(folder, algorithm, env, steps, means, *, seed=0, episodes=40, levels=0, curve=None, kept=True):
    """A run folder with returns of the given means (by side) and no weights: nothing here may need to play."""
    run = folder / f"{algorithm}-{env}-s{seed}{f'-{levels}' if levels else ''}"
    run.mkdir(parents=True)
    rng = np.random.default_rng(zlib.crc32(f"{algorithm} {env} {seed}".encode()))
    columns = {side: np.round(rng.normal(mean, 1.0, episodes), 4) for side, mean in means.items()}
    text = pd.DataFrame(columns).to_csv(index=False)
    (run / "returns.csv").write_text(text)
    results = {s: {**bootstrap_mean(v, resamples=20)._asdict(), "episodes": episodes} for s, v in columns.items()}
    config = {"algorithm": algorithm, "env": env, "seed": seed, "timesteps": steps, "results": results}
    settings = {"env": env, "seed": seed, "distribution_mode": "easy", "num_levels": levels}
    config["hyperparameters"] = settings if "unseen" in means else {}
    config["files"] = {"returns.csv": hashlib.sha256(text.encode()).hexdigest()} if kept else {}
    (run / "config.json").write_text(json.dumps(config))
    curve = curve or {steps: means.get("train", 0.0)}
    pd.DataFrame({"total_timesteps": list(curve), "eprewmean": list(curve.values())}).to_csv(run / "progress.csv")
    return read_run(run)


def procgen(folder, algorithm, game, steps, mean, *, gap=0.0, **options):
    means = dict.fromkeys(PROCGEN_SIDES, mean) | {"train": mean + gap, "train_deterministic": mean + gap, "random": 3.0}
    return released(folder, algorithm, game, steps, means, **options)


def continuous(folder, algorithm, task, mean, *, steps=1000, **options):
    return released(folder, algorithm, task, steps, {"eval": mean, "random": 0.0}, **options)


def test_levels_and_gap(folder, evaluations):
    runs = [procgen(folder, "sppo", "jumper", 100, 6.0, gap=3.0), procgen(folder, "ppo", "jumper", 100, 4.0)]
    table = level_table(runs, evaluations)
    assert list(table["agent"]) == ["SPPO", "SPPO", "PPO", "PPO", "random"]
    sppo = table.iloc[0]
    assert sppo["gap"] == pytest.approx(sppo["train"] - sppo["unseen"]) and 2 < sppo["gap low"] < sppo["gap high"] < 4
    assert (sppo["episodes"], sppo["actions"]) == (40, "sampled")
    scaled = level_table(runs, evaluations, normalise=True)
    np.testing.assert_allclose(scaled["unseen"], (table["unseen"] - 3) / 7, rtol=1e-9)  # Jumper, easy: 3 to 10
    sampled, deterministic = gap_sentences(table)
    assert "of 2 agents 1 did worse on unseen levels (SPPO on jumper)" in sampled and "deterministic" in deterministic
    (alike, _) = gap_sentences(level_table(runs[1:], evaluations))
    assert "no interval of a gap leaves out 0" in alike


def test_what_was_not_kept_is_played(tiny_sppo):
    known = Evaluations(3, 3).complete(read_run(tiny_sppo))
    assert sorted(known) == sorted(PROCGEN_SIDES) and {len(values) for values in known.values()} == {3}


def test_runs_of_equal_training_are_paired(folder):
    def runs(*rows):
        return [procgen(folder / str(len(rows)) / str(i), *row, 5.0, seed=i) for i, row in enumerate(rows)]

    found = runs(("ppo", "ninja", 100), ("ppo", "ninja", 900), ("sppo", "ninja", 102), ("sppo", "maze", 100))
    (pairing,) = pair_runs(found, "ppo", "sppo")
    assert pairing.equal and pairing.task == "ninja" and (pairing.steps("ppo"), pairing.steps("sppo")) == (100, 102)
    (pairing,) = pair_runs(found[1:], "ppo", "sppo")
    assert not pairing.equal and (pairing.steps("ppo"), pairing.steps("sppo")) == (900, 102)
    assert [r.timesteps for r in longest_runs(found, ["ppo"])] == [900]
    few = replace(found[0], path=folder / "ppo-ninja-200levels-s0")
    assert few.variant and pair_runs([*found, few], "ppo", "sppo")[0].runs["ppo"] == found[:1]


def test_unequal_training_is_no_comparison_of_methods(folder, evaluations):
    procgen(folder, "ppo", "ninja", 100, 4.0), procgen(folder, "sppo", "ninja", 100, 8.0)
    procgen(folder, "ppo", "jumper", 100, 4.0), procgen(folder, "sppo", "jumper", 900, 9.0)
    both = compare(find_runs(folder), "ppo", "sppo", evaluations)
    assert [p.task for p in both.pairings] == ["ninja"] and list(both.unequal_improvement) == ["jumper"]
    assert "trained unequally (PPO 100, SPPO 900 steps)" in both.left_out["jumper"]
    assert both.conclusion().startswith("On 1 task (ninja) SPPO has an interquartile mean of 0.")
    assert "SPPO is ahead among these agents" in both.conclusion() and "three training seeds" in both.conclusion()
    assert both.size() == "1 task, n = 1 run a task, 40 episodes a run"
    assert "the spread between training seeds is not in them" in both.rests_on()
    only = compare([r for r in find_runs(folder) if r.env == "jumper"], "ppo", "sppo", evaluations)
    assert not only.equal and "says nothing about the methods" in only.conclusion()
    assert "No task where runs of both SAC and ProtoSAC" in compare(find_runs(folder), "sac", "protosac", evaluations)


def test_continuous_scores_run_from_random_to_sac(folder, evaluations):
    for seed in range(3):
        continuous(folder, "sac", "hopper", 50.0 + seed, seed=seed)
        continuous(folder, "protosac", "hopper", 25.0 + seed, seed=seed)
    continuous(folder, "sac", "pendulum", -5.0), continuous(folder, "protosac", "pendulum", 8.0)
    comparison = compare(find_runs(folder), "sac", "protosac", evaluations)
    assert "reference is no better than its zero" in comparison.left_out["pendulum"]
    table = comparison.table
    assert table.loc["SAC", "mean"] == pytest.approx(1)
    assert table.loc["ProtoSAC", "mean"] == pytest.approx(0.51, abs=0.02)
    assert comparison.unit == "runs" and "training seeds are covered" in comparison.rests_on()
    assert comparison.improvement[0] == (0, 0, 0) and comparison.conclusion().endswith("SAC is ahead.")


def test_runs_without_kept_returns_are_left_out_and_named(folder, evaluations):
    continuous(folder, "sac", "hopper", 50.0), continuous(folder, "protosac", "hopper", 25.0, kept=False)
    sentence = compare(find_runs(folder), "sac", "protosac", evaluations)
    assert "protosac-hopper-s0 was released before returns were kept" in sentence
    # Its card still has the mean, and the papers' table takes it from there.
    table = paper_table(find_runs(folder), evaluations)
    assert table.loc["ProtoSAC", "hopper"].startswith("2") and table.loc["steps of SAC", "hopper"] == "1,000"


def test_the_papers_table(folder, evaluations):
    for seed in (0, 1):
        continuous(folder, "sac", "hopper", 50.0 + 10 * seed, seed=seed)
    continuous(folder, "sac", "hopper", 90.0, seed=2, steps=400)  # trained less: not one of the seeds
    continuous(folder, "sac", "pendulum", 7.0)
    table = paper_table(find_runs(folder), evaluations)
    assert list(table.index) == ["random", "SAC", "steps of SAC"] and list(table.columns) == ["hopper", "pendulum"]
    assert table.loc["SAC", "hopper"].endswith("(2 seeds)") and " ± 7." in table.loc["SAC", "hopper"]
    assert "[" in table.loc["SAC", "pendulum"] and "[" in table.loc["random", "hopper"]


def test_published_and_here_at_the_same_step(folder):
    seeds = published_seeds("sppo", "fruitbot")
    best = float(seeds.loc[32768].max())
    procgen(folder, "sppo", "fruitbot", 40_000, 1.0, curve={16384: -9.0, 32768: best, 40_000: 99.0})
    procgen(folder, "ppo", "fruitbot", 16_384, 1.0, curve={16384: 99.0})
    procgen(folder, "sppo", "maze", 32_768, 1.0)  # nothing published
    procgen(folder, "ppo", "ninja", 16_384, 1.0, levels=200)  # not the published setting
    table = published_comparison(find_runs(folder))
    assert table["where"].loc["fruitbot"].to_dict() == {
        (16384, "PPO"): "above", (16384, "SPPO"): "below", (32768, "SPPO"): "inside",
    }  # fmt: skip
    assert set(table.index.get_level_values("game")) == {"fruitbot"}
    row = table.loc[("fruitbot", 32768, "SPPO")]
    assert row["published mean"] == pytest.approx(seeds.loc[32768].mean()) and row["seeds"] == 3
    assert np.isnan(row["here low"])  # a run that kept no spread has no interval
    assert published_comparison([]).empty


@pytest.mark.parametrize(("off", "std", "where"), [(0, 5, "inside"), (0.5, 50, "between"), (9, 5, "above")])
def test_a_dot_beside_the_published_seeds_has_its_interval(off, std, where, folder):
    best = float(published_seeds("sppo", "fruitbot").loc[32768].max())
    run = procgen(folder, "sppo", "fruitbot", 32_768, 1.0, curve={32768: best + off})
    run.config["training"] = {"last_episodes": {"n": 100, "mean": best + off, "std": std}}
    row = published_comparison([run]).loc[("fruitbot", 32768, "SPPO")]
    assert row["where"] == where
    assert row["here high"] - row["here"] == pytest.approx(1.96 * std / 10) == row["here"] - row["here low"]


def test_figures_are_drawn(folder, evaluations):
    import matplotlib.pyplot as plt

    runs = [
        procgen(folder, algorithm, game, 16384, 5.0, gap=1.0)
        for algorithm in ("ppo", "sppo")
        for game in ("ninja", "jumper", "coinrun")
    ]
    assert len(plot_levels(level_table(runs, evaluations), xlabel="return").axes) == 4
    comparison = compare(runs, "ppo", "sppo", evaluations)
    unequal = {"maze": comparison.improvement[0]}
    figure = plot_comparison(dataclasses.replace(comparison, unequal_improvement=unequal))
    labels = [tick.get_text() for tick in figure.axes[2].get_yticklabels()]
    assert labels == ["all tasks", "CoinRun", "Jumper", "Ninja", "Maze (unequal steps)"]
    assert plot_published(published_comparison(runs)).axes[0].get_xlabel().startswith("normalised mean return")
    limited = [procgen(folder, "ppo", "ninja", 100, 5.0, gap=200 / n, levels=n) for n in (50, 200)]
    assert restricted_runs([*runs, *limited]) == limited and restricted_runs(runs) == []
    table = restricted_table(limited, evaluations)
    assert list(table["levels"]) == [50, 200]
    assert plot_restricted(table).axes[0].get_xlabel() == "number of training levels"
    plt.close("all")


def test_what_the_notebook_saves(folder, evaluations, tmp_path):
    outputs = Outputs(tmp_path / "figures", "02")
    own = [procgen(folder, algorithm, "ninja", 16384, 10.0) for algorithm in ("ppo", "sppo")]
    continuous(folder, "sac", "pendulum", 7.0)
    runs = runs_to_compare(own, folder, mode="easy")
    assert own == runs == runs_to_compare(own, None, mode="easy") and len(runs) == 2
    with pytest.raises(InterpError, match=r"trained in easy mode, not in hard.*--distribution-mode hard"):
        runs_to_compare(own, folder, mode="hard")
    comparison = compare(runs, "ppo", "sppo", evaluations)
    thresholds = comparison.thresholds
    assert 1.0 in thresholds and 0.0 in thresholds and len(thresholds) < 200
    save_comparison(comparison, outputs)
    assert save_restricted(runs, evaluations, outputs).startswith("No run here was trained on a limited number")
    save_levels(runs, evaluations, outputs, normalise=True)
    save_paper_table(runs, evaluations, outputs, "papers")
    save_published(runs, outputs)
    save_learning_curves(runs, outputs)
    save_restricted([procgen(folder, "ppo", "ninja", 16384, 5.0, levels=200)], evaluations, outputs)
    captions = {output.name: output.caption for output in saved_outputs(tmp_path / "figures")["02"]}
    assert len(captions) == 10
    for name in ("compare_ppo_sppo", "generalization", "generalization_by_levels"):
        assert "n = " in captions[name] and "95%" in captions[name] and "Cobbe" in captions[name]


def test_damage_is_not_passed_over(folder, evaluations):
    run = continuous(folder, "sac", "hopper", 50.0)
    (run.path / "returns.csv").write_text("eval,random\n1,2\n")
    with pytest.raises(InterpError, match="was altered"):
        paper_table([run], evaluations)


def test_scale_of_two_policies():
    assert between(np.array([-10.0, 0, 10]), -10, 10).tolist() == [0, 0.5, 1]
    with pytest.raises(InterpError, match="no scale"):
        between(np.zeros(2), 1.0, 1.0)
