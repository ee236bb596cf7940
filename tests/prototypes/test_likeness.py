"""Likeness of states and prototypes: by hand, on images, against its controls, and on a released agent."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from interp_lib.agents.protosac import ProtoSAC
from interp_lib.common.statistics import Interval
from interp_lib.envs.continuous import make_task_vec
from interp_lib.envs.names import task_info
from interp_lib.prototypes import PrototypeStudy
from interp_lib.prototypes.figures import plot_gallery
from interp_lib.prototypes.likeness import (
    Leaders,
    Likeness,
    as_compared,
    duplicates,
    likeness_table,
    measure_leaders,
    summary,
    verdict,
)
from interp_lib.runs.folder import load_agent

K = 5


@pytest.fixture(scope="module")
def study() -> PrototypeStudy:
    """A tiny agent, really trained."""
    small = dict(learning_starts=50, batch_size=32, buffer_size=1000, policy_kwargs={"net_arch": [32, 32]}, seed=0)
    agent = ProtoSAC("MlpPolicy", make_task_vec("pendulum", 1, 0), **small, n_prototypes=K, latent_dim=8).learn(150)
    return PrototypeStudy.record(agent, "pendulum", 3, seed=7)


def led_by(study: PrototypeStudy, leaders: np.ndarray) -> PrototypeStudy:
    """The study, had these prototypes (N,) decided alone."""
    weights = np.split(np.eye(K, dtype=np.float32)[leaders], np.cumsum([len(t) for t in study.traces])[:-1])
    return PrototypeStudy(study.agent, [replace(t, weights=w) for t, w in zip(study.traces, weights, strict=True)])


# By hand


def test_leaders_by_hand():
    # Two episodes of two decisions each, four prototypes.
    distances = np.array([[1.0, 2, 3, 4], [4, 3, 2, 1], [5, 6, 8, 7], [3, 9, 1, 2]])
    episode, between = np.array([0, 0, 1, 1]), np.array([2.0, 4.0, 6.0])
    agent = measure_leaders(distances, np.eye(4)[[0, 1, 2, 3]], episode, between, np.array([0, 0, 1]))
    # Ranks of the leaders: first, third, fourth, second. Their distances: 1, 3, 8, 2; the lower median is 2.
    assert (agent.nearest.mean, agent.near.mean) == (0.25, 0.75)
    assert (agent.distance.mean, agent.ratio.mean) == (2, 2 / 4)
    assert (agent.nearest.low, agent.nearest.high) == (0, 0.5)  # an episode twice
    assert (agent.near.low, agent.near.high) == (0.5, 1)
    assert (agent.distance.low, agent.distance.high) == (1, 2)  # of 1, 3 and of 8, 2
    assert (agent.ratio.low, agent.ratio.high) == (2 / 6, 1 / 2)  # 1 over 2, 2 over 4, 2 over 6

    shares = np.array([0.5, 0.25, 0.25, 0])
    shuffled = measure_leaders(distances, np.tile(shares, (4, 1)), episode, between, np.array([0, 0, 1]))
    # Nearest are 0, 3, 0, 2; farthest 3, 0, 2, 1.
    assert shuffled.nearest.mean == pytest.approx((0.5 + 0 + 0.5 + 0.25) / 4)
    assert shuffled.near.mean == pytest.approx(1 - (0 + 0.5 + 0.25 + 0.25) / 4)
    uniform = measure_leaders(distances, np.full((4, 4), 0.25), episode, between, np.array([0, 0, 1]))
    assert (uniform.nearest.mean, uniform.near.mean, uniform.ratio.mean) == (0.25, 0.75, 3 / 4)


def test_one_episode_has_no_interval():
    measured = measure_leaders(np.eye(3), np.eye(3), np.zeros(3, int), np.ones(2), np.zeros(2, int))
    for interval in measured:
        assert np.isfinite(interval.mean) and np.isnan([interval.low, interval.high]).all()


def test_medians_of_many_distances_are_almost_exact():
    rng = np.random.default_rng(0)
    distances, between, episode = rng.gamma(2, size=(4000, 5)), rng.gamma(3, size=9000), np.arange(4000) % 10
    choice = np.eye(5)[rng.integers(5, size=4000)]
    measured = measure_leaders(distances, choice, episode, between, np.arange(9000) % 10)
    expected = np.median(distances[choice > 0])
    assert measured.distance.mean == pytest.approx(expected, rel=2e-3)
    assert measured.ratio.mean == pytest.approx(expected / np.median(between), rel=3e-3)
    assert measured.ratio.low < measured.ratio.mean < measured.ratio.high < 1.1 * measured.ratio.low


def test_the_verdict_follows_intervals():
    def found(near, ratio, sharing, shuffled=(0.1, 0.1, 0.1)):
        same = Interval(0.5, 0.4, 0.6)
        control = Leaders(same, Interval(*shuffled), same, same)
        agent = Leaders(same, Interval(*near), same, Interval(*ratio))
        return verdict(Likeness(agent, control, control, Interval(*sharing), [], 10, 2))

    kept = found((0.9, 0.8, 1.0), (0.4, 0.3, 0.5), (2, 1, 3))
    assert "is kept:" in kept and kept.count("; kept)") == 3 and "better than crowding alone" in kept
    mixed = found((0.9, 0.79, 1.0), (0.6, 0.51, 0.7), (2, 1, 3))
    assert "is not kept:" in mixed and "(bar: at least 80%; not shown)" in mixed
    assert (
        "0.60 [0.51, 0.70] times" in mixed and "at most 0.5 times; not kept)" in mixed and "(at most 3; kept)" in mixed
    )
    open_ = found((0.9, np.nan, np.nan), (0.4, 0.3, 0.6), (2, 1, 3), (0.9, 0.7, 1.0))
    assert "is not shown:" in open_ and "not shown to differ from crowding alone" in open_ and "nan" not in open_


# As they are compared


def test_distance_is_in_standard_deviations_and_noise_is_not_blown_up():
    visited = np.random.default_rng(0).normal([3.0, -1.0, 5.0, 7.0], [2.0, 0.5, 1e-7, 0.0], (4000, 4))
    away = visited.mean(0) + [[2.0, 0.5, 0, 0], [0, 0, 1.0, 0]]  # a deviation in two of four entries; one unit of noise
    points = as_compared(task_info("lunarlander"), np.vstack([visited.mean(0), away]), visited)
    assert np.linalg.norm(points[1] - points[0]) == pytest.approx(np.sqrt(2 / 4), rel=0.03)
    assert np.linalg.norm(points[2] - points[0]) < 1.1
    assert np.square(as_compared(task_info("lunarlander"), visited, visited)).sum(1).mean() == pytest.approx(0.5)


def test_frames_are_compared_by_what_is_seen_not_pixel_by_pixel():
    def road(at):
        frame = np.full((64, 64), 200, np.uint8)
        frame[:, at : at + 6] = 60
        return np.stack([frame] * 4)

    visited = np.stack([road(at) for at in range(4, 56, 4)])
    one, near, far = as_compared(task_info("carracing"), np.stack([road(20), road(22), road(40)]), visited)
    assert one.shape == (4 * 16 * 16,)
    assert 2 * np.linalg.norm(one - near) < np.linalg.norm(one - far)
    speckled = road(20) ^ np.random.default_rng(0).integers(0, 32, (4, 64, 64), dtype=np.uint8)
    assert 4 * np.linalg.norm(as_compared(task_info("carracing"), speckled[None], visited)[0] - one) < np.linalg.norm(
        one - far
    )


# Agents


def test_an_agent_led_by_the_nearest_differs_from_its_controls(study):
    visited = study.observations
    points, prototypes = (as_compared(study.info, o, visited) for o in (visited, study.agent.prototypes.observations))
    order = ((points[:, None] - prototypes) ** 2).sum(-1).argsort(1)
    alike, unlike = led_by(study, order[:, 0]).likeness, led_by(study, order[:, -1]).likeness
    assert alike.agent.nearest == alike.agent.near == (1, 1, 1) and alike.sharing.mean == pytest.approx(1)
    assert unlike.agent.near == (0, 0, 0) and unlike.agent.ratio.mean > 1.5 * alike.agent.ratio.mean
    for control in (alike.shuffled, alike.uniform):
        assert control.nearest.high < 0.9 and control.ratio.mean > alike.agent.ratio.mean
    assert alike.uniform.nearest.mean == pytest.approx(1 / K) and alike.uniform.near.mean == pytest.approx(3 / K)
    assert "better than crowding alone" in verdict(alike) and "worse than crowding alone" in verdict(unlike)


def test_the_table_has_the_agent_above_its_controls(study):
    table = likeness_table(study)
    assert list(table.index) == ["agent", "shuffled leaders", "chosen uniformly"]
    found = study.likeness
    assert table.loc["agent", "near_low"] == found.agent.near.low and (table["decisions"] == 600).all()
    assert tuple(table.loc["chosen uniformly", ["ratio", "ratio_low", "ratio_high"]]) == found.uniform.ratio
    assert table["sharing"].notna().tolist() == table["duplicates"].notna().tolist() == [True, False, False]
    assert f"nearest in {found.agent.near.mean:.0%}" in summary(found)


def test_duplicates_look_the_same_and_act_differently(study):
    states = np.array(study.agent.prototypes.observations)
    states[:] = study.observations[[0, 0, 0, 0, 0]] + np.array([[0], [1e-3], [2e-3], [0], [9]], np.float32)
    actions = np.array([[0.0], [0.5], [0.3], [0.39], [2.0]], np.float32)  # of −2 to 2: 10% are 0.4
    given = replace(study.agent.prototypes, observations=states, actions=actions)
    agent = SimpleNamespace(prototypes=given, action_space=study.agent.action_space)
    assert duplicates(PrototypeStudy(agent, study.traces)) == [(0, 1)]
    found = Likeness(*[study.likeness.agent] * 3, study.sharing, [(0, 1), (1, 4)], 1, 1)
    assert (found.duplicates_of(1), found.duplicates_of(4), found.duplicates_of(2)) == ([0, 4], [1], [])
    marked = PrototypeStudy(study.agent, study.traces)
    vars(marked).update(likeness=found)
    texts = {
        axes.get_title(loc="left").split()[0]: [text.get_text() for text in axes.texts if "≈" in text.get_text()]
        for axes in plot_gallery(marked).axes
        if axes.images
    }
    assert texts == {"P0": ["≈P1"], "P1": ["≈P0 +1"], "P2": [], "P3": [], "P4": ["≈P1"]}


def test_prototypes_that_are_no_states_look_like_nothing():
    options = {"learning_starts": 50, "final_projection": False, "projection_interval": 0, "seed": 0}
    agent = ProtoSAC("MlpPolicy", make_task_vec("pendulum", 1, 0), **options).learn(60)
    study = PrototypeStudy.record(agent, "pendulum", 2)
    assert np.isnan(study.likeness.agent.ratio).all() and study.likeness.duplicates == []
    assert summary(study.likeness) == "" and "never projected" in verdict(study.likeness)


def test_a_released_agent_that_compares_latents_does_not_keep_the_promise(pytestconfig):
    """Measured before this module was, on other episodes: the leader is nearest in 36% or 15%; 6.2 share."""
    agent = load_agent(pytestconfig.rootpath / "checkpoints/protosac-lunarlander-s0")
    found = PrototypeStudy.record(agent, "lunarlander", 10).likeness
    assert agent.space == "encoder" and 0.1 < found.agent.nearest.mean < 0.4 and found.agent.ratio.mean > 0.7
    assert found.sharing.mean == pytest.approx(6.2, abs=1) and "is not kept:" in verdict(found)


def test_a_released_agent_that_compares_observations_is_led_by_what_is_near(pytestconfig):
    agent = load_agent(pytestconfig.rootpath / "checkpoints/protosac-pendulum-s100")
    found = PrototypeStudy.record(agent, "pendulum", 10).likeness
    assert agent.space == "observation" and found.agent.nearest.low > 0.97 and found.agent.near.low > 0.99
    assert found.sharing.mean < 3.2 and not found.duplicates


def test_released_mountaincar_keeps_it(pytestconfig):
    """95% nearest, shuffled 6%; 100% among the three nearest, ratio 0.14, 1.6 share."""
    agent = load_agent(pytestconfig.rootpath / "checkpoints/protosac-mountaincar-s100")
    found = PrototypeStudy.record(agent, "mountaincar", 10).likeness
    assert found.agent.near.low > 0.99 and found.shuffled.nearest.mean < 0.15 and found.agent.ratio.high < 0.2
    assert found.sharing.mean == pytest.approx(1.6, abs=0.1) and "is kept:" in verdict(found)
