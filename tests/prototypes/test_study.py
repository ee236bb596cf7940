"""What the prototypes do, in numbers and pictures, on a tiny agent that was really trained."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from scipy.integrate import quad, trapezoid

from interp_lib.agents.protosac import SAC, ProtoSAC
from interp_lib.cli import main
from interp_lib.common.errors import InterpError
from interp_lib.common.labels import covered, spread_labels
from interp_lib.common.outputs import Outputs, saved_outputs
from interp_lib.envs.continuous import make_task, make_task_vec
from interp_lib.envs.names import task_info
from interp_lib.envs.pictures import (
    rendering_problem,
    rendering_task,
    replay_frames,
    restored_frames,
    state_bars,
    state_caption,
)
from interp_lib.prototypes import PrototypeStudy
from interp_lib.prototypes.decision_figure import plot_decision
from interp_lib.prototypes.decisions import (
    Decision,
    action_density,
    action_interval,
    clearest_step,
    explain_decision,
    most_divided_step,
    squash,
)
from interp_lib.prototypes.explained_video import explained_frames
from interp_lib.prototypes.figures import plot_gallery, worth_of_each
from interp_lib.prototypes.outputs import save_prototype_outputs
from interp_lib.prototypes.states import NearestState, PrototypePictures, nearest_states, picture_states
from interp_lib.prototypes.traces import (
    EpisodeTrace,
    even_steps,
    playback_fps,
    record_episode,
    record_episodes,
    with_frames,
)
from interp_lib.prototypes.usage import effective_number, prototype_colors, prototype_usage, sharing_interval
from interp_lib.runs.folder import Run

K = 5
SMALL = dict(learning_starts=50, batch_size=32, buffer_size=1000, policy_kwargs={"net_arch": [32, 32]}, seed=0)


@pytest.fixture(scope="module")
def agent() -> ProtoSAC:
    env = make_task_vec("pendulum", 1, 0)
    agent = ProtoSAC("MlpPolicy", env, **SMALL, n_prototypes=K, latent_dim=8).learn(150)
    agent.task = "pendulum"
    return agent


@pytest.fixture(scope="module")
def study(agent) -> PrototypeStudy:
    return PrototypeStudy.record(agent, "pendulum", 3, seed=7)


def trace_of(weights, rewards=None) -> EpisodeTrace:
    """A trace with chosen weights; what is not asked about is zero."""
    weights = np.asarray(weights, dtype=np.float32)
    zeros = np.zeros((len(weights), 1), dtype=np.float32)
    return EpisodeTrace("mountaincar", 0, zeros, zeros, zeros[:, 0], weights, weights)


# Actions after the squash


@pytest.mark.parametrize(("mean", "std", "low", "high"), [(0.3, 0.5, -2, 2), (-1.2, 0.3, 0, 1), (0.0, 1.4, -0.4, 0.4)])
def test_action_density_is_that_of_squashed_gaussian_draws(mean, std, low, high):
    total = quad(lambda action: float(action_density(action, mean, std, low, high)), low, high, limit=200)[0]
    assert total == pytest.approx(1, abs=1e-6)
    assert action_density(np.array([low - 0.1, low, high, high + 0.1]), mean, std, low, high).tolist() == [0, 0, 0, 0]

    actions = squash(np.random.default_rng(0).normal(mean, std, 200_000), low, high)
    ends = action_interval(mean, std, low, high)
    assert np.mean((actions > ends[0]) & (actions < ends[1])) == pytest.approx(0.9, abs=0.005)
    inside = quad(lambda action: float(action_density(action, mean, std, low, high)), *map(float, ends))[0]
    assert inside == pytest.approx(0.9, abs=1e-6)


@pytest.mark.parametrize("mixture", ["blend", "gmm"])
def test_both_mixtures_of_a_decision_are_densities(mixture):
    decision = Decision(
        step=0,
        weights=np.array([0.2, 0.5, 0.3]),
        order=np.array([1, 2, 0]),
        means=np.array([[-1.0, 0.0], [0.2, 1.0], [0.8, -0.5]]),
        stds=np.array([[0.3, 1.0], [0.2, 0.4], [0.5, 0.7]]),
        low=np.array([-2.0, 0.0]),
        high=np.array([2.0, 1.0]),
        action=np.zeros(2),
        mixture=mixture,
    )
    u = np.linspace(-8, 8, 4001)
    for dim, (low, high) in enumerate(zip(decision.low, decision.high, strict=True)):
        total = quad(lambda x, d=dim: float(decision.density(np.array([x]), d)[0]), low, high, limit=200)[0]
        assert total == pytest.approx(1, abs=1e-5)
        assert trapezoid(decision.density_u(u, dim), u) == pytest.approx(1, abs=1e-6)
    mean = 0.2 * -1.0 + 0.5 * 0.2 + 0.3 * 0.8
    assert trapezoid(u * decision.density_u(u, 0), u) == pytest.approx(mean, abs=1e-6)


# Usage


def test_usage_by_hand():
    usage = prototype_usage([[1, 0, 0], [0.4, 0.6, 0], [0, 0.25, 0.75], [0, 0.1, 0.9]])
    np.testing.assert_allclose(usage.led, [0.25, 0.25, 0.5])
    np.testing.assert_allclose(usage.mean_weight, [0.35, 0.2375, 0.4125])
    assert usage.order.tolist() == [2, 0, 1]
    assert prototype_usage([[0.5, 0.5], [0.3, 0.7], [0.7, 0.3], [0.5, 0.5]]).order.tolist() == [0, 1]  # tie: leads more
    entropy = -(0.25 * np.log(0.25) + 0.75 * np.log(0.75))
    assert usage.per_decision[0] == 1 and usage.per_decision[2] == pytest.approx(np.exp(entropy))
    assert effective_number(np.full(8, 1 / 8)) == pytest.approx(8)
    assert usage.in_use == pytest.approx(effective_number([0.35, 0.2375, 0.4125]))
    with pytest.raises(InterpError, match="Record at least one episode"):
        prototype_usage(np.zeros((0, 3)))


def test_the_interval_of_sharing_is_one_over_episodes():
    alone, shared = np.tile([1.0, 0.0], (30, 1)), np.tile([0.5, 0.5], (10, 1))
    interval = sharing_interval([alone, shared])
    np.testing.assert_allclose(interval, (1.25, 1, 2))  # of 40 decisions 10 are shared by two; or one episode twice


def test_the_clearest_and_the_most_divided_decision():
    trace = trace_of([[0.6, 0.4, 0], [0.98, 0.01, 0.01], [0.05, 0.48, 0.47], [0.34, 0.33, 0.33]])
    assert clearest_step(trace) == 1 and most_divided_step(trace) == 2


def test_colours_tell_the_heaviest_prototypes_apart():
    usage = prototype_usage(np.eye(12)[[3] * 5 + [8] * 4 + [0] * 3])
    colors = prototype_colors(usage)
    assert len({colors[k] for k in usage.order[:8]}) == 8
    assert (colors[3], colors[8]) == ("#014BC9", "#EBAC00")


# Traces


def test_a_trace_holds_the_episode_that_predict_plays(agent, study):
    trace = study.traces[1]
    assert (trace.seed, len(trace)) == (8, 200)
    assert trace.observations.shape == (200, 3) and trace.actions.shape == (200, 1)
    assert trace.weights.shape == trace.similarities.shape == (200, K)
    np.testing.assert_allclose(trace.weights.sum(1), 1, atol=1e-5)
    assert trace.leading.tolist() == trace.similarities.argmax(1).tolist()
    assert trace.frames is None
    env = make_task("pendulum")
    observation, _ = env.reset(seed=8)
    total = 0.0
    for step in range(200):
        np.testing.assert_array_equal(observation, trace.observations[step])
        action, _ = agent.predict(observation, deterministic=True)
        np.testing.assert_allclose(action, trace.actions[step], atol=1e-6)
        observation, reward, *_ = env.step(trace.actions[step])
        total += reward
    assert trace.total == pytest.approx(total)


def test_frames_come_later_and_are_those_of_the_episode(study):
    trace = study.traces[0]
    shown = with_frames(trace, [40, 3], size=(64, 64))
    assert shown.frames.shape == (2, 64, 64, 3) and shown.frame_steps.tolist() == [3, 40] and shown.note == ""
    env = rendering_task("pendulum", (64, 64))
    env.reset(seed=trace.seed)
    for step in range(40):
        if step == 3:
            np.testing.assert_array_equal(env.render(), shown.frame(3))
        env.step(trace.actions[step])
    np.testing.assert_array_equal(env.render(), shown.frame(40))
    with pytest.raises(InterpError, match="step 5 of this episode was not rendered"):
        shown.frame(5)


def test_an_episode_that_comes_out_differently_is_refused(study):
    trace = study.traces[0]
    with pytest.raises(InterpError, match="came out differently"):
        with_frames(replace(trace, actions=-trace.actions), [20])
    with pytest.raises(InterpError, match="step 200 is not in this episode: it has 200 steps"):
        replay_frames("pendulum", trace.seed, trace.actions, [200])


def test_wrong_agents_and_no_episodes_are_one_clear_line(agent):
    with pytest.raises(InterpError, match="a sac agent has no prototypes"):
        record_episode(SAC("MlpPolicy", make_task_vec("pendulum"), **SMALL), "pendulum", 0)
    with pytest.raises(InterpError, match="trained on pendulum, not on mountaincar"):
        record_episode(agent, "mountaincar", 0)
    with pytest.raises(InterpError, match="number of episodes must be positive, not 0"):
        record_episodes(agent, "pendulum", 0)


def test_even_steps_and_playback():
    assert even_steps(10, 4) == [0, 3, 6, 9] and even_steps(3, 10) == [0, 1, 2]
    assert playback_fps("pendulum", [0, 2, 4]) == 15 and playback_fps("pendulum", [0]) == 30


# Pictures of states


@pytest.mark.parametrize("task", ["pendulum", "mountaincar"])
def test_a_restored_state_looks_exactly_like_the_environments_own_frame(task):
    env = rendering_task(task)
    observation, _ = env.reset(seed=3)
    observations, frames = [], []
    for _ in range(25):
        observations.append(observation)
        frames.append(env.render().copy())
        observation, *_ = env.step(env.action_space.high)
    np.testing.assert_array_equal(restored_frames(task, observations), frames)
    assert len({frame.tobytes() for frame in frames}) > 5  # it was no still life
    env.close()


def test_mujoco_states_are_restored_up_to_the_hidden_position():
    if rendering_problem("hopper"):
        pytest.skip(rendering_problem("hopper"))
    env = make_task("hopper")
    env.reset(seed=1)
    for _ in range(15):
        observation, *_ = env.step(env.action_space.high)
    other = make_task("hopper", seed=0)
    task_info("hopper").restore(other.unwrapped, observation.astype(np.float64))
    data, expected = other.unwrapped.data, env.unwrapped.data
    np.testing.assert_allclose(data.qpos[1:], expected.qpos[1:], atol=1e-6)
    np.testing.assert_allclose(data.qvel, expected.qvel, atol=1e-5)
    assert data.qpos[0] == 0
    frame, another = restored_frames("hopper", [observation, observation * 0 + 0.5], size=(64, 64))
    assert frame.shape == (64, 64, 3) and not np.array_equal(frame, another)


def test_box2d_states_cannot_be_restored():
    with pytest.raises(InterpError, match="can't be put into a given state"):
        restored_frames("lunarlander", [])
    assert task_info("humanoid").restore and not task_info("carracing").restore


@pytest.mark.parametrize("chosen", ["glfw", "none-such"])  # no display; MuJoCo refuses to be imported with this one
def test_without_opengl_states_are_drawn_and_the_message_says_what_to_install(chosen):
    code = """
import numpy as np
from interp_lib.prototypes.traces import EpisodeTrace, with_frames
rng = np.random.default_rng(0)
trace = EpisodeTrace("hopper", 0, rng.normal(size=(4, 11)), np.zeros((4, 3)), np.zeros(4), np.eye(4), np.eye(4))
shown = with_frames(trace, [0, 2])
print(shown.frames.shape, shown.frames.std() > 0, shown.note)
"""
    env = {k: v for k, v in os.environ.items() if k not in ("DISPLAY", "WAYLAND_DISPLAY")} | {"MUJOCO_GL": chosen}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("(2, 480, 480, 3) True cannot render Hopper-v5")
    assert "libegl1" in done.stdout and "Traceback" not in done.stderr


def test_bars_show_how_far_a_number_is_from_its_usual_value():
    reference = np.array([[0.0, 5.0], [2.0, 5.0]])  # mean 1, deviation 1; the second never changes
    usual, high = state_bars(np.array([[1.0, 5.0], [3.0, 5.0]]), ["a", "b"], (200, 100), reference=reference)
    differ = np.any(usual != high, axis=2)
    rows, columns = np.nonzero(differ)
    assert differ.any() and rows.max() < 50 and columns.min() >= 148  # the first bar alone, to the right of zero


def test_captions_tell_what_a_still_picture_cannot():
    assert state_caption("pendulum", np.array([0.0, 1.0, -5.71])) == "+90°, -5.7 rad/s"
    assert state_caption("hopper", np.r_[np.zeros(5), -0.04, np.zeros(5)]) == "forward +0.0 m/s"
    assert state_caption("carracing", np.zeros((4, 64, 64), dtype=np.uint8)) == ""


# Nearest states, maps, tables


def test_nearest_states_are_the_nearest_and_lie_apart(agent, study):
    nearest = nearest_states(study, 3, apart=10)
    latents = np.stack([agent.encode(trace.observations) for trace in study.traces])
    for k, states in enumerate(nearest):
        distances = ((latents - agent.prototypes.latents[k]) ** 2).sum(-1)
        first = states[0]
        assert distances[first.episode, first.step] == pytest.approx(distances.min(), abs=1e-5)
        assert first.weight == study.traces[first.episode].weights[first.step, k]
        assert [s.distance for s in states] == sorted(s.distance for s in states)
        for i, one in enumerate(states):
            assert all(one.episode != other.episode or abs(one.step - other.step) >= 10 for other in states[:i])


def test_a_prototype_is_nearest_to_its_own_state(agent):
    states = agent.prototypes.observations
    trace = replace(record_episode(agent, "pendulum", 0), observations=states, actions=np.zeros((K, 1), np.float32))
    study = PrototypeStudy(agent, [trace])
    for k, (found,) in enumerate(nearest_states(study, 1)):
        assert found.step == k and found.distance < 1e-5
    pictures = picture_states(study, [found for (found,) in nearest_states(study, 1)])
    assert pictures.shape == (K, *task_info("pendulum").frame_size, 3)


def test_leading_distance_agrees_with_similarities(agent, study):
    distances, trace = study.distances, study.traces[0]
    np.testing.assert_allclose(-distances[:200], trace.similarities.max(1), atol=1e-4)


def test_the_table_adds_up(study):
    table = study.table.reset_index()
    assert table["led"].sum() == pytest.approx(1) and table["mean_weight"].sum() == pytest.approx(1, abs=1e-5)
    assert table["mean_weight"].is_monotonic_decreasing and set(table["prototype"]) == {f"P{k}" for k in range(K)}
    assert (table["torque_low"] < table["torque"]).all() and (table["torque"] < table["torque_high"]).all()
    np.testing.assert_allclose(table["cos angle"] ** 2 + table["sin angle"] ** 2, 1, atol=1e-5)
    leader = int(table["prototype"][0][1:])
    distances = study.distances
    led = np.concatenate([trace.leading for trace in study.traces]) == leader
    assert table["distance"][0] == pytest.approx(np.median(distances[led]))
    assert table.loc[table["led"] == 0, "value"].isna().all() and table.loc[table["led"] > 0, "value"].notna().all()


def test_the_map_of_pendulum_is_its_state_space(study):
    flat = study.map
    assert flat.states.shape == (600, 2) and flat.prototypes.shape == (K, 2)
    x, y, velocity = study.traces[0].observations[0]
    np.testing.assert_allclose(flat.states[0], [np.degrees(np.arctan2(y, x)), velocity], rtol=1e-5)


# Figures and video


def test_pictures_of_prototypes_are_their_own_states(agent, study):
    assert study.pictures.how == "restored"
    np.testing.assert_array_equal(study.pictures.frames, restored_frames("pendulum", agent.prototypes.observations))


def test_the_gallery_shows_those_with_most_weight_first(study):
    figure = plot_gallery(study, most=3)
    titles = [axes.get_title(loc="left") for axes in figure.axes if axes.get_title(loc="left")]
    assert [title.split()[0] for title in titles] == [f"P{k}" for k in study.usage.order[:3]]
    assert "n = 600 decisions" in figure.texts[0].get_text()
    facts, everything = worth_of_each(study), plot_gallery(study)
    below = [axes.get_xlabel() for axes in everything.axes if axes.images]
    wanted = ["\n".join(filter(None, (study.pictures.captions[k], facts[k]))) for k in study.usage.order]
    assert below == wanted and f"{K} of {K} prototypes" in everything.texts[0].get_text()
    for k, fact in enumerate(facts):
        row = study.table.loc[f"P{k}"]
        assert fact == (f"value {row['value']:.1f}, {row['when']:.0%} into the episode" if row["led"] > 0 else "")


def test_a_narrow_gaussian_is_drawn_beside_a_wide_one():
    weights, means, stds = np.array([0.5, 0.5]), np.array([[0.03], [-8.0]]), np.array([[0.002], [9.0]])
    decision = Decision(0, weights, np.array([0, 1]), means, stds, -np.ones(1), np.ones(1), np.zeros(1), "blend")
    black = np.zeros((2, 4, 4, 3), np.uint8)
    study = PrototypeStudy(None, [trace_of(weights[None])])  # of MountainCar, which has one action as well
    vars(study).update(pictures=PrototypePictures(black, "drawn", "", ("", "")))
    figure = plot_decision(study, decision, black[0])
    before = next(axes for axes in figure.axes if axes.get_xlabel() == "u, before the squash")
    heights = sorted(line.get_ydata().max() for line in before.lines)
    np.testing.assert_allclose(heights, [0.5, 0.5, 1], rtol=0.01)


def test_labels_do_not_cover_each_other_and_stay_where_they_can():
    points = np.array([[0.0, 0.0], [0.0, 0.0], [0.4, 0.1], [9.0, 9.0]])
    places = spread_labels(points, (1.0, 0.5))
    boxes = [(x - 0.5, y - 0.25, x + 0.5, y + 0.25) for x, y in places]
    for i, place in enumerate(places):
        assert covered(place, (1.0, 0.5), boxes[:i] + boxes[i + 1 :]) < 1e-3
    np.testing.assert_allclose(places[3], points[3], atol=0.01)
    assert covered(np.zeros(2), (2, 2), [(0, 0, 5, 5), (-5, -5, -0.5, 0)]) == pytest.approx(1 + 0.5)


def test_image_states_are_pictured_as_prototypes_on_them_are():
    seen = np.random.default_rng(0).integers(0, 256, (3, 4, 64, 64), dtype=np.uint8)
    ones = np.ones((3, 1), dtype=np.float32)
    trace = EpisodeTrace("carracing", 0, seen, np.zeros((3, 3), np.float32), np.zeros(3), ones, ones)
    picture = picture_states(PrototypeStudy(None, [trace]), [NearestState(0, 1, 0.0, 1.0, "")])[0]
    assert picture.shape == (240, 240, 3) and set(np.unique(picture)) == set(np.unique(seen[1, -1]))


def test_explained_frames_have_one_even_size_and_follow_the_episode(study):
    trace = with_frames(study.typical, [0, 60, 120])
    frames = list(explained_frames(study, trace))
    assert len(frames) == 3 and {frame.shape for frame in frames} == {frames[0].shape}
    assert frames[0].shape[0] % 2 == frames[0].shape[1] % 2 == 0 and frames[0].dtype == np.uint8
    assert all(np.any(a != b) for a, b in zip(frames, frames[1:], strict=False))


def test_explaining_a_decision_gives_its_action(study):
    decision = explain_decision(study.agent, study.typical, 10)
    mean = decision.weights @ decision.means
    np.testing.assert_allclose(squash(mean, decision.low, decision.high), decision.action, atol=1e-5)
    with pytest.raises(InterpError, match="step 999 is not in this episode"):
        explain_decision(study.agent, study.typical, 999)


def test_a_run_that_was_never_projected_is_refused(tmp_path):
    options = {"learning_starts": 50, "final_projection": False, "projection_interval": 0, "seed": 0}
    fresh = ProtoSAC("MlpPolicy", make_task_vec("pendulum", 1, 0), **options).learn(60)
    run = Run(fresh.save_run(tmp_path / "protosac-pendulum-s0"), {"env": "pendulum"})
    with pytest.raises(InterpError, match="never projected.*Train it to its end"):
        save_prototype_outputs(fresh, run, Outputs(tmp_path / "figures", run.name), episodes=1)


def test_all_outputs_of_a_run_are_saved(agent, tmp_path):
    """By the command, which does nothing but save them."""
    run_dir = agent.save_run(tmp_path / "protosac-pendulum-s0")
    assert main(["prototypes", str(run_dir), "--episodes", "2", "--out", str(tmp_path / "figures")]) == 0
    outputs = {output.name: output for output in saved_outputs(tmp_path / "figures")[run_dir.name]}
    kinds = {name: output.kind for name, output in outputs.items()}
    assert kinds == {
        "returns": "table", "prototype_gallery": "figure", "nearest_states": "figure", "state_map": "figure",
        "likeness": "figure", "likeness_table": "table",
        "decision_clear": "figure", "decision_divided": "figure", "prototype_usage": "figure",
        "explained_episode": "video", "explained_frame": "image", "prototypes": "table",
        "faithfulness": "figure", "faithfulness_controls": "table", "faithfulness_ablation": "table",
        "faithfulness_purity": "table", "leader_graph": "figure",
    }  # fmt: skip
    assert "n = 400 decisions in 2 episodes" in outputs["prototype_usage"].caption
    decisions = np.load(tmp_path / "figures" / run_dir.name / "decisions.npz")
    assert decisions["weights"].shape == decisions["similarities"].shape == (400, K)
    assert decisions["action"].shape == (400, 1) and decisions["seed"].tolist() == [0] * 200 + [1] * 200
    assert decisions["step"][-1] == 199 and decisions["reward"][:200].sum() == pytest.approx(
        record_episode(agent, "pendulum", 0).total
    )


def test_other_seeds_beside_a_run_are_compared_and_few_states_are_no_failure(agent, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("interp_lib.prototypes.outputs.even_steps", lambda length, most: [0, 1])  # a short video
    runs = [agent.save_run(tmp_path / f"protosac-pendulum-s{seed}") for seed in (0, 1)]
    config = runs[1] / "config.json"
    config.write_text(config.read_text().replace('"seed": 0', '"seed": 1'))
    full, figures = PrototypeStudy.record(agent, "pendulum", 1), tmp_path / "figures"
    short = [
        replace(trace, **{name: getattr(trace, name)[:60] for name in ("observations", "actions", "rewards", "weights",
                                                                       "similarities")})
        for trace in full.traces
    ]  # fmt: skip
    monkeypatch.setattr(PrototypeStudy, "record", lambda *_, **__: PrototypeStudy(agent, short))
    save_prototype_outputs(agent, Run(runs[0], {"env": "pendulum", "seed": 0}), Outputs(figures, "run"), episodes=1)
    names = {output.name for output in saved_outputs(figures)["run"]}
    assert "stability" in names and "prototypes" in names and "leader_graph" not in names
    assert "needs more than 90 states. Ask for more episodes." in capsys.readouterr().err
