"""Sentences from concepts: what they say holds on other levels, and a reader of nonsense is seen to fail."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from interp_lib.clusters.sentences import (
    Sentence,
    Statement,
    facts_table,
    holds,
    read_back,
    reading_verdict,
    statements,
    write_sentences,
)
from interp_lib.clusters.states import StateSet
from interp_lib.envs.concepts import CONCEPTS
from interp_lib.envs.gamestate import GAMES_READ

LEVELS, STEPS = 40, 50
READER = "three facts a cluster"


def recorded(tmp_path, code=None, seed=0, **given):
    """States of CoinRun with concepts that are noise but for those ``given``; codes 0 to 3."""
    size, rng = LEVELS * STEPS, np.random.default_rng(seed)
    table = pd.DataFrame({name: rng.normal(size=size) for name in CONCEPTS["coinrun"]})
    table["on_ground"] = rng.integers(0, 2, size)
    table = table.assign(**given)
    zeros = np.zeros(size, np.float32)
    code = rng.integers(0, 4, size) if code is None else np.asarray(code)
    return StateSet(
        tmp_path / "s.h5", {"game": "coinrun", "num_envs": LEVELS, "num_codes": 4, "steps": STEPS},
        np.zeros((size, 4), np.float32), np.zeros((size, 2), np.float32), code, zeros, zeros.astype(int), zeros,
        np.zeros(size, bool), np.arange(size) % LEVELS, np.arange(size) % LEVELS, np.arange(size) // LEVELS,
        np.ones(size, bool), table.to_numpy(np.float32),
    )  # fmt: skip


@pytest.mark.parametrize("game", GAMES_READ)
def test_every_concept_that_a_frame_shows_has_words_in_both_directions(game):
    rng = np.random.default_rng(0)
    known = pd.DataFrame({name: rng.normal(size=200) * 100 for name in CONCEPTS[game]})
    known = known.assign(**{n: rng.integers(0, 2, 200) for n, kind in CONCEPTS[game].items() if kind.unit == "yes/no"})
    found = statements(known, game)
    shown = {name for name, kind in CONCEPTS[game].items() if kind.shown}
    assert {statement.concept for statement in found} == shown
    assert len({statement.text for statement in found}) == len(found)
    for name in shown:
        true = [holds(s, known, game).mean() for s in found if s.concept == name]
        assert len(true) >= 2 and sum(true) >= 0.9  # one of them is true of nearly every state


def test_statements_use_the_words_of_the_game():
    known = pd.DataFrame({"goal_distance": [1.0, 2.0, 5.0], "jump_charge": [0.0, 0.0, 0.5], "fruits": [0.0, 2.0, 4.0]})
    texts = {game: [s.text for name in known for s in statements(known[[name]].reindex(columns=CONCEPTS[game]), game)]
             for game in ("jumper", "ninja", "fruitbot")}  # fmt: skip
    assert "carrot at most 2 cells away" in texts["jumper"] and not any("goal" in text for text in texts["jumper"])
    assert {"jump not charged", "jump charged"} <= set(texts["ninja"])
    assert not any(text.endswith("than 0") for text in texts["ninja"])
    assert "fruits in the frame" not in texts["fruitbot"]  # every quarter of the frames shows some
    assert "more than 2 fruits in the frame" in texts["fruitbot"]


def test_a_statement_is_a_range_and_says_what_not_seeing_means():
    known = pd.DataFrame({"saw_ahead": [1.0, 2.0, np.nan], "goal_bearing": [-170.0, 100.0, 10.0]})
    near = Statement("saw_ahead", "saw within 1 cells", -np.inf, 1.0)
    assert holds(near, known, "coinrun").tolist() == [True, False, False]
    far = Statement("saw_ahead", "no saw within 1 cells", 1.0, np.inf, absent=True)
    assert holds(far, known, "coinrun").tolist() == [False, True, True]
    left = Statement("goal_bearing", "goal to the left", 180.0, 270.0)
    assert holds(left, known, "jumper").tolist() == [True, False, False]


def test_sentences_say_what_distinguishes_and_a_reader_finds_the_cluster(tmp_path):
    rng = np.random.default_rng(1)
    code = rng.integers(0, 4, LEVELS * STEPS)
    noisy = rng.random(code.shape) < 0.1
    states = recorded(
        tmp_path,
        code,
        on_ground=np.where(noisy, rng.integers(0, 2, code.shape), code % 2),
        lava_ahead=np.where(code < 2, 1.0 + rng.random(code.shape), np.nan),
    )
    sentences = write_sentences(states)
    assert "irborne 9" in str(sentences[0]) and "n the ground 9" in str(sentences[1])
    assert "ava in the frame 100%" in str(sentences[0]) and "o lava in the frame 100%" in str(sentences[2])
    assert {fact.statement.concept for fact in sentences[3].facts} == {"on_ground", "lava_ahead"}  # no noise
    assert all(fact.share > fact.elsewhere and fact.confirmed for s in sentences.values() for fact in s.facts)
    read = read_back(states, sentences)
    assert read.loc[READER, "accuracy"] == pytest.approx(0.95, abs=0.03)
    assert read.loc[READER, "levels"] == LEVELS // 4 and read.loc[READER, "states"] == LEVELS // 4 * STEPS
    assert read.loc["commonest cluster", "accuracy"] < 0.35 and read.loc["chance", "accuracy"] < 0.35
    assert read.loc["sentences dealt to others", "accuracy"] == pytest.approx(0.05 / 3, abs=0.02)
    assert "the sentences help" in reading_verdict(read)
    assert set(facts_table(sentences)["said"]) <= {True, False} and len(facts_table(sentences)) >= 8


def test_a_reader_of_clusters_that_mean_nothing_fails(tmp_path):
    states = recorded(tmp_path)
    sentences = write_sentences(states)
    assert all(str(s) == "No concept distinguishes it on other levels." for s in sentences.values())
    read = read_back(states, sentences)
    assert read.loc[READER, "accuracy"] == pytest.approx(0.25, abs=0.06)
    assert "not shown to help" in reading_verdict(read)


def test_what_holds_on_some_levels_only_is_dropped(tmp_path):
    """Sentences are taken at their word: facts chosen by half of the levels are not said if a quarter contradicts."""
    code = np.random.default_rng(2).integers(0, 4, LEVELS * STEPS)
    first = set(np.random.default_rng(0).permutation(LEVELS)[: LEVELS // 2].tolist())  # those that choose
    chosen = np.isin(np.arange(len(code)) % LEVELS, list(first))
    states = recorded(tmp_path, code, on_ground=np.where(chosen, code == 0, code != 0).astype(float))
    sentence = write_sentences(states)[0]
    assert sentence.chosen[0].statement.text == "on the ground" and sentence.chosen[0].share > 0.95
    assert sentence.chosen[0].checked.high < 0 and sentence.facts == ()


def test_states_without_concepts_have_no_sentences(tmp_path):
    assert write_sentences(replace(recorded(tmp_path), concepts=None)) == {}
    assert str(Sentence(0.5, ())) == "No concept distinguishes it on other levels."
