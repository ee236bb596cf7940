"""The seven continuous tasks: spaces, names, seeds, rendering."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3.common.env_checker import check_env

from interp_lib.common.errors import InterpError
from interp_lib.envs.continuous import TASKS, _grey_road, make_task, make_task_vec, task_info, task_of
from interp_lib.envs.names import CONTINUOUS_TASKS


@pytest.mark.parametrize("name", CONTINUOUS_TASKS)
def test_every_task_steps_and_its_dimensions_have_names(name):
    env, info = make_task(name, seed=0), task_info(name)
    observation, _ = env.reset()
    assert env.observation_space.contains(observation)
    assert len(info.action_names) == len(set(info.action_names)) == env.action_space.shape[0]
    if info.image:
        assert (observation.shape, observation.dtype) == ((4, 64, 64), np.uint8)
        assert info.observation_names == ()
    else:
        assert observation.dtype == np.float32
        assert len(info.observation_names) == len(set(info.observation_names)) == observation.size
    for _ in range(3):
        observation, reward, *_ = env.step(env.action_space.sample())
        assert env.observation_space.contains(observation) and np.isfinite(reward)
    assert task_of(env) == name == task_info(info.gym_id).name
    env.close()


def test_names_of_mujoco_dimensions_are_those_of_the_model():
    short = {"back": "b", "front": "f"}
    for name in ("halfcheetah", "hopper", "humanoid"):
        env = make_task(name)
        model, info = env.unwrapped.model, TASKS[name]
        joints = [model.joint(model.actuator_trnid[i, 0]).name for i in range(model.nu)]
        ours = [n.removesuffix(" torque") for n in info.action_names]
        if name == "halfcheetah":
            ours = [short[side] + part for side, part in (n.split() for n in ours)]
        if name == "hopper":
            ours = [f"{n}_joint" for n in ours]
        assert [n.replace(" ", "_") for n in ours] == joints
        env.close()

    humanoid = make_task("humanoid")
    structure = humanoid.unwrapped.observation_structure
    names = TASKS["humanoid"].observation_names
    model = humanoid.unwrapped.model
    hinges = [model.joint(i).name.replace("_", " ") for i in range(1, model.njnt)]
    assert [n.removesuffix(" angle") for n in names[5 : structure["qpos"]]] == hinges
    start = structure["qpos"] + 6
    end = structure["qpos"] + structure["qvel"]
    assert [n.removesuffix(" angular velocity") for n in names[start:end]] == hinges
    assert sum("inertia" in n or n.endswith((" mass", " com x", " com y", " com z")) for n in names) == 130


def test_wrapped_tasks_pass_the_checker_of_stable_baselines():
    for name in ("hopper", "mountaincar"):
        check_env(make_task(name), warn=False)


def test_seeds_repeat_an_episode():
    def rollout(seed: int) -> np.ndarray:
        env = make_task_vec("pendulum", 2, seed)
        first = env.reset()
        return np.stack([first] + [env.step(np.full((2, 1), 0.5, np.float32))[0] for _ in range(5)])

    np.testing.assert_array_equal(rollout(3), rollout(3))
    assert not np.array_equal(rollout(3), rollout(4))
    assert not np.array_equal(rollout(3)[:, 0], rollout(3)[:, 1])


def test_an_action_is_held_and_its_rewards_are_added_on_carracing():
    env = make_task("carracing", seed=1)
    env.reset(seed=1)
    action = np.array([0.0, 0.5, 0.0], np.float32)
    frames, reward, *_ = env.step(action)
    raw = env.unwrapped
    raw.reset(seed=1)
    assert reward == pytest.approx(sum(raw.step(action)[1] for _ in range(4)))
    assert frames[-1].std() > 5  # a road, not a blank picture
    env.close()


def test_carracing_shows_the_frames_that_drawing_every_step_would():
    env = make_task("carracing", seed=1)
    every = gym.make("CarRacing-v3")
    frames, drawn = [env.reset(seed=1)[0][-1]], [every.reset(seed=1)[0]]
    for action in np.array([[0.0, 0.9, 0.0], [0.5, 0.5, 0.0], [-1.0, 0.0, 0.3]], np.float32):
        frames.append(env.step(action)[0][-1])
        drawn.append([every.step(action)[0] for _ in range(4)][-1])
    np.testing.assert_array_equal(frames, [_grey_road(frame) for frame in drawn])
    off = env.unwrapped.car.hull  # out of the field an episode ends within a held action, and its last frame is drawn
    off.position = (10_000.0, 0.0)
    last, reward, terminated, *_ = env.step(np.zeros(3, np.float32))
    assert terminated and reward == pytest.approx(-100, abs=5) and not np.array_equal(last[-1], last[-2])
    every.close()
    env.close()


def test_frames_have_the_size_asked_for():
    for name, size in (("pendulum", (120, 90)), ("lunarlander", None)):
        env = make_task(name, render=True, frame_size=size, seed=0)
        frame = env.render()
        assert frame.dtype == np.uint8 and frame.std() > 0
        assert frame.shape == ((90, 120, 3) if size else (400, 600, 3))
        env.close()


# Gymnasium's half-made viewer complains once more when it is collected.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_without_opengl_mujoco_steps_and_only_rendering_says_what_to_install(monkeypatch):
    env = make_task("hopper", render=True, seed=0)
    monkeypatch.setenv("MUJOCO_GL", "none-such")
    env.step(env.action_space.sample())
    with pytest.raises(InterpError, match="apt-get install libegl1"):
        env.render()


def test_wrong_names_and_counts():
    with pytest.raises(InterpError, match="Did you mean hopper"):
        make_task("hoper")
    with pytest.raises(InterpError, match="n_envs is 0"):
        make_task_vec("pendulum", 0)


@pytest.mark.parametrize("n_envs", [1, 2])
@pytest.mark.parametrize("seed", [0, 3])
def test_one_evaluation_episode_an_environment_starts_as_training_did(seed, n_envs):
    vec = make_task_vec("pendulum", n_envs, seed)
    starts = list(vec.reset())
    starts += [env.reset()[0] for env in vec.envs for _ in range(100)]
    evaluated = make_task("pendulum")
    same = [i for i in range(50) if any(np.array_equal(evaluated.reset(seed=i)[0], start) for start in starts)]
    assert same == [seed + i for i in range(n_envs)]
