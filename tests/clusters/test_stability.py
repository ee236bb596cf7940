"""Maps over samples, perplexities and starts, and agents over trainings, where the answer is known."""

import dataclasses

import matplotlib
import numpy as np
import pytest
import torch
from conftest import TINY
from recorded import recording

matplotlib.use("Agg")

from interp_lib import SPPO, InterpError, load_agent
from interp_lib.clusters.collect import collect_states
from interp_lib.clusters.retraining import CODES, SEED, TIME, VARIANT, Retraining, matching, relatives
from interp_lib.clusters.stability import PLACED, disparity, shared_neighbours, stability_verdict, tsne_stability
from interp_lib.clusters.stability_outputs import save_retraining
from interp_lib.clusters.study import ClusterStudy
from interp_lib.common.outputs import Outputs
from interp_lib.common.tsne import tsne_with
from interp_lib.envs.procgen import Levels, ProcgenVec
from interp_lib.runs.folder import read_run


def test_maps_are_compared_up_to_shift_turn_and_scale():
    points = np.random.default_rng(0).normal(size=(200, 2))
    turned = 3 * points @ np.array([[0, 1], [-1, 0]]) + 5
    assert disparity(points, turned) == pytest.approx(0, abs=1e-12) and shared_neighbours(points, turned) == 1
    other = np.random.default_rng(1).normal(size=(200, 2))
    assert disparity(points, other) > 0.9 and shared_neighbours(points, other) < 0.15


def test_states_that_had_no_say_are_placed_among_their_own():
    cloud = np.repeat(np.eye(10)[:3] * 20, 40, axis=0) + np.random.default_rng(0).normal(size=(120, 10))
    places, others = tsne_with(cloud[::2], cloud[1::2], perplexity=10)
    nearest = np.linalg.norm(others[:, None] - places, axis=2).argmin(1)
    assert (nearest // 20 == np.arange(60) // 20).all()


def test_groups_survive_where_there_are_some_and_a_map_of_noise_does_not(tmp_path):
    """Three clouds in h, and an FDR that has nothing to do with them."""
    code = np.random.default_rng(0).integers(0, 3, (40, 16))
    h = (10 * np.eye(4)[code.ravel()] + np.random.default_rng(1).normal(size=(640, 4))).astype(np.float32)
    states = recording(tmp_path / "s.h5", code, num_codes=3, feature=h)
    table = tsne_stability(states, size=120, common=100, samples=3, perplexities=(10, 30))
    tsne, noise = table.loc[("t-SNE", "sample")], table.loc[(PLACED, "sample")]
    assert tsne["groups alike"] > 0.95 and table.loc[("t-SNE", "start"), "groups alike"] > 0.95
    assert abs(noise["groups alike"]) < 0.15 and noise["disparity"] > 0.8
    assert tsne["p groups alike"] < 0.05 and "less stable than" not in stability_verdict(table)
    assert table.loc[("t-SNE", "k-means' seed"), "disparity"] < 1e-9
    over = table.loc[("t-SNE", "perplexity 10 to 30")]
    assert over["interval over"] == "environments" and over["disparity low"] < over["disparity"]
    with pytest.raises(InterpError, match="Collect more"):
        tsne_stability(states)
    with pytest.raises(InterpError, match="needs 3 samples"):
        tsne_stability(states, starts=2)
    with pytest.raises(InterpError, match="a ppo run has no map"):
        tsne_stability(dataclasses.replace(states, meta={**states.meta, "groups": "k-means on h"}))


def test_codes_are_matched_one_to_one():
    code = np.repeat([0, 1, 2, 3], [40, 30, 20, 10])
    assert matching(np.array([2, 0, 3, 1])[code], code)[[2, 0, 3, 1]].tolist() == [0, 1, 2, 3]
    assert matching(code, code // 2).tolist() == [0, 2, 1, 3]  # what finds none stays apart


@pytest.fixture
def family(tiny_sppo, tmp_path):
    """A run, weights from earlier in its training, another seed, and one of its seed that only saw 200 levels."""
    agent = load_agent(tiny_sppo, device="cpu")
    places = agent.embed(ProcgenVec("fruitbot", 8, Levels(), seed=0).observation).fdr
    agent.network.semantic.codebook.data.copy_(torch.from_numpy(places))  # so few updates leave all states in one code
    agent.save_run(tmp_path / tiny_sppo.name)
    agent.timesteps = 128
    agent.save_run(tmp_path / tiny_sppo.name / "steps/000000128")  # with the same weights
    for name, options in {"s1": {"seed": 1}, "200levels-s0": {"seed": 0, "num_levels": 200}}.items():
        SPPO("fruitbot", device="cpu", skill_interval=1, **options, **TINY).save_run(tmp_path / f"sppo-fruitbot-{name}")
    return read_run(tmp_path / tiny_sppo.name)


def test_trainings_are_told_apart_and_compared(family, tmp_path):
    others = relatives(family)
    kinds = [kind for kind, _ in others.values()]
    assert list(others) == ["seed 1, 0 steps", "128 steps", "num_levels = 200, seed 0, 0 steps"]
    assert kinds == [SEED, TIME, VARIANT]
    agent = load_agent(family.path, device="cpu")
    states = collect_states(agent, tmp_path / "s.h5", steps=30, num_envs=6, progress=False)
    found = save_retraining(ClusterStudy(agent, states), family, Outputs(tmp_path, "x"), size=120)
    own, table = "seed 0, 384 steps", found.table
    same = table.loc[("128 steps", own)]
    assert same[CODES] == same["in matched codes"] == 1 and same["disparity of FDR"] == pytest.approx(0, abs=1e-6)
    shuffled = table.loc[("itself, shuffled", own)]
    assert abs(shuffled[CODES]) < 0.1 and shuffled["disparity of FDR"] > 0.9
    # Never trained on: the same weights as before training, whatever the levels.
    assert table.loc[("num_levels = 200, seed 0, 0 steps", own), CODES] == table.loc[("seed 0, 0 steps", own), CODES]
    assert "Two training seeds: one pair" in found.verdict and "training time" not in found.verdict
    assert {"retraining.csv", "retraining_agreement.png", "retraining_maps.png"} <= {
        path.name for path in (tmp_path / "x").iterdir()
    }
    alone = Retraining(found.study, {}, 120)
    assert "One training seed: nothing can be said about seeds." in alone.verdict
    assert "nothing can be said about training time" in alone.verdict
    three = dataclasses.replace(found, others={**others, "copy": (SEED, others["128 steps"][1])})
    codes, _ = three.over_seeds
    assert 0 < codes.mean < 1 and codes.low < codes.mean
