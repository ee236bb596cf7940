"""What Stable-Baselines3's own tests expect of an algorithm, tried with ProtoSAC in SAC's place."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.wrappers import FlattenObservation
from stable_baselines3 import SAC as SB3SAC
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize
from torch import nn

from interp_lib.agents.protosac import SAC, ProtoSAC
from interp_lib.common.errors import InterpError
from interp_lib.envs.continuous import make_task_vec

SMALL = dict(learning_starts=30, batch_size=16, buffer_size=500, policy_kwargs={"net_arch": [32, 32]}, seed=0)
PROTOTYPES = dict(n_prototypes=5, latent_dim=8)
STATES = np.random.default_rng(0).uniform(-1, 1, (7, 3)).astype(np.float32)
both = pytest.mark.parametrize("algorithm", [SAC, ProtoSAC])


def protosac(env=None, **options) -> ProtoSAC:
    env = make_task_vec("pendulum", 1, 0) if env is None else env
    return ProtoSAC("MlpPolicy", env, **(SMALL | PROTOTYPES | options))


class Regularised(BaseFeaturesExtractor):
    """Batch norm and dropout, as Stable-Baselines3's test of training modes has them."""

    def __init__(self, observation_space):
        super().__init__(observation_space, 16)
        width = observation_space.shape[0]
        self.layers = nn.Sequential(nn.BatchNorm1d(width), nn.Linear(width, 16), nn.ReLU(), nn.Dropout(0.5))

    def forward(self, observations):
        return self.layers(observations)


@pytest.mark.parametrize("learning_starts", [0, 30])
@pytest.mark.parametrize("imitation_epochs", [0, 3])
def test_prototypes_are_what_the_acting_policy_sees(learning_starts, imitation_epochs):
    kwargs = {"net_arch": [32, 32], "features_extractor_class": Regularised}
    agent = protosac(learning_starts=learning_starts, policy_kwargs=kwargs, imitation_epochs=imitation_epochs)
    agent.learn(90)
    for _ in range(2):
        p = agent.prototypes
        np.testing.assert_allclose(agent.encode(p.observations), p.latents, atol=1e-5)
        np.testing.assert_array_equal(agent.explain(p.observations).prototype_ids[:, 0], np.arange(5))
        agent.policy.set_training_mode(True)
        agent.project()
        assert agent.actor.training  # as it was
    agent.place_prototypes(STATES[:5], visited=STATES)
    np.testing.assert_allclose(agent.encode(STATES[:5]), agent.prototypes.latents, atol=1e-5)


@pytest.mark.parametrize("frozen", ["encoder.0", "encoder.0.weight", "means", "means and log_stds", "all"])
def test_frozen_parts_of_the_actor_stay_and_the_others_learn(frozen):
    agent = protosac(batch_size=64, learning_starts=70)
    named = dict(agent.actor.named_parameters())
    held = {n for n in named if frozen == "all" or any(n.startswith(part) for part in frozen.split(" and "))}
    for name in held:
        named[name].requires_grad_(False)
    before = {name: value.detach().clone() for name, value in named.items()}
    agent.learn(80)
    for name, value in named.items():
        if name != "prototypes":  # projection moves them, frozen or not
            assert torch.equal(value, before[name]) == (name in held), name


class Shaped(gym.Env):
    """Actions of shape (2, 2)."""

    observation_space = spaces.Box(-1, 1, (3,), np.float32)
    action_space = spaces.Box(np.array([[-1, -2], [-3, -4]], np.float32), np.array([[1, 2], [3, 5]], np.float32))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return self.observation_space.sample(), {}

    def step(self, action):
        assert action.shape == (2, 2)
        self.steps += 1
        return self.observation_space.sample(), float(action.sum()), False, self.steps == 20, {}


@pytest.mark.parametrize("mixture", ["blend", "gmm"])
def test_actions_keep_their_shape(mixture, tmp_path):
    agent = protosac(Shaped(), mixture=mixture).learn(60)
    e, p = agent.explain(STATES), agent.prototypes
    assert e.action.shape == (7, 2, 2) and p.actions.shape == (5, 2, 2) and p.action_means.shape == (5, 4)
    np.testing.assert_allclose(e.action, agent.predict(STATES, deterministic=True)[0], rtol=1e-5, atol=1e-6)
    space = Shaped.action_space
    expected = space.low + (np.tanh(p.action_means).reshape(5, 2, 2) + 1) / 2 * (space.high - space.low)
    np.testing.assert_allclose(p.actions, expected, rtol=1e-5, atol=1e-6)
    observations = agent.policy.obs_to_tensor(STATES)[0]
    assert agent.critic(observations, agent.actor(observations, deterministic=True))[0].shape == (7, 1)
    again = ProtoSAC.load_run(agent.save_run(tmp_path, env="shaped"))
    np.testing.assert_array_equal(again.explain(STATES).action, e.action)


@pytest.mark.parametrize("optimizer", [torch.optim.RMSprop, torch.optim.RAdam, torch.optim.SGD, torch.optim.Adam])
def test_any_optimizer_will_do(optimizer, tmp_path):
    agent = protosac(policy_kwargs={"net_arch": [32, 32], "optimizer_class": optimizer}).learn(50)
    assert type(agent.actor.optimizer) is type(agent.critic.optimizer) is optimizer
    agent.save(tmp_path / "agent.zip")
    again = ProtoSAC.load(tmp_path / "agent.zip", make_task_vec("pendulum", 1, 0)).learn(40)
    assert type(again.actor.optimizer) is optimizer


@both
def test_a_replay_buffer_loaded_after_load_run_is_kept(algorithm, tmp_path):
    agent = algorithm("MlpPolicy", make_task_vec("pendulum", 2, 0), **SMALL).learn(60)
    agent.save_run(tmp_path / "run", env="pendulum")
    agent.save_replay_buffer(tmp_path / "replay.pkl")
    for env_first in (True, False):
        again = algorithm.load_run(tmp_path / "run")
        if env_first:
            again.set_env(make_task_vec("pendulum", 2, 0))
        again.load_replay_buffer(tmp_path / "replay.pkl")
        if not env_first:
            again.set_env(make_task_vec("pendulum", 2, 0))
        again.learn(20)
        assert again.replay_buffer.pos == 40 and again.buffer_size == 500
        np.testing.assert_array_equal(again.replay_buffer.actions[:30], agent.replay_buffer.actions[:30])


def test_prototype_settings_within_policy_kwargs_are_refused():
    for name, value in (("n_prototypes", 8), ("mixture", "gmm"), ("latent_dim", 4), ("temperature", 1.0)):
        with pytest.raises(InterpError, match=f"Pass {name}=…, not within policy_kwargs"):
            protosac(policy_kwargs={name: value})


@both
def test_a_run_goes_on_in_any_number_of_environments(algorithm, tmp_path):
    agent = algorithm("MlpPolicy", make_task_vec("pendulum", 1, 0), **SMALL).learn(40)
    agent.save_run(tmp_path)
    four = make_task_vec("pendulum", 4, 0)
    again = algorithm.load_run(tmp_path, env=four)
    again.learn(40)
    assert again.n_envs == 4 and again.replay_buffer.observations.shape == (125, 4, 3) and again.replay_buffer.pos == 10
    later = algorithm.load_run(tmp_path)
    later.set_env(four)
    later.learn(40)
    assert later.replay_buffer.pos == 10


class Named(gym.Env):
    """Dict observations."""

    observation_space = spaces.Dict({"a": spaces.Box(-1, 1, (2,)), "b": spaces.Box(-1, 1, (3,))})
    action_space = spaces.Box(-1, 1, (1,))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.observation_space.sample(), {}

    def step(self, action):
        return self.observation_space.sample(), 0.0, False, False, {}


def test_dict_observations_are_refused_with_a_way_out():
    for policy in ("MlpPolicy", "MultiInputPolicy"):
        with pytest.raises(InterpError, match="FlattenObservation and use MlpPolicy"):
            ProtoSAC(policy, Named(), **SMALL)
    agent = ProtoSAC("MlpPolicy", FlattenObservation(Named()), **(SMALL | PROTOTYPES)).learn(40)
    assert agent.prototypes.observations.shape == (5, 5)


class Bytes(Named):
    """Numbers from 0 to 255 that are no image."""

    observation_space = spaces.Box(0, 255, (6,), np.uint8)


@pytest.mark.parametrize("normalised", [False, True])
def test_prototypes_of_byte_observations_are_the_states_the_policy_saw(normalised, tmp_path):
    env = DummyVecEnv([Bytes])
    agent = protosac(VecNormalize(env) if normalised else env).learn(60)
    p = agent.prototypes
    assert normalised == bool((p.observations != np.round(p.observations)).any())
    np.testing.assert_allclose(agent.encode(p.observations), p.latents, atol=1e-5)
    agent.save(tmp_path / "agent.zip")
    again = ProtoSAC.load(tmp_path / "agent.zip")
    np.testing.assert_array_equal(again.prototypes.observations, p.observations)
    run = ProtoSAC.load_run(agent.save_run(tmp_path / "run", env="bytes"))
    np.testing.assert_array_equal(run.prototypes.observations, p.observations)


def test_a_zip_of_the_other_algorithm_is_refused_or_read_right(tmp_path):
    prototypes = protosac(mixture="gmm", n_prototypes=16, temperature=0.9).learn(50)
    prototypes.save(tmp_path / "protosac.zip")
    SAC("MlpPolicy", make_task_vec("pendulum"), **SMALL).save(tmp_path / "sac.zip")
    with pytest.raises(InterpError, match="a policy of ProtoSAC, not SAC. Use ProtoSAC, or ProtoSAC.load"):
        SAC.load(tmp_path / "protosac.zip")
    with pytest.raises(InterpError, match="a policy of SAC, not ProtoSAC. Use SAC, or SAC.load"):
        ProtoSAC.load(tmp_path / "sac.zip")
    # Stable-Baselines3's own class can't know; it gets the whole policy.
    expected = prototypes.predict(STATES, deterministic=True)[0]
    theirs = SB3SAC.load(tmp_path / "protosac.zip")
    np.testing.assert_array_equal(theirs.predict(STATES, deterministic=True)[0], expected)
    assert (theirs.actor.mixture, theirs.actor.temperature) == ("gmm", 0.9)
    again = ProtoSAC.load(tmp_path / "protosac.zip", policy_kwargs=prototypes.policy_kwargs)
    np.testing.assert_array_equal(again.predict(STATES, deterministic=True)[0], expected)
    assert again.policy_kwargs == prototypes.policy_kwargs == SMALL["policy_kwargs"] | {"use_sde": False}
    with pytest.raises(ValueError, match="policy kwargs"):
        ProtoSAC.load(tmp_path / "protosac.zip", policy_kwargs={"net_arch": [8]})


@both
def test_nan_is_found_in_lists_too(algorithm):
    agent = algorithm("MlpPolicy", make_task_vec("pendulum"), **SMALL)
    reads = [agent.predict]
    if algorithm is ProtoSAC:
        reads += [agent.explain, agent.encode]
    for read in reads:
        for observation in ([0.0, float("nan"), 0.0], [[0.0, 0.0, 0.0], [float("nan")] * 3]):
            with pytest.raises(InterpError, match="NaN. Mend the environment"):
                read(observation)
        read([0.0, 1.0, 0.0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_prototypes": 2.5}, "n_prototypes is 2.5; it must be a whole number"),
        ({"n_prototypes": "8"}, "n_prototypes is '8'; it must be a whole number"),
        ({"n_prototypes": True}, "it must be a whole number"),
        ({"latent_dim": 0}, "latent_dim is 0; latents need at least 2"),
        ({"temperature": float("nan")}, "temperature is nan; it must be a number"),
        ({"projection_candidates": 0}, "projection_candidates is 0; it must be at least 1"),
        ({"projection_interval": -1}, "projection_interval is -1; it must be at least 0"),
        ({"imitation_epochs": -1}, "imitation_epochs is -1; it must be at least 0"),
        ({"usage_weight": -0.1}, "usage_weight is -0.1; it must be at least 0"),
        ({"cluster_weight": float("inf")}, "cluster_weight is inf; it must be a number"),
        ({"final_projection": "yes"}, "final_projection is 'yes'; it must be true or false"),
        ({"batch_size": 0}, "batch_size is 0; it must be at least 1"),
        ({"buffer_size": 10**15}, "not enough memory for a replay buffer of 1,000,000,000,000,000 steps"),
        ({"policy_kwargs": {"net_arch": [10**8, 10**8]}}, "not enough memory"),
    ],
)
def test_settings_out_of_range_are_named(options, message):
    with pytest.raises(InterpError, match=message):
        protosac(**options)


def test_numbers_of_numpy_are_numbers():
    agent = protosac(n_prototypes=np.int64(4), temperature=np.float32(0.5), buffer_size=np.int64(100))
    assert agent.learn(40).prototypes.latents.shape == (4, 3)


def test_what_differs_from_stable_baselines_is_documented_and_so():
    for words in ("callbacks", "imitation", "``target_update_interval``", "gsde", "``multiinputpolicy``"):
        assert words in ProtoSAC.__doc__.lower(), words
    seen = []
    agent = protosac(target_update_interval=3, projection_interval=0)
    agent.learn(34, callback=lambda local, _: seen.append(local["self"].prototypes.projected) or True)
    assert not any(seen) and len(seen) == 34 and agent.prototypes.projected  # only after learn
    target = {n: t.clone() for n, t in agent.critic_target.state_dict().items()}
    moved = []
    for _ in range(6):
        agent.train(1, 16)
        now = agent.critic_target.state_dict()
        moved.append(any(not torch.equal(now[n], t) for n, t in target.items()))
        target = {n: t.clone() for n, t in now.items()}
    assert sum(moved) == 2 and moved[:3] == moved[3:]  # every third gradient step, whichever call of train it is in
