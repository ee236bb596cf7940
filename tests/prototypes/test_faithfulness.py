"""Faithfulness: changed weights do what they say, and the measures know a true grouping from a false one."""

import dataclasses

import numpy as np
import pytest

from interp_lib import InterpError, load_agent
from interp_lib.common.statistics import jackknife_interval
from interp_lib.prototypes import PrototypeStudy
from interp_lib.prototypes.faithfulness import (
    Reweighted,
    ablation_returns,
    explained_variance,
    keep_random,
    keep_top,
    placement_returns,
    purity,
    stability,
    top_k_returns,
    without,
)
from interp_lib.prototypes.study import compare_returns

RUN = "checkpoints/protosac-pendulum-s0"
WEIGHTS = np.array([[0.5, 0.3, 0.2, 0.0], [0.1, 0.2, 0.3, 0.4]])


@pytest.fixture(scope="module")
def agent():
    return load_agent(RUN)


@pytest.fixture(scope="module")
def study(agent):
    return PrototypeStudy.record(agent, "pendulum", 4)


@pytest.fixture(scope="module")
def traces(study):
    return study.traces


def test_top_keeps_the_heaviest_random_keeps_as_many_and_without_takes_one():
    assert keep_top(2)(WEIGHTS).tolist() == [[0.5, 0.3, 0, 0], [0, 0, 0.3, 0.4]]
    kept = keep_random(2)(np.full((400, 4), 0.25))
    assert ((kept > 0).sum(1) == 2).all()
    assert (kept > 0).mean(0) == pytest.approx(0.5, abs=0.1)
    assert without(1)(WEIGHTS).tolist() == [[0.5, 0, 0.2, 0], [0.1, 0, 0.3, 0.4]]
    alone = without(0)(np.array([[1.0, 0.0, 0.0]]))
    assert alone[0, 1] == alone[0, 2] > 0  # nobody is left with a weight: the others share equally


def test_unchanged_weights_give_the_agents_own_actions(agent, traces):
    observations = traces[0].observations
    same = Reweighted(agent, lambda weights: weights)
    np.testing.assert_allclose(
        same.predict(observations)[0], agent.predict(observations, deterministic=True)[0], atol=1e-5
    )
    one = same.predict(observations[0])[0]
    assert one.shape == (1,) and one == pytest.approx(traces[0].actions[0], abs=1e-5)


def test_the_top_one_alone_acts_as_that_prototype(agent, traces):
    actions = Reweighted(agent, keep_top(1)).predict(traces[0].observations)[0]
    np.testing.assert_allclose(actions, agent.prototypes.actions[traces[0].leading], atol=1e-5)


def test_a_grouping_explains_what_it_determines_and_nothing_else():
    rng = np.random.default_rng(0)
    grouping = rng.integers(0, 5, 2000)
    determined = rng.normal(size=(5, 2))[grouping]
    assert explained_variance(determined, grouping, 5) == pytest.approx(1)
    assert explained_variance(rng.normal(size=(2000, 2)), grouping, 5) == pytest.approx(0, abs=0.01)
    assert np.isnan(explained_variance(np.ones((10, 1)), np.zeros(10, int), 1))


def test_the_agents_prototypes_are_purer_than_chance_and_needed(study, traces):
    table = purity(study)
    assert table.loc["leading prototype", "actions_low"] > table.loc["random", "actions_high"]
    returns = top_k_returns(study, ks=(1, 16))
    assert returns.loc["top 16", "mean"] == pytest.approx(returns.loc["all (the agent)", "mean"], rel=1e-3)
    assert returns.loc["all (the agent)", "mean"] > returns.loc["1 at random", "mean"]
    heaviest = int(np.concatenate([t.weights for t in traces]).mean(0).argmax())
    losses = ablation_returns(study, prototypes=[heaviest])
    assert losses.index.tolist() == [heaviest] and losses["low"].item() <= losses["loss"].item()


def test_an_interval_of_purity_holds_the_purity(agent, study):
    # A bootstrap over episodes does not: what it draws twice is alike, and its grouping explains more.
    table = purity(study)
    for what in ("actions", "values"):
        low, mean, high = (table[name] for name in (f"{what}_low", what, f"{what}_high"))
        assert ((low < mean) & (mean < high)).all() and (low >= 0).all() and (high <= 1).all()
    one = purity(PrototypeStudy(agent, study.traces[:1]))
    assert one["actions"].notna().all() and one[["actions_low", "values_high"]].isna().all(axis=None)


def test_the_jackknife_of_a_mean_is_students_interval():
    values = np.array([0.2, 0.5, 0.4, 0.45])
    interval = jackknife_interval(values.mean(), (values.sum() - values) / 3)
    reach = 3.182446 * values.std(ddof=1) / 2  # t for 3 degrees of freedom
    np.testing.assert_allclose(interval, (values.mean(), values.mean() - reach, values.mean() + reach), rtol=1e-6)
    assert jackknife_interval(0.98, np.array([0.9, 1.0, 1.0])).high == 1


def test_returns_are_compared_episode_by_episode(agent, study):
    table = compare_returns(study, agent, name="the same")
    np.testing.assert_allclose(table.loc["the same", ["ahead", "ahead_low", "ahead_high"]].astype(float), 0, atol=1e-3)
    random = table.loc["random"]
    assert random["ahead"] == pytest.approx(table.loc["ProtoSAC", "mean"] - random["mean"])
    assert random["ahead_low"] < random["ahead"] < random["ahead_high"]


def test_other_states_in_the_prototypes_places_serve_worse_and_the_agent_is_left_as_it_was(agent, study, traces):
    before = agent.predict(traces[0].observations, deterministic=True)[0]
    table = placement_returns(study)
    assert table["mean"].idxmax() == "the agent's own" and table.loc["the agent's own", "divergence"] == 0
    assert (table["divergence"].drop("the agent's own") > 0).all()
    np.testing.assert_array_equal(agent.predict(traces[0].observations, deterministic=True)[0], before)
    few = [dataclasses.replace(traces[0], observations=traces[0].observations[:7])]
    with pytest.raises(InterpError, match="7 different states"):
        placement_returns(PrototypeStudy(agent, few))


def test_stability_of_an_agent_with_itself_is_perfect_and_one_agent_is_not_enough(study):
    table = stability([study, study])
    assert table.loc["prototypes", "mean"] == 0 < table.loc["random states", "mean"]
    # What is spread out is nearer than random states, most of which balance.
    assert 0 < table.loc["states nearest to k-means centres", "mean"] < table.loc["random states", "mean"]
    with pytest.raises(InterpError, match="at least two"):
        stability([study])
    with pytest.raises(InterpError, match="top 1 to 16"):
        top_k_returns(study, ks=(17,))
