"""Codes beside other groupings: measures by hand, and verdicts that can fall either way."""

import copy
import dataclasses
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
from recorded import collected
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score, silhouette_score

matplotlib.use("Agg")

from interp_lib import load_agent
from interp_lib.clusters.collect import collect_states
from interp_lib.clusters.evidence import temporal_coherence
from interp_lib.clusters.groupings import BY_PPO, CODES, NULL, ON_PPO, RIVAL, Groupings, agreement_scores
from interp_lib.clusters.outputs import save_groupings
from interp_lib.clusters.states import stretches
from interp_lib.clusters.study import ClusterStudy
from interp_lib.common.graphs import CUT
from interp_lib.common.grouping import explained_variance
from interp_lib.common.outputs import Outputs

CHECKPOINTS = Path(__file__).resolve().parents[2] / "checkpoints"


@pytest.fixture(scope="module")
def groupings(tmp_path_factory):
    study = collected(tmp_path_factory.mktemp("states"), "sppo-coinrun-s2021", steps=40, num_envs=16)
    return Groupings(study, load_agent(CHECKPOINTS / "ppo-coinrun-s2021", device="cpu"))


def test_agreement_is_scikit_learns():
    rng = np.random.default_rng(0)
    a = rng.integers(0, 4, 500)
    b = np.where(rng.random(500) < 0.6, a, rng.integers(0, 3, 500))
    counts = np.zeros((2, 4, 4))
    np.add.at(counts[0], (a, b), 1)
    np.add.at(counts[1], (a, a), 1)
    rand, nmi = agreement_scores(counts)
    assert rand == pytest.approx([adjusted_rand_score(a, b), 1])
    assert nmi == pytest.approx([normalized_mutual_info_score(a, b), 1])


def test_measures_of_the_codes_are_those_of_other_modules(groupings):
    states, table = groupings.study.states, groupings.table
    coherence = temporal_coherence(states).loc["all"]
    own, kept = table.loc[CODES], states.kept
    assert own["stays"] == pytest.approx(coherence["stays"])
    assert own["stays by chance"] == pytest.approx(coherence["stays, shuffled in its episode"])
    beyond = (own["stays"] - own["stays by chance"]) / (1 - own["stays by chance"])
    assert own["coherence low"] < own["coherence"] == pytest.approx(beyond)
    assert own["silhouette in h"] == pytest.approx(silhouette_score(states.feature[kept], states.code[kept]), abs=1e-5)
    policy = groupings.study.policy[kept].astype(np.float64)
    assert own["variance of policy"] == pytest.approx(explained_variance(policy, states.code[kept], 8))
    complete = stretches(states).query("next != @CUT", local_dict={"CUT": CUT})
    assert own["dwell (steps)"] == pytest.approx(complete["length"].mean())
    assert groupings.measured[CODES]["stays"].shape == (1 + 16,)
    without = dataclasses.replace(states, done=states.done | (states.env == 5))  # no steps within its episodes
    assert groupings.measured[CODES]["stays"][6] == pytest.approx(temporal_coherence(without).loc["all", "stays"])


def test_released_codes_add_nothing_to_k_means_and_the_pictures_say_so(groupings, tmp_path):
    table = groupings.table
    assert list(table.index[:2]) == [CODES, RIVAL] and {ON_PPO, ON_PPO + BY_PPO, RIVAL + NULL} <= set(table.index)
    assert table.loc[RIVAL, "variance of policy"] > table.loc[CODES, "variance of policy"]
    assert "the codes add nothing to" in groupings.verdict and "higher in" not in groupings.verdict
    assert table.loc[RIVAL, "silhouette in h"] > table.loc[RIVAL + NULL, "silhouette in h high"]
    assert set(groupings.agreement.index.get_level_values(0)) < set(groupings.labels)
    outputs = Outputs(tmp_path, "g")
    save_groupings(groupings, outputs, [])
    assert {path.stem for path in (tmp_path / "g").glob("*.json")} == {
        "groupings", "groupings_table", "grouping_agreement", "grouping_differences",
    }  # fmt: skip


def test_codes_that_know_what_k_means_cannot_see_are_found_to_add(groupings):
    """The policy depends on a coordinate that varies little beside another one, and the code is that coordinate."""
    states, rng = groupings.study.states, np.random.default_rng(0)
    code = rng.integers(0, 8, len(states))
    feature = np.zeros((len(states), 256), np.float32)
    feature[:, 0], feature[:, 1] = 0.1 * code, rng.uniform(0, 30, len(states))
    agent = copy.deepcopy(groupings.study.agent)
    with torch.no_grad():
        agent.network.policy.weight.zero_()
        agent.network.policy.weight[0, 0] = 8
    made_up = Groupings(ClusterStudy(agent, dataclasses.replace(states, feature=feature, code=code)))
    assert made_up.table.loc[CODES, "variance of policy"] > 0.99 > 0.1 > made_up.table.loc[RIVAL, "variance of policy"]
    assert "the codes add to" in made_up.verdict and "higher in variance of policy" in made_up.verdict
    assert "lower in silhouette in h" in made_up.verdict and ON_PPO not in made_up.table.index


def test_a_cloud_without_groups_is_like_its_null_and_islands_are_not(groupings):
    states, rng = groupings.study.states, np.random.default_rng(1)
    cloud = rng.normal(size=(len(states), 256)).astype(np.float32)
    cloud[:, 3:] *= 0.05
    islands = cloud.copy()
    islands[:, :3] += 20 * rng.integers(0, 2, (len(states), 3))
    widths = {}
    for name, feature in (("cloud", cloud), ("islands", islands)):
        study = dataclasses.replace(groupings.study, states=dataclasses.replace(states, feature=feature))
        table = Groupings(study).table["silhouette in h"]
        widths[name] = table[RIVAL], table[RIVAL + NULL]
    assert widths["cloud"][0] == pytest.approx(widths["cloud"][1], abs=0.05)
    assert widths["islands"][0] > 0.8 > 0.5 > widths["islands"][1]


def test_without_codes_the_rivals_stay(tiny_ppo, tmp_path):
    agent = load_agent(tiny_ppo, device="cpu")
    states = collect_states(agent, tmp_path / "s.h5", steps=12, num_envs=8, progress=False)
    assert states.map == "PCA" and states.num_codes == 8 == len(np.unique(states.code))
    assert np.allclose(states.fdr.mean(0), 0, atol=1e-4) and states.fdr[:, 0].var() > states.fdr[:, 1].var() > 0
    alone = Groupings(ClusterStudy(agent, states))
    assert list(alone.table.index) == [RIVAL, "k-means on PCA-2 of h", "HDBSCAN on h", RIVAL + NULL]
