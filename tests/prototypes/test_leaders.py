"""Each paper's question put to the other paper's agent."""

import numpy as np
import pytest
from conftest import ROOT

from interp_lib.clusters.collect import collect_states
from interp_lib.clusters.outputs import save_medoids
from interp_lib.clusters.states import stretches
from interp_lib.clusters.study import ClusterStudy
from interp_lib.common.errors import InterpError
from interp_lib.common.graphs import END, _on_curve, _passing_by, transitions_between
from interp_lib.common.outputs import Outputs, saved_outputs
from interp_lib.prototypes import PrototypeStudy
from interp_lib.prototypes.leaders import _square, leader_graph, leading_stretches, save_leader_graph
from interp_lib.prototypes.traces import EpisodeTrace
from interp_lib.runs.folder import load_agent

CHECKPOINTS = ROOT / "checkpoints"
PROTOSAC, SPPO = CHECKPOINTS / "protosac-pendulum-s100", CHECKPOINTS / "sppo-fruitbot-s2021"


def trace_of(leaders):
    """An episode in which the prototypes ``leaders`` lead, one a step."""
    weights = np.eye(4, dtype=np.float32)[leaders]
    zeros = np.zeros((len(leaders), 1), dtype=np.float32)
    return EpisodeTrace("pendulum", 0, zeros, zeros, zeros[:, 0], weights, weights)


@pytest.fixture(scope="module")
def study():
    return PrototypeStudy.record(load_agent(PROTOSAC, device="cpu"), "pendulum", 2)


@pytest.fixture(scope="module")
def states(tmp_path_factory):
    path = tmp_path_factory.mktemp("states") / "states.h5"
    return collect_states(load_agent(SPPO, device="cpu"), path, steps=20, num_envs=16, progress=False)


def test_stretches_of_leaders():
    found = leading_stretches([trace_of([2, 2, 2, 0, 2]), trace_of([1]), trace_of([0, 0])])
    assert found.to_numpy().tolist() == [
        [0, 0, 3, 2, 0], [0, 3, 1, 0, 2], [0, 4, 1, 2, END], [1, 0, 1, 1, END], [2, 0, 2, 0, END],
    ]  # fmt: skip
    table = transitions_between(found, 3)
    assert table.loc[(2, 0), "probability"] == 0.5 and table.loc[(2, END), "count"] == 1
    assert table["probability"].groupby("cluster").sum().to_list() == [1, 1, 1]


def test_transitions_of_clusters_are_what_they_were(states):
    found = stretches(states)
    complete = found[found["next"] >= END]
    table = ClusterStudy(load_agent(SPPO, device="cpu"), states).transitions
    for (k, following), row in table.iterrows():
        of_k = complete[complete["cluster"] == k]
        assert row["probability"] == pytest.approx((of_k["next"] == following).mean())


def test_leaders_are_mapped_with_their_prototypes(study):
    graph = leader_graph(study, most=150)
    again = leader_graph(study, most=150)
    np.testing.assert_array_equal(graph.latents.states, again.latents.states)
    assert graph.latents.states.shape == (150, 2) and graph.latents.prototypes.shape == (64, 2)
    assert sum(study.usage.led[k] for k in graph.dwell) == pytest.approx(1) and min(graph.dwell.values()) >= 1
    with pytest.raises(InterpError, match="needs more than"):
        leader_graph(study, most=10)


def test_a_prototype_lies_by_the_states_it_leads():
    # MountainCar's decisions are hardly shared (1.6 prototypes each); Pendulum's agent decides between prototypes.
    study = PrototypeStudy.record(load_agent(CHECKPOINTS / "protosac-mountaincar-s100", device="cpu"), "mountaincar", 2)
    graph = leader_graph(study, most=150)
    # Most drawn states have their leader nearer than prototypes usually are.
    distance = np.linalg.norm(graph.latents.states[:, None] - graph.latents.prototypes, axis=2)
    own = distance[np.arange(150), graph.leading]
    assert np.median(own) < 0.5 * np.median(distance)


def test_medoids_are_the_most_central_of_their_cluster(states):
    medoids = ClusterStudy(load_agent(SPPO, device="cpu"), states).medoids()
    assert set(medoids) == set(states.code[states.kept])
    for k, row in medoids.items():
        members = np.flatnonzero(states.kept & (states.code == k))
        assert row in members
        sums = np.linalg.norm(states.feature[members][:, None] - states.feature[members], axis=2).sum(1)
        assert sums[members == row] <= sums.min() * (1 + 1e-5)


def test_a_square_picture_loses_nothing_but_white_margins():
    frame = np.full((40, 60, 3), 255, np.uint8)
    frame[:, 10:50] = 7
    assert (_square(frame) == 7).all() and _square(frame).shape == (40, 40, 3)
    frame[20, 1] = 9  # somebody at the rim
    assert _square(frame).shape == (60, 60, 3) and (_square(frame) == 9).any()


def test_arrows_pass_by_the_pictures_between():
    start, stop, box = np.zeros(2), np.array([2.0, 0.0]), (0.7, -0.5, 1.3, 0.3)
    inside = [
        [
            box[0] < x < box[2] and box[1] < y < box[3]
            for x, y in (_on_curve(start, m, stop, t) for t in np.linspace(0, 1))
        ]
        for m in (_passing_by(start, stop, []), _passing_by(start, stop, [box]))
    ]
    assert any(inside[0]) and not any(inside[1])


def test_both_are_saved_with_captions(study, states, tmp_path):
    outputs = Outputs(tmp_path, "04_prototype_visualization", parameters={})
    save_leader_graph(study, outputs, [PROTOSAC])
    medoids = save_medoids(ClusterStudy(load_agent(SPPO, device="cpu"), states), outputs, [SPPO])
    saved = {output.name: output for output in saved_outputs(tmp_path)["04_prototype_visualization"]}
    assert set(saved) == {"leader_graph", "cluster_medoids"}
    assert "n = 400 decisions in 2 episodes" in saved["leader_graph"].caption
    assert f"n = {states.kept.sum():,} states" in saved["cluster_medoids"].caption and medoids
