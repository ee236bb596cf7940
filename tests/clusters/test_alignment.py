"""Concepts by group: known information, groups that are a concept, groups that are none, and the verdict either way."""

import json
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import h5py
import matplotlib
import numpy as np
import pytest
from recorded import collected

matplotlib.use("Agg")

from interp_lib import InterpError
from interp_lib.clusters.alignment import (
    PIXELS,
    SHUFFLED,
    UNTRAINED,
    Alignment,
    balanced_accuracy,
    classes,
    corrected,
    judged_classes,
    mutual_information,
    recognised,
)
from interp_lib.clusters.collect import open_states
from interp_lib.clusters.groupings import CODES, RIVAL, Groupings
from interp_lib.clusters.outputs import save_alignment
from interp_lib.clusters.states import load_states
from interp_lib.clusters.study import ClusterStudy
from interp_lib.common.outputs import Outputs
from interp_lib.common.statistics import without_each
from interp_lib.envs.concepts import CONCEPTS, concepts
from interp_lib.envs.gamestate import read_state
from interp_lib.envs.procgen import Levels, ProcgenVec

CHECKPOINTS = Path(__file__).resolve().parents[2] / "checkpoints"


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return collected(tmp_path_factory.mktemp("states"), "sppo-coinrun-s2021", steps=24, num_envs=24)


def counted(level, label, of):
    counts = np.zeros((level.max() + 1, label.max() + 1, of.max() + 1))
    np.add.at(counts, (level, label, of), 1)
    return counts


def test_classes_are_values_quarters_or_thirds_and_what_is_not_there():
    nan = np.nan
    assert classes(np.array([1, 0, nan, 1.0]), "yes/no").tolist() == [2, 1, 0, 2]
    assert classes(np.array([0, 44, 46, 90, 179, -179, -90, nan]), "degrees").tolist() == [1, 1, 2, 2, 3, 3, 4, 0]
    assert np.bincount(classes(np.arange(300.0), "cells")).tolist() == [0, 100, 100, 100]
    mostly = classes(np.append(np.zeros(280), np.arange(20.0)), "cells")  # both quantiles are 0: at 0, and above
    assert np.bincount(mostly).tolist() == [0, 281, 19]
    rare = np.append(np.zeros(990), np.ones(10))
    assert judged_classes(rare, "yes/no", np.arange(1000)).tolist() == [0] * 990 + [-1] * 10
    two = np.repeat([0.0, 1.0], 500)
    assert set(judged_classes(two, "yes/no", np.append(np.arange(500), np.zeros(500, int)))) == {0, -1}  # of one level


def test_information_is_that_of_the_joint_distribution_and_chance_has_none():
    p = np.array([[0.4, 0.1], [0.1, 0.4]])
    assert mutual_information(1000 * p) == pytest.approx((p * np.log(p / 0.25)).sum())
    assert mutual_information(np.eye(4)) == pytest.approx(np.log(4))
    # Levels of 40 states that are all alike: by shares alone 8 groups and 4 classes seem to share a lot.
    rng, plain, found = np.random.default_rng(0), [], []
    for _ in range(60):
        level = np.repeat(np.arange(60), 40)
        counts = counted(level, np.repeat(rng.integers(0, 8, 60), 40), np.repeat(rng.integers(0, 4, 60), 40))
        values = mutual_information(without_each(counts))
        plain.append(values[0])
        found.append(corrected(values).mean)
    states = 2400
    miller_madow = np.mean(plain) - (8 - 1) * (4 - 1) / (2 * states)
    assert np.mean(plain) > 0.15 and miller_madow > 0.15 and abs(np.mean(found)) < 0.03


def test_groups_that_are_a_concept_tell_it_on_other_levels_and_shuffled_ones_do_not():
    rng = np.random.default_rng(0)
    level, of = np.repeat(np.arange(50), 60), rng.choice(3, 3000, p=[0.8, 0.15, 0.05])
    folds = np.stack([np.arange(50) % 5, np.arange(50) // 10])

    def accuracy(label):
        counts = counted(level, label, of)
        return balanced_accuracy(recognised(counts, folds, np.ones((1, 50))), counts.sum((0, 1)))[0]

    assert accuracy(of) == 1 and accuracy((of + 1) % 3) == 1
    assert accuracy(rng.permutation(of)) == pytest.approx(1 / 3, abs=0.05)
    assert accuracy(np.zeros(3000, int)) == pytest.approx(1 / 3, abs=0.02)
    assert accuracy(np.minimum(of, 1)) == pytest.approx(2 / 3, abs=0.01)  # the last two can't be told apart
    # Groups that are levels know everything of levels that were seen, and nothing of others.
    assert accuracy(level) == pytest.approx(1 / 3, abs=0.05)


def test_concepts_are_those_of_the_states_that_were_seen(study):
    states = study.states
    env = ProcgenVec("coinrun", 24, Levels.unseen(study.agent.config), seed=0)
    try:
        for t in range(24):
            part = slice(t * 24, (t + 1) * 24)
            if t in (0, 11, 23):
                known = [list(concepts(read_state(state)).values()) for state in env.get_state()]
                np.testing.assert_array_equal(states.concepts[part], np.array(known, np.float32))
                np.testing.assert_array_equal(states.frames(np.arange(len(states))[part]), env.observation)
            env.step(states.action[part])
    finally:
        env.close()
    assert list(states.concept_table) == list(CONCEPTS["coinrun"])


def test_files_without_concepts_load_and_are_collected_again_where_they_are_wanted(study, tmp_path, capsys):
    old = tmp_path / "old.h5"
    old.write_bytes(study.states.path.read_bytes())
    with h5py.File(old, "a") as file:
        meta = json.loads(file.attrs["meta"])
        del meta["concepts"], file["concepts"]
        file.attrs["meta"] = json.dumps(meta)
    states = load_states(old, study.agent)
    assert states.concepts is None and ClusterStudy(study.agent, states).sentences == {}
    with pytest.raises(InterpError, match="holds no concepts"):
        _ = states.concept_table
    assert open_states(study.agent, old, any_settings=True, steps=24, num_envs=24).concepts is None
    again = open_states(study.agent, old, steps=24, num_envs=24, progress=False)
    assert "holds other concepts than are read of coinrun now, or none" in capsys.readouterr().err
    np.testing.assert_array_equal(again.concepts, study.states.concepts)


class Known(Alignment):
    """Groups as given, and no network to wait for."""

    @cached_property
    def _untrained(self):
        return np.random.default_rng(0).normal(size=(len(self.rows), 3)).astype(np.float32)


def test_codes_that_are_a_concept_are_found_to_be_and_the_picture_says_so(study, tmp_path):
    truth = np.nan_to_num(study.states.concept_table["on_ground"].to_numpy()).astype(np.int64)
    known = replace(study, states=replace(study.states, code=truth))
    alignment = Known(Groupings(known), 10_000)
    own = alignment.table.loc["on_ground"]
    assert own.loc[CODES, "balanced accuracy"] == 1 and own.loc[CODES, "chance"] == 0.5
    p = truth[alignment.rows].mean()
    entropy = -p * np.log(p) - (1 - p) * np.log(1 - p)
    assert own.loc[CODES, "mutual information (nats)"] == pytest.approx(entropy, abs=0.02)
    assert own.loc[SHUFFLED, "balanced accuracy low"] < 0.5 < own.loc[SHUFFLED, "balanced accuracy high"]
    assert own.loc[UNTRAINED, "balanced accuracy"] < 0.6  # groups of noise
    assert own.loc[PIXELS, "balanced accuracy"] > 0.7 and np.isnan(own.loc[PIXELS, "mutual information (nats)"])
    difference = alignment.differences.loc[(RIVAL, "on_ground")]
    assert difference["difference"] == pytest.approx(1 - own.loc[RIVAL, "balanced accuracy"])
    assert difference["p"] < 0.05 and "on_ground" in alignment.verdict.split("better and")[0]
    save_alignment(alignment, Outputs(tmp_path, "a"), [])
    assert {path.stem for path in (tmp_path / "a").glob("*.json")} == {
        "concept_alignment", "concept_alignment_table", "concept_differences",
    }  # fmt: skip


def test_codes_of_other_levels_are_not_found_to_tell_anything(study):
    dice = np.random.default_rng(0).integers(0, 8, len(study.states))
    alignment = Known(Groupings(replace(study, states=replace(study.states, code=dice))), 10_000)
    assert "tell none better" in alignment.verdict and "no more semantic" in alignment.verdict
    assert (alignment.differences.loc[SHUFFLED, "p"] > 0.05).all()
