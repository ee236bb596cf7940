"""Statistics over tasks against numbers worked out by hand, and what their intervals are about."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ttest_1samp

from interp_lib import InterpError
from interp_lib.common.statistics import (
    Interval,
    Scores,
    bootstrap_mean,
    columns,
    equivalence,
    equivalence_verdicts,
    holm,
    interquartile_mean,
    interval_of,
    jackknife_interval,
    jackknife_p,
    mean_difference,
    mean_score,
    performance_profile,
    probability_of_improvement,
    readable,
    sign_flip_p,
)
from interp_lib.envs.games import GAMES, MODES
from interp_lib.envs.procgen import normalised


def constant(*means):
    """One run a task, whose episodes all return its mean."""
    return Scores.of({f"task{i}": [np.full(4, mean)] for i, mean in enumerate(means)})


def noisy(means, runs=1, episodes=40, spread=1.0, seed=0):
    rng = np.random.default_rng(seed)
    return Scores.of({f"task{i}": list(rng.normal(m, spread, (runs, episodes))) for i, m in enumerate(means)})


def test_few_skewed_samples_get_an_interval_that_is_corrected_for_it():
    from scipy.stats import bootstrap

    x = np.array([0, 0, 0, 1, 1, 1, 2, 3, 10, 30.0])

    def scipy(samples, statistic, method):
        rng = np.random.default_rng(0)
        return bootstrap(samples, statistic, n_resamples=2000, method=method, batch=100, rng=rng).confidence_interval

    few, percentiles = bootstrap_mean(x), scipy((x,), np.mean, "percentile")
    assert few[1:] == tuple(scipy((x,), np.mean, "BCa"))
    assert few.low > percentiles.low + 0.3 and few.high > percentiles.high + 1  # the tail is on the right
    many = np.tile(x, 5)
    assert bootstrap_mean(many)[1:] == tuple(scipy((many,), np.mean, "percentile"))
    apart = mean_difference(x, -x)
    assert apart.mean == 9.6 and apart.high - apart.mean > apart.mean - apart.low  # both tails are on the right
    assert mean_difference(np.ones(5), np.zeros(5)) == (1, 1, 1)


def test_interquartile_mean_by_hand():
    # 0 and 100 are the outer quarters; (1 + 4) / 2 is left. The mean is 26.25.
    assert interquartile_mean(constant(0, 1, 4, 100), resamples=20) == (2.5, 2.5, 2.5)
    assert mean_score(constant(0, 1, 4, 100), resamples=20).mean == 26.25
    # Of eight runs two fall off at each end: 2, 3, 4, 5 are left.
    two = Scores.of(
        {f"task{i}": [np.full(3, a), np.full(3, b)] for i, (a, b) in enumerate([(0, 7), (1, 6), (2, 5), (3, 4)])}
    )
    assert interquartile_mean(two, resamples=20).mean == 3.5


def test_tasks_weigh_alike_however_many_runs_they_have():
    scores = Scores.of({"a": [np.full(5, 0.0)], "b": [np.full(5, 1.0), np.full(5, 1.0), np.full(5, 4.0)]})
    assert scores.runs == {"a": 1, "b": 3}
    assert scores.balanced().tolist() == [[0, 1], [0, 2], [0, 3]]
    assert mean_score(scores, resamples=20).mean == 1.0  # (0 + 2) / 2, not 6 / 4
    profile = performance_profile(scores, np.array([-1, 0.5, 2]), resamples=20)
    assert profile[0] == pytest.approx([1, 1 / 2, 1 / 6])


def test_the_interval_is_about_what_was_measured():
    # Two of a task's three runs are 10 apart: resampling episodes can't see it, resampling runs does.
    apart = Scores.of({"a": [np.array([m - 0.1, m + 0.1] * 10) for m in (0, 10, 10)]})
    assert apart.unit == "runs" and noisy([0, 1], runs=2).unit == "episodes"
    runs, episodes = interquartile_mean(apart), interquartile_mean(apart, unit="episodes")
    assert episodes.high - episodes.low < 0.2 < 5 < runs.high - runs.low
    # One task with three runs doesn't make up for another's single one.
    assert Scores.of({"a": [np.zeros(5)] * 3, "b": [np.zeros(5)]}).unit == "episodes"


def test_the_interval_of_episodes_covers_the_mean_as_often_as_it_says():
    inside = 0
    for seed in range(60):
        interval = mean_score(noisy([0, 1, 2, 3], seed=seed), resamples=200)
        inside += interval.low <= 1.5 <= interval.high
    assert 51 <= inside <= 60  # 57 expected


def test_strata_are_resampled_within_themselves():
    # Tasks far apart, hardly any spread within them: mixing tasks would make the interval a hundred times as wide.
    interval = interquartile_mean(noisy([0, 100, 200, 300], spread=0.1))
    assert interval.high - interval.low < 0.2


def test_probability_of_improvement():
    same = noisy([0, 5])
    overall, tasks = probability_of_improvement(same, same, resamples=50)
    assert overall.mean == 0.5 and {i.mean for i in tasks.values()} == {0.5}
    # By hand: of 4 × 4 pairs on the first task (2, 2, 0, 0 against 1) 8 are won; the second is all ties.
    ours = Scores.of({"a": [np.array([2.0, 2, 0, 0])], "b": [np.ones(4)]})
    theirs = Scores.of({"a": [np.ones(4)], "b": [np.ones(4)]})
    overall, tasks = probability_of_improvement(ours, theirs, resamples=50)
    assert (overall.mean, tasks["a"].mean, tasks["b"]) == (0.5, 0.5, (0.5, 0.5, 0.5))
    better, _ = probability_of_improvement(noisy([3, 8]), noisy([0, 5], seed=1), resamples=50)
    assert 0.5 < better.low < better.mean <= better.high <= 1
    worse, _ = probability_of_improvement(noisy([0, 5], seed=1), noisy([3, 8]), resamples=50)
    assert worse.mean == pytest.approx(1 - better.mean)
    # Where runs are resampled, they are what is compared: all three beat all three.
    overall, _ = probability_of_improvement(noisy([9], runs=3), noisy([0], runs=3), resamples=50)
    assert overall == (1, 1, 1)
    with pytest.raises(InterpError, match="same tasks"):
        probability_of_improvement(noisy([0, 5]), noisy([0]))


def rliables(scores, statistic):
    """rliable's value and interval, (3, K), of scores (R, M) or of a pair of such; it draws from NumPy's dice."""
    from rliable import library

    state = np.random.get_state()
    np.random.seed(0)
    values, intervals = library.get_interval_estimates({"": scores}, statistic, reps=50)
    np.random.set_state(state)
    return np.vstack([values[""], intervals[""]])


def test_it_is_rliables_own_number_and_repeatable():
    from rliable import library, metrics

    ours, theirs = noisy([0, 5, 2, 3], runs=5), noisy([0.5, 4, 2, 3], runs=5, seed=1)
    runs = ours.matrix("runs"), theirs.matrix("runs")
    for measure, statistic in ((interquartile_mean, metrics.aggregate_iqm), (mean_score, metrics.aggregate_mean)):
        expected = rliables(runs[0], lambda x, statistic=statistic: np.array([statistic(x)]))[:, 0]
        np.testing.assert_array_equal(measure(ours, resamples=50), expected)
    thresholds = np.array([-1, 0, 0.5, runs[0][0, 1], 5])
    expected = rliables(runs[0], lambda x: library.score_distributions(x, thresholds))
    np.testing.assert_array_equal(performance_profile(ours, thresholds, resamples=50), expected)
    expected = rliables(list(runs), lambda x, y: np.array([metrics.probability_of_improvement(x, y)]))[:, 0]
    np.testing.assert_array_equal(probability_of_improvement(ours, theirs, resamples=50)[0], expected)
    # Episodes within runs, of which rliable knows nothing, and rounded ones, many of which tie.
    ours, theirs = (Scores.of({"a": [s.episodes[:, 0].round()]}) for s in (ours, theirs))
    expected = rliables(
        [ours.episodes, theirs.episodes], lambda x, y: np.array([metrics.probability_of_improvement(x, y)])
    )[:, 0]
    np.testing.assert_array_equal(probability_of_improvement(ours, theirs, resamples=50)[0], expected)
    state = np.random.get_state()[1].copy()
    assert interquartile_mean(ours) == interquartile_mean(ours)
    np.testing.assert_array_equal(np.random.get_state()[1], state)


def test_runs_enter_with_equally_many_episodes():
    assert Scores.of({"a": [np.arange(9.0)], "b": [np.arange(5.0)]}).episodes.shape == (5, 2)
    for none in ({}, {"a": []}, {"a": [np.ones(1)]}):
        with pytest.raises(InterpError, match="at least two episodes"):
            Scores.of(none)


def test_differences():
    gap = mean_difference(np.array([3.0, 5.0]), np.array([1.0, 1.0, 1.0]))
    assert gap == (3.0, 2.0, 4.0)


def test_holm_by_hand():
    # Sorted 0.01 · 3, 0.03 · 2, 0.04 · 1, and none below the one before.
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.6, np.nan]).tolist() == [1, 1] and holm([]).tolist() == []


def test_sign_flips_by_hand():
    # Of 16 choices of signs 3 make |7| or 5 and 3 their opposites.
    assert sign_flip_p(np.array([1.0, 2, 3, -1])) == 6 / 16
    assert sign_flip_p(np.full(10, 0.1)) == 2 / 1024
    assert sign_flip_p(np.zeros(5)) == sign_flip_p(np.ones(1)) == 1


def test_equivalence_by_hand():
    # Mean 2, standard error 1/√3; Student's t with 2 degrees of freedom has P(T > t) = ½ − t / (2 √(2 + t²)).
    def tail(t):
        return 0.5 - t / (2 * np.sqrt(2 + t**2))

    found = equivalence([1, 2, 3], 5)
    error = 1 / np.sqrt(3)
    reach = 2.919986 * error
    np.testing.assert_allclose(found, (2, 2 - reach, 2 + reach, tail(7 / error), tail(3 / error)), rtol=1e-5)
    assert found.p == found.below_high == pytest.approx(0.01755, abs=1e-5)
    assert equivalence_verdicts([found]) == ["equivalent"]
    assert equivalence_verdicts([found] * 3) == ["not shown"] * 3  # 3 · 0.01755 > 0.05
    worse, better = equivalence([-10, -11, -12], 5), equivalence([10, 11, 12], 5)
    assert equivalence_verdicts([worse, better]) == ["worse by more than the margin", "better by more than the margin"]


def test_few_seeds_show_little():
    two = equivalence([0, 1], 2)
    assert (two.low, two.high) == pytest.approx((0.5 - 6.313752 / 2, 0.5 + 6.313752 / 2))
    assert equivalence_verdicts([two, equivalence([0.1], 5), equivalence([], 5)]) == ["not shown"] * 3
    assert equivalence([0.1], 5).mean == 0.1 and np.isnan(equivalence([0.1], 5).low)


def test_intervals_in_tables():
    interval = Interval(0.5, 0.25, 1.0)
    table = pd.DataFrame([columns("a", interval) | columns("b", interval, "_") | {"n": 3}])
    assert list(table) == ["a", "a low", "a high", "b", "b_low", "b_high", "n"]
    assert interval_of(table.iloc[0], "a") == interval
    assert readable(table).iloc[0].to_dict() == {"a": "0.50 [0.25, 1.00]", "b": "0.50 [0.25, 1.00]", "n": 3}


def score(game, mode):
    return GAMES[game].score_range(mode)


def test_the_ranges_published_with_procgen():
    # Cobbe et al. 2020, appendix C, spot checks in both modes.
    assert score("starpilot", "easy") == (2.5, 64) and score("starpilot", "hard") == (1.5, 35)
    assert score("fruitbot", "easy") == (-1.5, 32.4) and score("fruitbot", "hard") == (-0.5, 27.2)
    assert score("climber", "easy") == (2, 12.6) and score("caveflyer", "hard") == (2, 13.4)
    assert score("ninja", "easy") == (3.5, 10) and score("ninja", "hard") == (2, 10)
    assert len(GAMES) == 16 and all(low < high for game in GAMES for low, high in (score(game, m) for m in MODES))
    assert normalised(np.array([3.0, 10.0]), "jumper").tolist() == [0, 1]
    assert normalised(np.array([1.0, 5.5]), "jumper", "hard").tolist() == [0, 0.5]


def test_the_jackknife_of_a_mean_is_students_t():
    x = np.random.default_rng(0).normal(0.6, 1, 20)
    without = (x.sum() - x) / 19
    tested = ttest_1samp(x, 0)
    assert jackknife_p(x.mean(), without) == pytest.approx(tested.pvalue)
    ends = jackknife_interval(x.mean(), without, bounds=(-np.inf, np.inf))
    assert ends[1:] == pytest.approx(tuple(tested.confidence_interval()))
    assert np.isnan(jackknife_p(0.0, np.zeros(4)))
