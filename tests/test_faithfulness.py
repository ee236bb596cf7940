"""Faithfulness: changed weights do what they say, and the measures know a true grouping from a false one."""

import dataclasses

import numpy as np
import pytest

from interp_lib import InterpError, load_agent
from interp_lib.explain import record_episodes
from interp_lib.faithfulness import (
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

RUN = "checkpoints/protosac-pendulum-s0"
WEIGHTS = np.array([[0.5, 0.3, 0.2, 0.0], [0.1, 0.2, 0.3, 0.4]])


@pytest.fixture(scope="module")
def agent():
    return load_agent(RUN)


@pytest.fixture(scope="module")
def traces(agent):
    return record_episodes(agent, "pendulum", 3)


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


def test_the_agents_prototypes_are_purer_than_chance_and_needed(agent, traces):
    table = purity(agent, traces, resamples=20)
    assert table.loc["leading prototype", "actions_low"] > table.loc["random", "actions_high"]
    assert (table["actions_low"] <= table["actions"]).all() and (table["values"] <= table["values_high"]).all()
    returns = top_k_returns(agent, "pendulum", 4, ks=(1, 16))
    assert returns.loc["top 16", "mean"] == pytest.approx(returns.loc["all (the agent)", "mean"], rel=1e-3)
    assert returns.loc["all (the agent)", "mean"] > returns.loc["1 at random", "mean"]
    heaviest = int(np.concatenate([t.weights for t in traces]).mean(0).argmax())
    losses = ablation_returns(agent, "pendulum", 4, prototypes=[heaviest])
    assert losses.index.tolist() == [heaviest] and losses["low"].item() <= losses["loss"].item()


def test_other_states_in_the_prototypes_places_serve_worse_and_the_agent_is_left_as_it_was(agent, traces):
    before = agent.predict(traces[0].observations, deterministic=True)[0]
    table = placement_returns(agent, traces, 4)
    assert table["mean"].idxmax() == "the agent's own" and table.loc["the agent's own", "divergence"] == 0
    assert (table["divergence"].drop("the agent's own") > 0).all()
    np.testing.assert_array_equal(agent.predict(traces[0].observations, deterministic=True)[0], before)
    few = [dataclasses.replace(traces[0], observations=traces[0].observations[:7])]
    with pytest.raises(InterpError, match="7 different states"):
        placement_returns(agent, few, 1)


def test_stability_of_an_agent_with_itself_is_perfect_and_one_agent_is_not_enough(agent, traces):
    table = stability([agent, agent], [traces, traces])
    assert table.loc["prototypes", "mean"] == 0 < table.loc["random states", "mean"]
    with pytest.raises(InterpError, match="at least two"):
        stability([agent], [traces])
    with pytest.raises(InterpError, match="top 1 to 16"):
        top_k_returns(agent, "pendulum", 1, ks=(17,))
