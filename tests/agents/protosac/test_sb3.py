"""What users of Stable-Baselines3's SAC expect of SAC and ProtoSAC here, feature by feature."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3.common.callbacks import CallbackList, EvalCallback, StopTrainingOnMaxEpisodes
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecNormalize

from interp_lib.agents.protosac import SAC, ProtoSAC
from interp_lib.agents.protosac.actor import ProtoSACPolicy
from interp_lib.cli import main
from interp_lib.common.errors import InterpError
from interp_lib.envs.continuous import make_task, make_task_vec
from interp_lib.runs.training import LOCK

SMALL = dict(learning_starts=50, batch_size=32, buffer_size=2000, policy_kwargs={"net_arch": [32, 32]}, seed=0)
STATES = np.random.default_rng(0).uniform(-1, 1, (5, 3)).astype(np.float32)
both = pytest.mark.parametrize("algorithm", [SAC, ProtoSAC])


def actions(agent) -> np.ndarray:
    return agent.predict(STATES, deterministic=True)[0]


@both
@pytest.mark.parametrize("kind", ["dummy", "subprocesses"])
def test_vectorised_environments(algorithm, kind, tmp_path):
    factories = [lambda: Monitor(make_task("pendulum"))] * 2
    env = DummyVecEnv(factories) if kind == "dummy" else SubprocVecEnv(factories, start_method="fork")
    try:
        agent = algorithm("MlpPolicy", env, **SMALL).learn(70)
        assert agent.num_timesteps == 70 and agent.replay_buffer.pos == 35 and agent.n_envs == 2
        returns, lengths = evaluate_policy(agent, env, n_eval_episodes=2, return_episode_rewards=True)
        assert lengths == [200, 200] and all(-2000 < r < 0 for r in returns)
        agent.save_run(tmp_path, env="pendulum")
        np.testing.assert_array_equal(actions(algorithm.load_run(tmp_path)), actions(agent))
    finally:
        env.close()


@both
def test_callbacks_of_every_form(algorithm, tmp_path):
    agent = algorithm("MlpPolicy", make_task_vec("pendulum", seed=0), **SMALL)
    evaluation = EvalCallback(
        make_task_vec("pendulum", seed=1), n_eval_episodes=1, eval_freq=60, verbose=0,
        best_model_save_path=str(tmp_path), log_path=str(tmp_path),
    )  # fmt: skip
    agent.learn(10_000, callback=CallbackList([evaluation, StopTrainingOnMaxEpisodes(1)]))
    assert agent.num_timesteps == 200  # Pendulum's episodes
    assert np.load(tmp_path / "evaluations.npz")["timesteps"].tolist() == [60, 120, 180]
    assert actions(algorithm.load(tmp_path / "best_model.zip")).shape == (5, 1)

    seen = []
    agent.learn(
        1000, callback=lambda local, _: seen.append(local["self"]) or len(seen) < 7, reset_num_timesteps=False
    )  # fmt: skip
    assert len(seen) == 7 and seen[0] is agent and agent.num_timesteps == 207


@both
def test_parameters_and_replay_buffer_move_between_agents(algorithm, tmp_path):
    env = make_task_vec("pendulum", seed=0)
    agent = algorithm("MlpPolicy", env, **SMALL).learn(80)
    other = algorithm("MlpPolicy", env, **(SMALL | {"seed": 1}))
    assert not np.array_equal(actions(other), actions(agent))
    parameters = agent.get_parameters()
    assert {"policy", "actor.optimizer", "critic.optimizer", "ent_coef_optimizer"} <= set(parameters)
    other.set_parameters(parameters)
    np.testing.assert_array_equal(actions(other), actions(agent))
    for name, tensor in agent.critic.state_dict().items():
        assert torch.equal(other.critic.state_dict()[name], tensor), name
    step = other.critic.optimizer.state_dict()["state"][0]["step"]
    assert step == agent.critic.optimizer.state_dict()["state"][0]["step"] == 30
    with pytest.raises(ValueError, match="Names of parameters do not match"):
        other.set_parameters({"policy": parameters["policy"]})

    agent.save_replay_buffer(tmp_path / "replay.pkl")
    other.load_replay_buffer(tmp_path / "replay.pkl")
    np.testing.assert_array_equal(other.replay_buffer.actions[:80], agent.replay_buffer.actions[:80])
    other.set_env(env)
    other.learn(60)
    assert not np.array_equal(actions(other), actions(agent))


@both
def test_learning_goes_on_after_loading_where_it_stopped(algorithm, tmp_path):
    agent = algorithm("MlpPolicy", make_task_vec("pendulum", seed=0), **SMALL).learn(80)
    agent.save(tmp_path / "agent.zip")
    again = algorithm.load(tmp_path / "agent.zip", make_task_vec("pendulum", seed=0))
    assert again.num_timesteps == 80 and again._n_updates == agent._n_updates == 30
    again.learn(60, reset_num_timesteps=False)
    assert again.num_timesteps == 140
    assert again.critic.optimizer.state_dict()["state"][0]["step"] == 90


def test_a_policy_is_saved_and_loaded_alone(tmp_path):
    agent = ProtoSAC("MlpPolicy", make_task_vec("pendulum", seed=0), mixture="gmm", **SMALL).learn(70)
    agent.policy.save(tmp_path / "policy.pt")
    policy = ProtoSACPolicy.load(tmp_path / "policy.pt")
    np.testing.assert_array_equal(policy.predict(STATES, deterministic=True)[0], actions(agent))


def test_normalised_observations_are_what_prototypes_are_made_of():
    env = VecNormalize(make_task_vec("pendulum", seed=0))
    agent = ProtoSAC("MlpPolicy", env, n_prototypes=4, **SMALL).learn(90)
    p = agent.prototypes
    np.testing.assert_allclose(agent.encode(p.observations), p.latents, atol=1e-5)
    replay = env.normalize_obs(agent.replay_buffer.observations[:90, 0])
    assert all(np.isclose(replay, o, atol=1e-6).all(1).any() for o in p.observations)


@both
def test_nan_observations_of_an_environment_stop_training(algorithm):
    class Broken(gym.ObservationWrapper):
        def observation(self, observation):
            self.count = getattr(self, "count", 0) + 1
            return observation if self.count < 60 else np.full_like(observation, np.nan)

    with pytest.raises(InterpError, match="the observation holds 3 NaN"):
        algorithm("MlpPolicy", Broken(gym.make("Pendulum-v1")), **SMALL).learn(200)


@both
def test_bad_arguments_are_one_line_on_the_command_line(algorithm, tmp_path, capsys):
    name = algorithm.algorithm
    wrong = {
        "learning_rate=0": "must be above 0", "batch=3": "Did you mean batch_size", "learning_rate=inf": "above 0",
        "batch_size=1e999": "of type int", "batch_size=0": "at least 1", "gamma=nan": "must be a number",
        "buffer_size=1e15": "not enough memory", "net_arch=0,5": "at least 1 unit", "net_arch=10000000000,8": "memory",
        "ent_coef=much": "'auto_0.1'", "ent_coef=auto_-1": "'auto_0.1'", "train_freq=0": "at least 1",
        "policy=Evil": "unknown policy", "policy=CnnPolicy": "needs images", "n_envs=100000": "at most 1024",
        "action_noise=ou_nan": "unknown action noise", "gradient_steps=-7": "at least -1",
    }  # fmt: skip
    if algorithm is ProtoSAC:
        wrong |= {"n_prototypes=0": "at least 1 prototype", "mixture=sum": "blend, gmm"}
    for setting, message in wrong.items():
        assert main(["train", name, "pendulum", "--run-dir", str(tmp_path / "run"), "--set", setting]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and message in error
    assert {path.name for path in (tmp_path / "run").iterdir()} <= {LOCK}  # nothing that a second try would trip over


def test_random_numbers_of_a_seeded_agent_repeat():
    first, second = (
        ProtoSAC("MlpPolicy", make_task_vec("pendulum", seed=0), **SMALL).learn(70).policy.state_dict() for _ in "12"
    )
    assert all(torch.equal(first[name], second[name]) for name in first)
