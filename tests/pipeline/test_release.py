"""What a release measures of ProtoSAC: the return before and after projection, and how many prototypes are used."""

from __future__ import annotations

import re

import numpy as np
import pytest

from interp_lib.agents.protosac import ProtoSAC, train_run
from interp_lib.common.errors import InterpError
from interp_lib.pipeline.release import evaluate_and_release
from interp_lib.prototypes.study import PrototypeStudy, compare_returns
from interp_lib.prototypes.traces import record_episodes
from interp_lib.prototypes.usage import prototype_usage, usage_interval
from interp_lib.runs.card import render_card
from interp_lib.runs.folder import read_run

SMALL = {"net_arch": (32, 32), "batch_size": 32, "learning_starts": 50}
PROTOTYPES = SMALL | {"n_prototypes": 6, "latent_dim": 8, "projection_interval": 0}


def test_a_release_says_what_projection_cost_and_how_many_prototypes_are_used(tmp_path):
    run = train_run(
        "protosac", "pendulum", timesteps=250, run_dir=tmp_path / "run", overrides=PROTOTYPES, progress=False
    )
    released = evaluate_and_release(run, tmp_path / "checkpoints", episodes=2)
    agent = ProtoSAC.load_run(released.path)
    traces = record_episodes(agent, "pendulum", 2)
    expected = compare_returns(PrototypeStudy(agent, traces))
    assert list(released.results) == ["eval", "before_projection", "random"]
    for side, row in (("eval", "ProtoSAC"), ("before_projection", "ProtoSAC, before the last projection")):
        assert released.results[side]["mean"] == pytest.approx(expected.loc[row, "mean"], abs=1e-3)
    assert released.results["eval"]["mean"] != released.results["before_projection"]["mean"]

    measured = read_run(released.path).config["prototypes"]
    usage = prototype_usage(np.concatenate([trace.weights for trace in traces]))
    assert measured["in_use"] == round(usage.in_use, 2) and measured["of"] == 6
    assert measured["low"] <= measured["in_use"] <= 6 and 1 <= measured["per_decision"] <= measured["in_use"]
    assert measured["leading"] == len(np.unique(np.concatenate([trace.leading for trace in traces])))
    assert (measured["decisions"], measured["episodes"]) == (400, 2)
    alike = PrototypeStudy(agent, traces).likeness
    for name in ("nearest", "near", "ratio"):
        ends = [measured[name + end] for end in ("", "_low", "_high")]
        assert ends == [round(value, 2) for value in getattr(alike.agent, name)]
    assert measured["duplicates"] == len(alike.duplicates)
    card = (released.path / "card.md").read_text()
    near = f"{measured['near']:.0%}** [{measured['near_low']:.0%}, {measured['near_high']:.0%}]"
    assert f"among the 3 nearest in **{near}" in card and f"act differently: {measured['duplicates']}." in card
    older = {name: value for name, value in measured.items() if not name.startswith("near")}
    assert render_card({**released.config, "prototypes": older}) == re.sub(r"Likeness, .*\n\n", "", card)
    assert "| before the last projection |" in card
    assert f"Prototypes in use: **{measured['in_use']:.1f} of 6**" in card and "400 decisions in 2" in card


def test_sac_has_no_prototypes_to_measure(tmp_path):
    run = train_run("sac", "pendulum", timesteps=60, run_dir=tmp_path / "run", overrides=SMALL, progress=False)
    released = evaluate_and_release(run, tmp_path / "checkpoints", episodes=2)
    assert list(released.results) == ["eval", "random"] and "prototypes" not in released.config
    assert "Prototypes in use" not in (released.path / "card.md").read_text()


def test_the_interval_of_usage_is_one_over_episodes():
    one, two = np.tile([1.0, 0.0, 0.0], (30, 1)), np.tile([0.0, 0.5, 0.5], (10, 1))
    alike = usage_interval([two, two, two])
    assert alike == pytest.approx((2.0, 2.0, 2.0))
    mixed = usage_interval([one] * 5 + [two] * 5)
    assert mixed.mean == pytest.approx(prototype_usage(np.concatenate([one] * 5 + [two] * 5)).in_use)
    assert 1 < mixed.low < mixed.mean < mixed.high < 3
    assert usage_interval([one] * 5 + [two] * 5) == mixed
    with pytest.raises(InterpError, match="no decisions"):
        usage_interval([])
