"""Episodes, replays, collected states and the analyses that rest on them."""

import dataclasses

import h5py
import numpy as np
import pytest
from recorded import recorded

from interp_lib import PPO, SPPO, InterpError, load_agent
from interp_lib.agents.returns import evaluate_procgen
from interp_lib.agents.sppo.play import (
    UniformAgent,
    _Memory,
    play,
    play_episodes,
    replay_frames,
    sample_actions,
)
from interp_lib.clusters.collect import collect_states, open_states
from interp_lib.clusters.skills import Stretch, find_stretches, label_frame, stretch_clips, success_rule, successful
from interp_lib.clusters.states import StateSet, load_states, return_to_go, sample_rows, stretches, weights_digest
from interp_lib.clusters.study import ClusterStudy
from interp_lib.common.graphs import CUT, END
from interp_lib.common.statistics import bootstrap_mean
from interp_lib.common.tsne import tsne
from interp_lib.envs.procgen import UNSEEN_NUM_LEVELS, Levels, ProcgenVec


@pytest.fixture(scope="module")
def agent(tiny_sppo):
    return load_agent(tiny_sppo, device="cpu")


@pytest.fixture(scope="module")
def states(agent, tmp_path_factory):
    return collect_states(agent, tmp_path_factory.mktemp("states") / "s.h5", steps=40, num_envs=8, progress=False)


def test_episodes_are_whole_and_shared_evenly_between_environments(agent):
    env = ProcgenVec("fruitbot", 3, Levels(num_levels=50), seed=1)
    episodes = play_episodes(agent, env, 7, seed=0)
    assert len(episodes) == 7
    for episode in episodes:
        assert len(episode.actions) == len(episode.rewards) == len(episode.codes) > 0
        assert 0 <= episode.level < 50
    with pytest.raises(InterpError, match="positive"):
        play_episodes(agent, env, 0)


def test_without_dice_frames_are_remembered_and_looked_at_once(agent, monkeypatch):
    monkeypatch.setattr(_Memory, "SIZE", 6)
    looked = []
    embed = agent.embed
    monkeypatch.setattr(agent, "embed", lambda obs: looked.append(len(obs)) or embed(obs))
    memory, frames = _Memory(agent), np.random.default_rng(0).integers(0, 256, (8, 64, 64, 3), np.uint8)
    for rows in ([0, 1, 1], [1, 0, 2], [2], [3, 4, 5, 6], [6, 0]):
        for remembered, anew in zip(memory.embed(frames[rows]), embed(frames[rows]), strict=True):
            np.testing.assert_allclose(remembered, anew, atol=1e-5)
    assert looked == [2, 1, 4, 1]
    env = ProcgenVec("fruitbot", 2, Levels(num_levels=50), seed=1)
    step = next(play(agent, env, deterministic=True))
    np.testing.assert_array_equal(step.action, embed(step.obs).logits.argmax(1))


def test_a_replay_from_level_and_actions_shows_what_the_agent_saw(agent):
    """In the middle of a vectorised run: the observations of replayed episodes are byte-identical."""
    env = ProcgenVec("fruitbot", 4, Levels(num_levels=1000, start_level=200_000), seed=9)
    seen, current = [], [[] for _ in range(4)]
    for t, step in enumerate(play(agent, env, seed=0)):
        for i in range(4):
            current[i].append((step.level[i], step.action[i], step.obs[i]))
            if step.done[i]:
                seen.append(current[i])
                current[i] = []
        if len(seen) >= 6 or t > 3000:
            break
    assert len(seen) >= 6
    for episode in seen[:6]:
        level = int(episode[0][0])
        again = ProcgenVec("fruitbot", 1, Levels().only(level))
        for _, action, obs in episode:
            np.testing.assert_array_equal(again.observation[0], obs)
            again.step(np.array([action]))


def test_replayed_frames_are_those_asked_for(agent):
    episode = play_episodes(agent, ProcgenVec("fruitbot", 1, seed=1), 1)[0]
    everything = dict(replay_frames(episode))
    plain = ProcgenVec("fruitbot", 1, Levels().only(episode.level), human_frames=True)  # drawn at every step
    for t, action in enumerate(episode.actions):
        np.testing.assert_array_equal(everything[t], plain.frames[0])
        plain.step(action[None])
    assert len(everything) == len(episode.actions) and everything[0].shape == (512, 512, 3)
    some = dict(replay_frames(episode, [3, 4, 9]))
    assert sorted(some) == [3, 4, 9]
    for t, frame in some.items():
        np.testing.assert_array_equal(frame, everything[t])


def test_actions_are_sampled_from_the_softmax():
    logits = np.log(np.tile([[0.7, 0.2, 0.1]], (20_000, 1)))
    share = np.bincount(sample_actions(logits, np.random.default_rng(0)), minlength=3) / 20_000
    np.testing.assert_allclose(share, [0.7, 0.2, 0.1], atol=0.015)


def test_evaluation_uses_the_levels_of_its_side(agent):
    assert Levels.unseen(agent.config).start_level == 200_000
    assert Levels.unseen(agent.config).num_levels == UNSEEN_NUM_LEVELS
    few = dataclasses.replace(agent.config, num_levels=10, start_level=7)
    assert Levels.seen(few) == Levels("easy", num_levels=10, start_level=7)
    with pytest.raises(InterpError, match="train, unseen"):
        evaluate_procgen(agent, 1, side="test")
    returns = evaluate_procgen(UniformAgent(agent.config), 12, seed=1)
    assert returns.returns.shape == (12,) and (returns.lengths > 0).all()
    assert (returns.returns == returns.returns.round()).all()  # FruitBot pays in whole points


def test_bootstrap_interval_covers_the_mean_as_often_as_it_says():
    rng = np.random.default_rng(0)
    covered = [
        interval.low <= 1.0 <= interval.high
        for interval in (bootstrap_mean(rng.exponential(1.0, 80), resamples=500) for _ in range(200))
    ]
    assert 0.88 <= np.mean(covered) <= 0.99
    assert bootstrap_mean(np.ones(5)) == (1.0, 1.0, 1.0)


def test_collected_states_are_what_the_agent_says_of_their_frames(agent, states):
    assert len(states) == 320 and 0.6 < states.kept.mean() < 0.95
    rows = np.array([250, 3, 3, 40])
    embedding = agent.embed(states.frames(rows))
    np.testing.assert_allclose(embedding.fdr, states.fdr[rows], atol=1e-5)
    np.testing.assert_array_equal(embedding.code, states.code[rows])
    assert (states.level >= 200_000).all()


@pytest.mark.parametrize("algorithm", [PPO, SPPO])
def test_two_states_are_enough_and_one_is_refused(algorithm, tmp_path):
    agent = algorithm("coinrun", device="cpu")
    few = collect_states(agent, tmp_path / "s.h5", steps=2, num_envs=1, progress=False)
    assert len(few) == 2 and few.fdr.shape == (2, 2)
    with pytest.raises(InterpError, match="one state is no map"):
        collect_states(agent, tmp_path / "s.h5", steps=1, num_envs=1, progress=False)


def test_collecting_again_gives_the_same(agent, states, tmp_path):
    again = collect_states(agent, tmp_path / "s.h5", steps=40, num_envs=8, progress=False)
    np.testing.assert_array_equal(again.code, states.code)
    np.testing.assert_array_equal(again.action, states.action)


def test_bad_embedding_files_are_named(states, tmp_path):
    with pytest.raises(InterpError, match="interp embed"):
        load_states(tmp_path / "none.h5")
    broken = tmp_path / "broken.h5"
    broken.write_bytes(states.path.read_bytes()[:5000])
    with pytest.raises(InterpError, match="damaged"):
        load_states(broken)
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = [1]
    with pytest.raises(InterpError, match="damaged or no embedding file"):
        load_states(tmp_path / "other.h5")


def test_an_embedding_file_is_reused_only_for_what_it_holds(agent, states, tmp_path, capsys):
    path = tmp_path / "s.h5"
    path.write_bytes(states.path.read_bytes())
    how = {"steps": 40, "num_envs": 8, "progress": False}
    written = path.stat().st_mtime_ns
    again = open_states(agent, path, **how)
    assert path.stat().st_mtime_ns == written and capsys.readouterr().err == ""
    np.testing.assert_array_equal(again.code, states.code)

    open_states(agent, path, **{**how, "steps": 2})
    assert "was collected with steps 40, not 2: collecting again" in capsys.readouterr().err
    other = SPPO("fruitbot", seed=0, device="cpu")
    with pytest.raises(InterpError, match="of another fruitbot agent.*interp embed"):
        load_states(path, other)
    assert len(load_states(path, agent)) == 16
    open_states(other, path, **{**how, "steps": 2})
    assert "of another fruitbot agent" in capsys.readouterr().err
    assert load_states(path, other).meta["weights"] == weights_digest(other) != weights_digest(agent)
    jumper = SPPO("jumper", device="cpu")
    with pytest.raises(InterpError, match="holds states of fruitbot, not of jumper"):
        load_states(path, jumper)
    path.write_bytes(path.read_bytes()[:3000])
    open_states(agent, path, **{**how, "steps": 2})
    assert "damaged or no embedding file: collecting again" in capsys.readouterr().err


def test_altered_frames_and_columns_are_noticed(states, tmp_path):
    data = bytearray(states.path.read_bytes())
    with h5py.File(states.path) as file:
        where = {name: file[name].id.get_chunk_info(0).byte_offset for name in ("obs", "feature")}
    for name, offset in where.items():
        path = tmp_path / f"{name}.h5"
        altered = data.copy()
        altered[offset + 40] ^= 0xFF
        path.write_bytes(altered)
        with pytest.raises(InterpError, match="collect again") as raised:
            load_states(path).frames(np.arange(4))
        assert "\n" not in str(raised.value)


def synthetic_states(path, code, done, reward, n):
    """Time-major arrays (T · n) of a recording with given codes, ends and rewards."""
    size = len(code)
    zeros = np.zeros(size)
    return StateSet(
        path, {"num_envs": n, "num_codes": 3}, np.zeros((size, 4), np.float32), np.zeros((size, 2)), np.array(code),
        zeros, np.zeros(size, int), np.array(reward, float), np.array(done, bool), np.arange(size), zeros, zeros,
        np.ones(size, bool),
    )  # fmt: skip


def test_dwell_times_end_with_cluster_and_episode(tmp_path):
    # Two environments: codes over time 0 0 0 1 and 2 2 2 2, the second one's episode ends after step 1. What is left of
    # an episode when the recording ends is not known.
    states = synthetic_states(
        tmp_path, [0, 2, 0, 2, 0, 2, 1, 2], [0, 0, 0, 1, 0, 0, 0, 0], [1, 0, 0, 2, 0, 0, 1, 4], n=2
    )
    found = stretches(states)
    assert [found["length"][found["cluster"] == k].tolist() for k in range(3)] == [[3], [1], [2, 2]]
    assert found["next"].tolist() == [1, CUT, END, CUT] and found["start"].tolist() == [0, 3, 0, 2]
    expected = [[np.nan, 0.5 * 2], [np.nan, 2], [np.nan] * 2, [np.nan] * 2]
    np.testing.assert_allclose(return_to_go(states, gamma=0.5).reshape(4, 2), expected)


def test_cluster_analyses(agent, states):
    study = ClusterStudy(agent, states)
    table = study.table
    assert table["states"].sum() == states.kept.sum() and table["share"].sum() == pytest.approx(1)
    used = table["states"] > 0
    known = table["mean dwell (steps) low"].notna()  # no interval for what a single environment has been in
    assert known.any() and not known[~used].any()
    assert (table["mean dwell (steps) low"][known] <= table["mean dwell (steps)"][known]).all()
    shares = study.actions
    np.testing.assert_allclose(shares[used].sum(axis=1), 1)
    assert shares[~used].isna().all(axis=None)
    assert study.described({2: "waits"})["description"].tolist() == ["", "", "waits", "", "", "", "", ""]
    images = study.mean_images()
    assert set(images) == set(states.code[states.kept])
    k = int(np.bincount(states.code[states.kept]).argmax())
    rows = study.central_rows(study.rows(k))[:3]
    assert (states.code[rows] == k).all() and len(set(states.level[rows])) == len(rows) > 0
    typical = study.typical_rows(k)
    assert typical[0] == rows[0] == study.medoids()[k] and len(set(typical)) == 5 and (states.code[typical] == k).all()
    far = np.linalg.norm(states.feature[typical] - states.feature[typical[0]], axis=1)
    assert (np.diff(far) > 0).all()  # each stands further away than the last
    assert len(sample_rows(states, 50)) == 50 and states.kept[sample_rows(states, 50)].all()


def test_tsne_separates_what_is_apart_and_wants_enough_states():
    rng = np.random.default_rng(0)
    features = np.concatenate([rng.normal(0, 1, (60, 10)), rng.normal(20, 1, (60, 10))])
    points = tsne(features, perplexity=15)
    a, b = points[:60], points[60:]
    assert np.linalg.norm(a.mean(0) - b.mean(0)) > max(a.std(), b.std())
    with pytest.raises(InterpError, match="more than 90"):
        tsne(features[:50])


def test_stretches_come_from_good_episodes_and_have_the_right_length():
    episodes = [
        recorded(10, [1] * 4 + [0] * 6 + [1] * 30 + [0] * 5),
        recorded(8, [1] * 10),  # not above 80% of the best
        recorded(9, [1] * 7),
    ]
    assert successful(episodes) == [0, 2]
    assert find_stretches(episodes, 1) == [Stretch(0, 10, 30), Stretch(2, 0, 7)]
    assert find_stretches(episodes, 0) == [Stretch(0, 4, 10), Stretch(0, 40, 45)]
    assert find_stretches(episodes, 2) == []
    assert find_stretches(episodes, 1, max_frames=5) == [Stretch(0, 10, 30)]


def test_success_is_relative_to_the_game_and_to_the_best_episode_where_few_come_near():
    assert successful([recorded(r, [1]) for r in (2, 2, 1.5)]) == [0, 1] and successful([]) == []
    few = [recorded(r, [1]) for r in (9, 7, 7.5, 2)]  # 80% of the best one is 7.2, of Ninja's best score 8
    assert successful(few) == [0, 2]
    assert success_rule(few) == (
        "return above 80% of the best one here, 9.0, as 1 of 4 came above 80% of the game's best score, 10"
    )
    many = [recorded(r, [1]) for r in (9, 9, 9, 9, 9, 7.5)]
    assert successful(many) == [0, 1, 2, 3, 4] and success_rule(many).endswith("the game's best score, 10")
    assert successful([recorded(r, [1]) for r in (-3, -1)]) == [1]


def test_clips_are_rendered_with_a_label(agent):
    played = play_episodes(agent, ProcgenVec("fruitbot", 1, seed=1), 1)
    clips = list(stretch_clips(played, [Stretch(0, 2, 6)], cluster=3))
    assert len(clips) == 1 and clips[0].shape == (4, 512, 512, 3)
    plain = dict(replay_frames(played[0], [2]))[2]
    np.testing.assert_array_equal(clips[0][0][40:], plain[40:])
    assert (label_frame(plain, "x", "#FF0000")[:28, 4] == [255, 0, 0]).all()
    described = label_frame(plain, "x", "#FF0000", below="a sentence much longer than the frame is wide " * 3)
    assert (described[:50, 4] == [255, 0, 0]).all()
    np.testing.assert_array_equal(described[51:], plain[51:])
    assert (described[28:50, 505:].min(axis=2) > 150).all()  # the end of the line stays free
