"""Other looks of the same states: the measure tells what follows the game from what follows the look."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from recorded import collected

from interp_lib import InterpError, load_agent
from interp_lib.clusters.counterfactual import AS_PLAYED, BY_LOOKS, CODES, RIVAL, Counterfactual
from interp_lib.clusters.counterfactual_outputs import examples, save_counterfactual
from interp_lib.common.outputs import Outputs, saved_outputs
from interp_lib.envs.looks import LOOKS

CHECKPOINTS = Path(__file__).resolve().parents[2] / "checkpoints"
OTHER = "other background"


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return collected(tmp_path_factory.mktemp("states"), "sppo-fruitbot-s2021", steps=25, num_envs=12)


@pytest.fixture(scope="module")
def found(study):
    return Counterfactual(study, times=6)


def with_codes(found, by_look):
    """``found`` with other codes, int64 (m,) by look."""
    other = dataclasses.replace(found)
    labels = found.labels | {CODES: by_look}
    other.__dict__.update(_drawn=found._drawn, embeddings=found.embeddings, labels=labels)
    return other


def test_the_same_look_changes_nothing(study, monkeypatch):
    monkeypatch.setitem(LOOKS, "the same", {"use_backgrounds": 1})
    found = Counterfactual(study, times=3)
    assert np.array_equal(found.frames["the same"], study.states.frames(found.rows))
    assert (found.kept.loc["the same", ["kept", "kept low", "beyond chance"]] == 1).all(None)
    surprise = found.surprise.loc["the same"]
    assert surprise["other nearest frame"] == 0 and surprise["same most probable action"] == 1
    assert surprise["KL (nats)"] == pytest.approx(0, abs=1e-6) and np.isnan(surprise["KL, code changes"])


def test_other_actions_and_other_games_are_refused(study, monkeypatch):
    states = study.states
    for other in ({"action": (states.action + 3) % 15}, {"level": states.level + 1}, {"reward": states.reward + 1}):
        with pytest.raises(InterpError, match="can't be played again"):
            _ = Counterfactual(dataclasses.replace(study, states=dataclasses.replace(states, **other))).frames
    monkeypatch.setitem(LOOKS, "an early end", {"timeout": 1})
    with pytest.raises(InterpError, match="an early end changes what happens in fruitbot"):
        _ = Counterfactual(study, times=2).frames


def test_agents_without_codes_and_games_without_looks_are_refused(study, tiny_ppo):
    with pytest.raises(InterpError, match="no clusters to draw"):
        _ = Counterfactual(dataclasses.replace(study, agent=load_agent(tiny_ppo, device="cpu"))).frames
    maze = dataclasses.replace(study.states, meta=study.states.meta | {"game": "maze"})
    with pytest.raises(InterpError, match="other looks of maze are not known"):
        _ = Counterfactual(dataclasses.replace(study, states=maze)).frames


def test_a_released_agent_sees_through_backgrounds_and_pixels_do_not(found):
    assert found.trained == {OTHER: True, "no background": False, "monochrome": False}
    kept, surprise = found.kept["beyond chance"], found.surprise
    assert kept[OTHER, CODES] > 0.8 > 0.3 > kept[OTHER, BY_LOOKS] and kept[OTHER, RIVAL] > 0.8
    assert surprise.loc[OTHER, "other nearest frame"] > 0.9 and surprise.loc[OTHER, "KL (share of entropy)"] < 0.1
    assert kept["monochrome", CODES] < 0.3 and surprise.loc["monochrome", "KL (share of entropy)"] > 0.2
    assert surprise["states"].eq(len(found.rows)).all() and surprise["levels"].iloc[0] >= 12
    assert found.differences.loc[(OTHER, f"{CODES} − {BY_LOOKS}"), "p"] < 0.01
    text = found.verdict
    assert (
        text.startswith("The codes follow the game rather than its look")
        and "of those in training (other background)" in text
    )
    assert "Monochrome (never drawn in training)" in text


def test_shares_by_hand_and_a_verdict_that_falls_the_other_way(found):
    m = len(found.rows)
    halves = np.arange(m) % 2
    same = dict.fromkeys(found.labels[CODES], halves)
    one = with_codes(found, same | {OTHER: np.zeros(m, int)}).kept.loc[(OTHER, CODES)]
    share = (halves == 0).mean()
    assert one["kept"] == one["by chance"] == pytest.approx(share) and one["beyond chance"] == pytest.approx(0)
    quarter = np.where(np.arange(m) % 4 == 3, 0, halves)  # one in four goes from 1 to 0
    moved = with_codes(found, same | {OTHER: quarter}).kept.loc[(OTHER, CODES)]
    p, q = (halves == 0).mean(), (quarter == 0).mean()
    chance = p * q + (1 - p) * (1 - q)
    assert moved["by chance"] == pytest.approx(chance)
    assert moved["beyond chance"] == pytest.approx(((halves == quarter).mean() - chance) / (1 - chance))
    assert moved["kept low"] < moved["kept"] < moved["kept high"]
    single = with_codes(found, {look: 0 * halves for look in same})
    assert single.verdict.startswith("The codes follow nothing that could be told") and len(examples(single)) == 1
    looks = with_codes(found, found.labels[BY_LOOKS])
    assert looks.verdict.startswith("The codes follow the look rather than the game")
    assert (looks.differences.xs(f"{CODES} − {BY_LOOKS}", level=1)["kept"] == 0).all()


def test_the_figure_shows_several_codes_and_all_is_saved(found, tmp_path):
    chosen = examples(found, 4)
    code = found.labels[CODES][AS_PLAYED][chosen]
    assert len(set(code)) == len(code) == 4 and len(set(found.study.states.level[found.rows[chosen]])) > 1
    save_counterfactual(found, Outputs(tmp_path, "03"), [])
    saved = {output.name: output for output in saved_outputs(tmp_path)["03"]}
    tables = {"counterfactual_kept", "counterfactual_differences", "counterfactual_policy"}
    assert set(saved) == {"counterfactual", *tables}
    assert "Never drawn in training: no background, monochrome." in saved["counterfactual"].caption
