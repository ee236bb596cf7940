"""Faithfulness: changed weights do what they say, and the measures know a true grouping from a false one."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from interp_lib import InterpError, load_agent
from interp_lib.agents.returns import evaluate_continuous, evaluate_side_by_side
from interp_lib.common.grouping import explained_variance
from interp_lib.common.statistics import jackknife_interval
from interp_lib.prototypes import PrototypeStudy
from interp_lib.prototypes.faithfulness import (
    Controls,
    Reweighted,
    faithfulness_verdict,
    keep_random,
    keep_top,
    purity,
    stability,
    without,
)
from interp_lib.prototypes.study import compare_returns

RUN = "checkpoints/protosac-pendulum-s100"
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


def test_the_agents_prototypes_are_purer_than_chance(study):
    table = purity(study)
    assert table.loc["leading prototype", "actions_low"] > table.loc["random", "actions_high"]


@pytest.fixture(scope="module")
def controls(study):
    return Controls(study, 10)


def test_losses_are_tested_and_weighed_by_hand(controls):
    own, whole = controls.own, controls.range
    assert whole == pytest.approx(own.mean() - controls.returns(None).mean()) and whole > 900
    uneven = whole * np.array([0.3, -0.2] * 5)
    table = controls.losses(
        {"same": own, "half": own - whole / 2, "little": own - 0.02 * whole, "uneven": own - uneven}
    )
    assert table["loss"].tolist() == pytest.approx([0, 50, 2, 5])
    # Of 1,024 choices of signs two are as extreme as all alike, and there are four tests.
    assert table["p"][["half", "little"]].tolist() == pytest.approx([4 * 2 / 1024] * 2) and table["p"]["uneven"] > 0.5
    assert table["verdict"].tolist() == ["not needed", "needed", "not needed", "undecided"]
    assert (table["low"]["uneven"] < 0) and (table["high"]["uneven"] > 10) and (table["episodes"] == 10).all()
    # Too many tests for ten episodes: 26 · 2 / 1024 > 0.05.
    many = controls.losses({k: own - whole / 2 for k in range(26)})
    assert (many["verdict"] == "undecided").all()


def test_an_agent_that_is_no_better_than_chance_has_nothing_to_lose(study):
    worse = Controls(study, 3)
    worse.__dict__["own"] = np.full(3, -2000.0)
    table = worse.losses({"top 1": np.full(3, -2000.0)})
    assert table["loss"].isna().all() and table["verdict"].tolist() == ["undecided"]
    assert "nothing to lose" in faithfulness_verdict(table, table, table)


def test_all_prototypes_are_the_agent_and_one_at_random_is_not(study, controls):
    table = controls.losses(controls.top_k([1, 64]))
    assert table.loc["top 64", "loss"] == pytest.approx(0, abs=0.1) and table["verdict"]["top 64"] == "not needed"
    assert table.loc["1 at random", "loss"] > 50 and table["verdict"]["1 at random"] == "needed"
    heaviest = study.usage.order[:2].tolist()
    losses = controls.losses(controls.ablation(heaviest))
    assert losses.index.tolist() == heaviest and losses["loss"].between(losses["low"], losses["high"]).all()
    with pytest.raises(InterpError, match="top 1 to 64"):
        controls.top_k([65])


def test_the_verdict_in_words_is_the_tables():
    def rows(names, losses, verdicts):
        table = pd.DataFrame({"loss": losses, "verdict": verdicts}, index=names)
        return table.assign(low=table["loss"] - 1, high=table["loss"] + 1)

    controls = rows(
        ["top 1", "2 at random", "random states"], [-0.04, 60.0, 6.0], ["not needed", "needed", "undecided"]
    )
    ablation = rows([3, 0, 7], [9.0, 1.0, 2.0], ["needed", "not needed", "not needed"])
    pure = pd.DataFrame(
        {what: [0.8, 0.5, 0.75] for what in ("actions", "values")}
        | {f"{what}_low": [0.7, 0.4, 0.6] for what in ("actions", "values")}
        | {f"{what}_high": [0.9, 0.6, 0.8] for what in ("actions", "values")},
        index=["leading prototype", "random", "k-means"],
    )
    assert faithfulness_verdict(controls, ablation, pure).splitlines()[:-1] == [
        "- top 1: 0.0% [−1.0, 1.0] of the return lost, the others are not needed.",
        "- 2 at random: 60.0% [59.0, 61.0] of the return lost, who acts matters.",
        "- random states: 6.0% [5.0, 7.0] of the return lost, undecided whether others serve as well.",
        "- Needed: 1 of 3 prototypes; without P3 9.0% [8.0, 10.0].",
        "- Not needed: 2 of 3 prototypes; without P0 1.0% [0.0, 2.0], P7 2.0% [1.0, 3.0].",
        "- Of the variance of actions the leading prototype explains 0.80 [0.70, 0.90]: more than random "
        "(0.50 [0.40, 0.60]), undecided beside k-means (0.75 [0.60, 0.80]).",
    ]


# Episodes of one length and of several.
@pytest.mark.parametrize("task", ["pendulum", "mountaincar"])
def test_episodes_side_by_side_are_those_played_one_by_one(task):
    agent = load_agent(f"checkpoints/protosac-{task}-s100")
    together, alone = evaluate_side_by_side(agent, task, 3, seed=5), evaluate_continuous(agent, task, 3, seed=5)
    np.testing.assert_allclose(together.returns, alone.returns, rtol=1e-3)
    assert together.lengths.tolist() == alone.lengths.tolist()


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


def test_other_states_take_the_prototypes_places_and_the_agent_is_left_as_it_was(agent, study, traces):
    before = agent.predict(traces[0].observations, deterministic=True)[0]
    returns, divergence = Controls(study, 4).placement()
    assert returns.keys() == divergence.keys() == {"k-means states", "random states"}
    assert all(len(values) == 4 for values in returns.values()) and min(divergence.values()) > 0
    np.testing.assert_array_equal(agent.predict(traces[0].observations, deterministic=True)[0], before)
    few = [dataclasses.replace(traces[0], observations=traces[0].observations[:7])]
    with pytest.raises(InterpError, match="7 different states"):
        Controls(PrototypeStudy(agent, few), 1).placement()


def test_stability_of_an_agent_with_itself_is_perfect_and_one_agent_is_not_enough(study):
    table = stability([study, study])
    assert table.loc["prototypes", "mean"] == 0 < table.loc["random states", "mean"]
    # What is spread out is nearer than random states, most of which balance.
    assert 0 < table.loc["states nearest to k-means centres", "mean"] < table.loc["random states", "mean"]
    with pytest.raises(InterpError, match="at least two"):
        stability([study])
