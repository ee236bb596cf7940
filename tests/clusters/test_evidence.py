"""Statistics of clusters, each against a case whose answer is known."""

import dataclasses

import matplotlib
import numpy as np
import pandas as pd
import pytest
from recorded import recorded, recording

matplotlib.use("Agg")

from interp_lib import InterpError, load_agent
from interp_lib.clusters.evidence import code_separation, code_usage, temporal_coherence
from interp_lib.clusters.islands import islands
from interp_lib.clusters.outputs import save_cluster_outputs, save_transitions
from interp_lib.clusters.sequences import collapse, sequence_verdict, shuffled_orders, typical_sequences
from interp_lib.clusters.study import ClusterStudy
from interp_lib.clusters.videos import play_for_videos, save_skill_videos
from interp_lib.common.graphs import END, spread_out
from interp_lib.common.outputs import Outputs
from interp_lib.common.statistics import Interval, columns, ratio_interval, readable
from interp_lib.runs.curves import draw_seeds, smooth


def test_intervals_resample_groups_not_states():
    """States of a group share most of their value: an interval over states would cover the mean far too seldom."""
    rng = np.random.default_rng(0)
    covered = []
    for _ in range(200):
        sizes = rng.integers(5, 50, 40)
        sums = np.array([(rng.normal() + 0.1 * rng.normal(size=size)).sum() for size in sizes])
        interval = ratio_interval(sums, sizes, resamples=400)
        covered.append(interval.low <= 0 <= interval.high)
    assert 0.88 <= np.mean(covered) <= 0.99
    assert ratio_interval(np.array([2.0, 4.0]), np.array([1, 2])) == (2, 2, 2)
    assert np.isnan(ratio_interval(np.zeros(3), np.zeros(3))).all()
    one = ratio_interval(np.array([3.0, 0]), np.array([6, 0]))
    assert one.mean == 0.5 and np.isnan(one.low)


def test_a_table_reads_well():
    known, unknown = columns("share", Interval(0.123, 0.1, 0.2)), columns("share", Interval(np.nan, np.nan, np.nan))
    table = pd.DataFrame([{"n": 3, **known}, {"n": 0, **unknown}])
    assert list(readable(table).columns) == ["n", "share"]
    assert readable(table)["share"].tolist() == ["0.12 [0.10, 0.20]", ""]


def test_usage_counts_what_is_in_effect_in_use(tmp_path):
    usage = code_usage(recording(tmp_path / "s.h5", np.tile([[0], [1], [2], [3]], (1, 5)), num_codes=8)).iloc[0]
    assert usage["codes that occur"] == 4 and usage["perplexity"] == pytest.approx(4)
    assert usage["perplexity low"] == pytest.approx(4) == usage["perplexity high"]
    one = code_usage(recording(tmp_path / "s.h5", np.zeros((4, 5), int), num_codes=8)).iloc[0]
    assert one["perplexity"] == pytest.approx(1)


def test_shuffled_coherence_is_the_mean_over_shuffles(tmp_path):
    rng = np.random.default_rng(0)
    code = np.repeat(rng.integers(0, 3, (6, 2)), 5, axis=0)  # 30 steps, stays of 5 and more
    done = np.zeros((30, 2), bool)
    done[[9, 16], [0, 1]] = True
    table = temporal_coherence(recording(tmp_path / "s.h5", code, done=done))
    same, pairs = [], []
    for _ in range(3000):
        for env, ends in ((0, (0, 10, 30)), (1, (0, 17, 30))):
            for a, b in zip(ends, ends[1:], strict=False):
                order = rng.permutation(code[a:b, env])
                same.append((order[1:] == order[:-1]).sum())
                pairs.append(b - a - 1)
    shuffled = table.loc["all", "stays, shuffled in its episode"]
    assert shuffled == pytest.approx(np.sum(same) / np.sum(pairs), abs=0.01)
    counted = [code[t, e] == code[t + 1, e] for e in range(2) for t in range(29) if not done[t, e]]
    assert table.loc["all", "stays"] == pytest.approx(np.mean(counted)) and table.loc["all", "pairs"] == 56
    assert table.loc["all", "stays"] > shuffled
    assert table.loc[3].drop("pairs").isna().all()  # never used


def test_separation_is_known_for_separate_clouds_and_undefined_for_one(tmp_path):
    code = np.tile([0, 1], (30, 2))
    states = recording(tmp_path / "s.h5", code)
    points = np.random.default_rng(0).normal(size=(120, 2)) * 0.01 + states.code[:, None] * 10
    states = dataclasses.replace(states, feature=points.astype(np.float32))
    row = code_separation(states, np.arange(120), {"map": points}).iloc[0]
    assert row["silhouette of codes"] > 0.98 and row["trustworthiness (k=12)"] == pytest.approx(1)
    few = code_separation(states, np.arange(120), {"map": points}, most=40).iloc[0]
    assert few["silhouette of codes"] > 0.98 and few["silhouette of codes"] != row["silhouette of codes"]
    alone = dataclasses.replace(states, code=np.zeros(120, int))
    row = code_separation(alone, np.arange(120), {"map": points}).iloc[0]
    assert np.isnan(row["silhouette of codes"]) and row["trustworthiness (k=12)"] == pytest.approx(1)


def test_transitions_and_dwell_are_counted(tmp_path):
    # Two environments: 0 0 1 1 0 | end, 2 (cut off); and 1 0 0 0 1 1 (cut off).
    code = np.array([[0, 0, 1, 1, 0, 2], [1, 0, 0, 0, 1, 1]]).T
    done = np.array([[0, 0, 0, 0, 1, 0], [0] * 6]).T
    study = ClusterStudy(None, recording(tmp_path / "s.h5", code, done=done))  # the agent has no say in it
    table = study.transitions
    assert table["count"].to_dict() == {(0, END): 1, (0, 1): 2, (1, 0): 2}
    assert table["probability"].to_dict() == pytest.approx({(0, END): 1 / 3, (0, 1): 2 / 3, (1, 0): 1})
    dwell = study.dwell
    assert dwell["visits"].tolist() == [3, 2, 0, 0]
    assert dwell["mean dwell (steps)"][0] == 2 and dwell["episode ends here"][0] == pytest.approx(1 / 3)
    assert dwell.loc[2].drop("visits").isna().all()
    nothing = ClusterStudy(None, recording(tmp_path / "s.h5", np.zeros((4, 2), int)))
    assert nothing.transitions.empty and nothing.dwell["visits"].sum() == 0


def test_sequences_are_read_without_repeats_and_by_success():
    assert collapse([7, 7, 1, 1, 1, 7]).tolist() == [7, 1, 7] and collapse([]).tolist() == []
    chosen = [recorded(10, [0, 0, 1, 2, 2, 0, 1]), recorded(1, [3, 3, 1, 0])]
    tested = [recorded(9, [0, 1, 2]), recorded(1, [3, 3]), recorded(9, [0, 1])]
    table = typical_sequences([chosen[0], tested[0], chosen[1], tested[1]])
    assert table.attrs == {"successful": 1, "other": 1}
    assert table["successful: count"].to_dict() == {"0 → 1 → 2": 1, "1 → 2 → 0": 0, "2 → 0 → 1": 0, "3 → 1 → 0": 0}
    assert table.loc["0 → 1 → 2", "successful: share"] == 1 and table["share, shuffled"].max() == pytest.approx(
        1 / 6, abs=0.03
    )
    ends = typical_sequences([chosen[0], tested[0], chosen[1], tested[1]], ending=True)
    assert ends["successful: count"].to_dict() == {"2 → 0 → 1": 0, "3 → 1 → 0": 0}
    assert typical_sequences([recorded(1, [0])]).empty


def test_orders_are_uniform_and_keep_clusters_and_neighbours_apart():
    orders = shuffled_orders(np.array([0, 1, 0, 2]), 6000, np.random.default_rng(0))
    assert (np.sort(orders, axis=1) == [0, 0, 1, 2]).all() and (np.diff(orders, axis=1) != 0).all()
    found, counts = np.unique(orders, axis=0, return_counts=True)
    assert len(found) == 6 and np.abs(counts / 6000 - 1 / 6).max() < 0.02  # of 12 orders, 6 have the zeros apart


def test_a_sequence_is_found_where_there_is_one_and_nowhere_else():
    rng = np.random.default_rng(3)

    def play(total, habit):
        parts = [rng.permutation(4).tolist() if rng.random() > habit else [4, 5, 6] for _ in range(8)]
        return recorded(total, np.repeat(np.concatenate(parts), 2))

    table = typical_sequences([*(play(10, 0.4) for _ in range(60)), *(play(1, 0.05) for _ in range(60))])
    habit = table.loc["4 → 5 → 6"]
    assert habit["p order"] < 0.05 and habit["p success"] < 0.05 and habit["share"] > 3 * habit["share, shuffled"]
    among = [name for name in table.index if not set(name) & set("456")]
    assert among and (table.loc[among, "p success"] > 0.05).any()
    assert "4 → 5 → 6" in sequence_verdict(table)
    same = [play(total, 0.0) for total in [10, 1] * 60]
    nothing = typical_sequences(same)
    assert (nothing["p success"] > 0.05).all()
    assert sequence_verdict(nothing).endswith("other episodes: none (permutation tests, Holm, 5%).")


def test_two_clouds_are_two_islands_and_one_is_one():
    rng = np.random.default_rng(0)
    cloud = rng.normal(size=(300, 2))
    assert islands(cloud) == 1 and islands(np.concatenate([cloud, cloud + [8, 0]])) == 2
    assert islands(np.concatenate([cloud, cloud[:15] + [20, 0]])) == 1  # a twentieth is no island
    assert islands(cloud[:10] * 100) == islands(np.zeros((50, 2))) == islands(np.zeros((0, 2))) == 1


def test_value_and_return_are_compared_where_the_episode_ended(tiny_sppo, tmp_path):
    agent = load_agent(tiny_sppo, device="cpu")
    agent._training = {"reward_normalizer": {"var": 4.0}}
    code = np.array([[0, 1]] * 4)
    done = np.array([[0, 0], [1, 0], [0, 0], [0, 0]])
    states = recording(tmp_path / "s.h5", code, done=done, feature=np.zeros((8, 256), np.float32))
    states = dataclasses.replace(
        states, value=np.array([1, 5, 3, 5, 9, 5, 9, 5], np.float32), reward=np.full(8, 6, np.float32)
    )
    study = ClusterStudy(agent, states)
    row = study.table.loc[0]
    assert study.unit == "game reward" and row["value"] == pytest.approx(2 * 5.5)
    assert row["states, whole episodes"] == 2 and row["value, whole episodes"] == pytest.approx(2 * 2)
    assert row["return to go"] == pytest.approx((6 + 0.999 * 6 + 6) / 2)
    other = study.table.loc[1]
    assert (
        other["states, whole episodes"] == 0 and np.isnan(other["return to go"]) and other["value"] == pytest.approx(10)
    )
    assert study.cluster(0).return_to_go == pytest.approx(row["return to go"])
    agent._training = {}
    unknown = ClusterStudy(agent, states)
    assert unknown.unit == "scaled reward" and unknown.table.loc[0, "value"] == pytest.approx(5.5)
    assert unknown.table["states, whole episodes"].sum() == 0


def test_close_clusters_are_moved_apart_and_far_ones_stay():
    places = spread_out({0: np.zeros(2), 1: np.zeros(2), 2: np.array([9.0, 9.0])})
    assert np.linalg.norm(places[0] - places[1]) > 0.55
    far = {0: np.array([-1.0, -1.0]), 1: np.array([1.0, 1.0])}
    np.testing.assert_allclose(spread_out(far)[1], [1, 1], atol=0.01)
    assert spread_out({}) == {}


def test_a_cluster_without_states_is_left_out_and_named(tiny_sppo, tmp_path):
    code = np.repeat(np.array([[0, 1], [1, 0], [0, 1]]), 4, axis=0)
    agent = load_agent(tiny_sppo, device="cpu")
    states = recording(tmp_path / "s.h5", code, feature=np.zeros((code.size, 256), np.float32))
    outputs = Outputs(tmp_path / "figures", "x")
    study = ClusterStudy(agent, states)
    table = save_cluster_outputs(study, outputs, [], {0: "waits", 3: "never seen"})
    save_transitions(study, outputs, [])
    assert table["states"].tolist() == [12, 12, 0, 0] and table.loc[2].drop(["states", "share"]).isna().sum() >= 5
    assert study.actions.loc[2].isna().all()
    captions = {path.stem: path.read_text() for path in (tmp_path / "figures/x").glob("*.json")}
    assert "Never used: cluster 2, 3" in captions["cluster_gallery"]
    assert "No arrows from 0, 1: visited fewer than 10 times" in captions["cluster_transitions"]
    assert {"cluster_actions", "cluster_transitions", "cluster_dwell", "cluster_transitions_table"} <= set(captions)


def test_learning_curves_show_mean_and_deviation_over_seeds():
    import matplotlib.pyplot as plt

    seeds = pd.DataFrame({"a": [0.0, 1, 2], "b": [2.0, 3, 6]}, index=[10, 20, 30])
    figure, ax = plt.subplots()
    draw_seeds(ax, seeds, method="sppo", label="SPPO")
    both = np.stack([smooth(seeds["a"].to_numpy()), smooth(seeds["b"].to_numpy())])
    np.testing.assert_allclose(ax.lines[0].get_ydata(), both.mean(0))
    band = ax.collections[0].get_paths()[0].vertices
    assert band[:, 1].max() == pytest.approx((both.mean(0) + both.std(0, ddof=1)).max())
    plt.close(figure)


def test_playing_for_videos_stops_at_its_limit_and_reports_what_is_missing(tiny_sppo, tmp_path):
    agent = load_agent(tiny_sppo, device="cpu")
    episodes = play_for_videos(agent, 4, max_frames=10_000, max_steps=1)
    assert len(episodes) == 4
    more = play_for_videos(agent, 4, max_frames=10_000, max_steps=sum(len(e.actions) for e in episodes) + 1)
    assert len(more) == 6 and [e.level for e in more[:4]] == [e.level for e in episodes]
    k = int(np.bincount(np.concatenate([e.codes for e in episodes])).argmax())
    outputs = Outputs(tmp_path, "v")
    report = save_skill_videos(agent, outputs, [], episodes, max_frames=25, descriptions={k: "does something"})
    assert report["frames"].sum() > 0 and (report["missing"] == (25 - report["frames"]).clip(lower=0)).all()
    filmed = [k for k in report.index if report["frames"][k]]
    assert {f"skill_{k}.webp" for k in filmed} == {path.name for path in (tmp_path / "v").glob("*.webp")}
    assert any("does something" in (tmp_path / f"v/skill_{k}.json").read_text() for k in filmed)
    with pytest.raises(InterpError, match="frames must be positive"):
        play_for_videos(agent, 4, max_frames=0)
