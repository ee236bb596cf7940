"""ProtoSAC and SAC as Stable-Baselines3 algorithms: updates, introspection, saving, errors."""

from __future__ import annotations

import json

import gymnasium as gym
import numpy as np
import pytest
import torch
from captures import failing, recording
from gymnasium import spaces
from stable_baselines3 import SAC as SB3SAC
from stable_baselines3.common.callbacks import CheckpointCallback
from stable_baselines3.common.evaluation import evaluate_policy
from torch import nn

from interp_lib.agents.protosac import SAC, ProtoSAC
from interp_lib.agents.protosac.config import make_noise, make_schedule
from interp_lib.agents.protosac.losses import auxiliary_loss
from interp_lib.agents.protosac.vision import SmallCNN
from interp_lib.common.compute import has_cpp_compiler
from interp_lib.common.errors import InterpError
from interp_lib.envs.continuous import make_task_vec

SMALL = dict(learning_starts=50, batch_size=32, buffer_size=2000, policy_kwargs={"net_arch": [32, 32]}, seed=0)
STATES = np.random.default_rng(0).uniform(-1, 1, (7, 3)).astype(np.float32)


def protosac(n_envs: int = 1, **options) -> ProtoSAC:
    env = make_task_vec("pendulum", n_envs, 0)
    return ProtoSAC("MlpPolicy", env, **(SMALL | dict(n_prototypes=6, latent_dim=8) | options))


@pytest.fixture(scope="module")
def trained() -> ProtoSAC:
    """A blend agent after 150 steps; tests must not change it."""
    return protosac().learn(150)


@pytest.mark.parametrize(
    ("policy_kwargs", "ent_coef"),
    [
        ({"net_arch": [32, 32]}, "auto"),
        ({"net_arch": [96, 64]}, "auto_0.3"),
        ({"net_arch": {"pi": [80], "qf": [64, 64]}, "share_features_extractor": True}, 0.2),
        (
            {"net_arch": [32, 32], "activation_fn": nn.Tanh, "n_critics": 3},
            "auto",
        ),  # not a network that kernels.py speeds up
    ],
)
def test_without_auxiliary_losses_an_update_is_exactly_that_of_sac(policy_kwargs, ent_coef):
    off = {f"{name}_weight": 0.0 for name in ("cluster", "coverage", "separation", "sharpness", "usage")}
    options = off | {"space": "encoder", "ent_coef": ent_coef, "policy_kwargs": policy_kwargs, "latent_dim": 64}
    ours, theirs = (protosac(**options, final_projection=False).learn(60) for _ in range(2))
    for agent, train in ((ours, ProtoSAC.train), (theirs, SB3SAC.train)):
        np.random.seed(5)
        torch.manual_seed(5)
        train(agent, 3, 32)
    for name in ("actor_loss", "critic_loss", "ent_coef", *(["ent_coef_loss"] if ent_coef != 0.2 else [])):
        expected = theirs.logger.name_to_value[f"train/{name}"]
        assert ours.logger.name_to_value[f"train/{name}"] == pytest.approx(expected, rel=1e-4, abs=1e-6), name
    pairs = zip(ours.policy.state_dict().items(), theirs.policy.state_dict().values(), strict=True)
    for (name, got), expected in pairs:
        if name != "actor.projected":
            torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-4, msg=name)
    if ent_coef != 0.2:
        torch.testing.assert_close(ours.log_ent_coef, theirs.log_ent_coef)


@pytest.mark.parametrize(
    ("policy_kwargs", "ent_coef"),
    [
        ({"net_arch": [32, 32]}, "auto"),
        ({"net_arch": {"pi": [80], "qf": [64, 64]}, "n_critics": 3}, 0.2),
        ({"net_arch": {"pi": [16], "qf": [32]}, "activation_fn": nn.Tanh}, "auto_0.5"),
    ],
)
def test_an_update_of_the_baseline_is_that_of_stable_baselines(policy_kwargs, ent_coef):
    # Up to the 1e-6 that SB3 adds within log(1 − tanh²u), which is exact here.
    options = SMALL | {"policy_kwargs": policy_kwargs, "ent_coef": ent_coef}
    ours, theirs = (SAC("MlpPolicy", make_task_vec("pendulum", 1, 0), **options).learn(60) for _ in range(2))
    for agent, train in ((ours, SAC.train), (theirs, SB3SAC.train)):
        np.random.seed(5)
        torch.manual_seed(5)
        train(agent, 3, 32)
    for name in ("actor_loss", "critic_loss", "ent_coef"):
        expected = theirs.logger.name_to_value[f"train/{name}"]
        assert ours.logger.name_to_value[f"train/{name}"] == pytest.approx(expected, rel=1e-4, abs=1e-5), name
    for (name, got), expected in zip(
        ours.policy.state_dict().items(), theirs.policy.state_dict().values(), strict=True
    ):
        torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-4, msg=name)


@pytest.mark.skipif(not has_cpp_compiler(), reason="torch.compile needs a C++ compiler")
@pytest.mark.parametrize("mixture", ["blend", pytest.param("gmm", marks=pytest.mark.slow)])
def test_a_compiled_update_is_the_same_update(mixture):
    # A compiled choice of component draws other numbers than an eager one: leave one to choose from.
    options = {"n_prototypes": 1} if mixture == "gmm" else {}
    agents = [protosac(mixture=mixture, final_projection=False, **options).learn(60) for _ in range(2)]
    for agent, compiled in zip(agents, (True, False), strict=True):
        agent.compile, agent._gradients = compiled, None
        torch.manual_seed(5)
        np.random.seed(5)
        agent.train(3, 32)
    assert all(gradients.fast for gradients in agents[0]._gradients)
    first, second = (agent.policy.state_dict() for agent in agents)
    for name, got in first.items():
        torch.testing.assert_close(got, second[name], atol=2e-5, rtol=1e-3, msg=name)


@pytest.mark.parametrize(("algorithm", "gradient_steps"), [(SAC, 1), (ProtoSAC, 3)])
def test_an_update_whose_gradients_are_captured_is_the_same_update_to_the_bit(algorithm, gradient_steps, capsys):
    env = make_task_vec("pendulum", 1, 0)
    own = {"final_projection": False, "n_prototypes": 6} if algorithm is ProtoSAC else {}
    plain, fast = (algorithm("MlpPolicy", env, **SMALL | own).learn(60) for _ in range(2))
    fast._gradients = fast._choose_gradients(capture=recording)
    for batch_size in (32, 32, 16):  # of another size than the captured one: as it is
        for agent in (plain, fast):
            torch.manual_seed(5)
            np.random.seed(5)
            agent.train(gradient_steps, batch_size)
        losses = {name: value for name, value in plain.logger.name_to_value.items() if name.startswith("train/")}
        assert losses.items() <= fast.logger.name_to_value.items() and len(losses) > 4
    for name, weights in plain.policy.state_dict().items():
        assert torch.equal(weights, fast.policy.state_dict()[name]), name
    assert all(gradients.fast for gradients in fast._gradients) and capsys.readouterr().err == ""
    frozen = fast.policy.critic_parameters[0].requires_grad_(False)  # by the user: what was captured would move it
    before = frozen.clone()
    fast.train(1, 32)
    assert torch.equal(frozen, before)


@pytest.mark.parametrize("fails", ["capturing", "compiling"])
def test_an_update_that_cannot_be_made_faster_runs_as_it_is(fails, monkeypatch, capsys):
    plain, failed = (protosac(final_projection=False).learn(60) for _ in range(2))
    if fails == "capturing":
        failed._gradients = failed._choose_gradients(capture=failing)
    else:
        monkeypatch.setattr(torch, "compile", lambda function, **options: failing)
        failed.compile, failed._gradients = True, None
    for agent in (plain, failed):
        torch.manual_seed(5)
        np.random.seed(5)
        agent.train(3, 32)
    for name, weights in plain.policy.state_dict().items():
        assert torch.equal(weights, failed.policy.state_dict()[name]), name
    lines = capsys.readouterr().err.splitlines()
    for line, whose in zip(lines, ("critics'", "actor's"), strict=True):
        assert line.startswith(f"the {whose} gradient could not be") and "runs as it is, slower" in line


def test_gaussians_stay_where_gradients_reach_them():
    agent = protosac().learn(60)
    with torch.no_grad():
        agent.actor.means.fill_(40.0)
        agent.actor.log_stds.fill_(20.0)  # beyond the limit: its gradient is 0, and it would stay there
    agent.train(1, 32)
    before = agent.actor.log_stds.detach().clone()
    assert agent.actor.means.abs().max() <= 5 and before.max() <= 2
    agent.train(5, 32)
    assert (agent.actor.log_stds < before).all()
    agent.project(imitation_epochs=2)
    assert agent.actor.means.abs().max() <= 5 and -5 <= agent.actor.log_stds.min() <= agent.actor.log_stds.max() <= 2


@pytest.mark.parametrize("weight", ["cluster", "coverage", "separation", "sharpness", "usage"])
def test_every_auxiliary_loss_pulls_its_own_way(weight):
    off = {f"{name}_weight": 0.0 for name in ("cluster", "coverage", "separation", "sharpness", "usage")}
    agent = protosac(**off | {f"{weight}_weight": 1.0}, separation_margin=2.0)
    agent.learn(60)

    def loss() -> torch.Tensor:
        comparison = agent.actor.compare(torch.as_tensor(STATES))
        return auxiliary_loss(agent.policy, comparison, agent._auxiliary_weights())[0]

    before = loss()
    before.backward()
    with torch.no_grad():
        for parameter in agent.actor.parameters():
            if parameter.grad is not None:
                parameter -= 1e-3 * parameter.grad
    assert loss().item() < before.item()


@pytest.mark.parametrize("mixture", ["blend", "gmm"])
def test_explanations_account_for_the_deterministic_action(mixture):
    agent = protosac(mixture=mixture).learn(80)
    e = agent.explain(STATES)
    assert e.weights.shape == e.similarities.shape == e.prototype_ids.shape == (7, 6)
    assert e.component_means.shape == e.component_stds.shape == (6, 1)
    np.testing.assert_allclose(e.weights.sum(1), 1, rtol=1e-5)
    np.testing.assert_allclose(e.weights, torch.softmax(torch.tensor(e.similarities) / agent.temperature, 1), rtol=1e-4)
    ordered = np.take_along_axis(e.weights, e.prototype_ids, 1)
    assert (np.diff(ordered, axis=1) <= 0).all()

    u = e.weights @ e.component_means if mixture == "blend" else e.component_means[e.prototype_ids[:, 0]]
    np.testing.assert_allclose(e.action, 2 * np.tanh(u), rtol=1e-4, atol=1e-6)  # torque is in [−2, 2]
    np.testing.assert_allclose(e.action, agent.predict(STATES, deterministic=True)[0], rtol=1e-5)
    one = agent.explain(STATES[0])
    assert one.weights.shape == (1, 6)
    np.testing.assert_allclose(one.action[0], e.action[0], rtol=1e-4)


def test_prototypes_are_seen_states_after_learning(trained):
    p = trained.prototypes
    assert p.projected
    assert (p.latents.shape, p.observations.shape, p.action_means.shape) == ((6, 3), (6, 3), (6, 1))
    replay = trained.replay_buffer.observations[: trained.replay_buffer.pos, 0]
    assert all((replay == o).all(1).any() for o in p.observations)
    np.testing.assert_allclose(trained.encode(p.observations), p.latents, atol=1e-5)
    np.testing.assert_allclose(p.actions, 2 * np.tanh(p.action_means), rtol=1e-5)
    assert (p.action_stds > 0).all()


def test_projection_while_training_and_acting_with_the_free_prototypes():
    agent = protosac(projection_interval=20, final_projection=False)
    projections = []
    original = agent.project
    agent.project = lambda: projections.append(agent.num_timesteps) or original()
    agent.learn(120)
    del agent.project
    assert projections == [51, 71, 91, 111]
    assert agent.prototypes.observations is not None and not agent.prototypes.projected

    free = agent.predict(STATES, deterministic=True)[0]
    agent.project()
    projected = agent.predict(STATES, deterministic=True)[0]
    assert not np.allclose(free, projected)
    with agent.free_prototypes():
        np.testing.assert_allclose(agent.predict(STATES, deterministic=True)[0], free, rtol=1e-4)
    np.testing.assert_array_equal(agent.predict(STATES, deterministic=True)[0], projected)

    agent.place_prototypes(STATES[:6])
    np.testing.assert_array_equal(agent.prototypes.observations, STATES[:6])
    assert agent.project(STATES[:5]) is None
    with pytest.raises(InterpError, match="one a prototype"):
        agent.place_prototypes(STATES)


@pytest.mark.parametrize("algorithm", [SAC, ProtoSAC])
def test_zip_and_run_folder_give_back_the_same_agent(algorithm, tmp_path):
    agent = algorithm("MlpPolicy", make_task_vec("pendulum", 1, 0), **SMALL).learn(80)
    expected = agent.predict(STATES, deterministic=True)[0]

    agent.save(tmp_path / "agent.zip")
    env = make_task_vec("pendulum", 1, 1)
    from_zip = algorithm.load(tmp_path / "agent.zip", env)
    np.testing.assert_array_equal(from_zip.predict(STATES, deterministic=True)[0], expected)

    agent.save_run(tmp_path / "run")
    from_run = algorithm.load_run(tmp_path / "run")
    assert from_run.env is None and from_run.num_timesteps == 80
    np.testing.assert_array_equal(from_run.predict(STATES, deterministic=True)[0], expected)
    if algorithm is ProtoSAC:
        for again in (from_zip, from_run):
            for field, value in vars(agent.prototypes).items():
                np.testing.assert_array_equal(getattr(again.prototypes, field), value)
            np.testing.assert_array_equal(again.explain(STATES).weights, agent.explain(STATES).weights)

    # A release of a release is the same release.
    from_run.save_run(tmp_path / "again")
    assert (tmp_path / "again/policy.safetensors").read_bytes() == (tmp_path / "run/policy.safetensors").read_bytes()
    configs = [json.loads((tmp_path / d / "config.json").read_text()) for d in ("run", "again")]
    assert configs[0]["hyperparameters"] == configs[1]["hyperparameters"]
    assert (configs[0]["algorithm"], configs[0]["env"]) == (algorithm.algorithm, "pendulum")

    other = algorithm("MlpPolicy", env, **(SMALL | {"seed": 3}))
    other.set_parameters(tmp_path / "agent.zip")
    np.testing.assert_array_equal(other.predict(STATES, deterministic=True)[0], expected)

    for loaded in (from_zip, from_run):
        if loaded.env is None:
            loaded.set_env(env)
        loaded.learn(70)
        assert loaded.replay_buffer.buffer_size == SMALL["buffer_size"]
        assert not np.array_equal(loaded.predict(STATES, deterministic=True)[0], expected)


def test_loading_a_run_leaves_the_random_generators_alone(trained, tmp_path):
    trained.save_run(tmp_path)
    np.random.seed(1)
    torch.manual_seed(1)
    expected = np.random.rand(), torch.rand(1).item()
    np.random.seed(1)
    torch.manual_seed(1)
    loaded = ProtoSAC.load_run(tmp_path)
    assert loaded.seed == trained.seed == 0
    assert (np.random.rand(), torch.rand(1).item()) == expected


def test_learning_leaves_no_folder_where_nothing_is_logged(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    agent = SAC("MlpPolicy", make_task_vec("pendulum", 1, 0), **SMALL).learn(60)
    assert list(tmp_path.iterdir()) == [] and agent.logger.name_to_value
    monkeypatch.setenv("SB3_LOGDIR", str(tmp_path / "log"))  # asked for later
    agent.learn(60, reset_num_timesteps=False)
    assert (tmp_path / "log").is_dir()


def test_vectorised_envs_callbacks_and_evaluate_policy(tmp_path):
    agent = protosac(n_envs=2)
    agent.learn(120, callback=CheckpointCallback(60, tmp_path))
    assert len(list(tmp_path.glob("*.zip"))) == 1  # 60 calls are 120 steps of two environments
    mean, std = evaluate_policy(agent, make_task_vec("pendulum", 2, 7), n_eval_episodes=2)
    assert -2000 < mean < 0
    actions, _ = agent.predict(STATES)
    assert actions.shape == (7, 1) and (np.abs(actions) <= 2).all()


@pytest.mark.parametrize("extractor", [{}, {"features_extractor_class": SmallCNN}], ids=["NatureCNN", "SmallCNN"])
def test_images_go_through_the_cnn(tmp_path, extractor):
    class Pixels(gym.Env):
        observation_space = spaces.Box(0, 255, (4, 36, 36), np.uint8)
        action_space = spaces.Box(np.array([-1, 0], np.float32), np.ones(2, np.float32))

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            return self.observation_space.sample(), {}

        def step(self, action):
            return self.observation_space.sample(), float(action[1]), False, False, {}

    agent = ProtoSAC(
        "CnnPolicy", Pixels(), n_prototypes=3, learning_starts=10, batch_size=4, buffer_size=50,
        policy_kwargs={"net_arch": [16], **extractor},
    ).learn(14)  # fmt: skip
    assert agent.prototypes.observations.shape == (3, 4, 36, 36)
    assert agent.prototypes.observations.dtype == np.uint8
    with pytest.raises(InterpError, match="env="):
        agent.save_run(tmp_path)
    loaded = ProtoSAC.load_run(agent.save_run(tmp_path, env="pixels"))
    states = np.stack([agent.observation_space.sample() for _ in range(2)])
    np.testing.assert_array_equal(loaded.explain(states).action, agent.explain(states).action)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_prototypes": 0}, "n_prototypes is 0"),
        ({"latent_dim": 1}, "latent_dim is 1"),
        ({"temperature": 0.0}, "temperature is 0.0"),
        ({"mixture": "sum"}, "unknown mixture 'sum'.*blend, gmm"),
        ({"use_sde": True}, "no gSDE"),
    ],
)
def test_prototype_settings_out_of_range(options, message):
    with pytest.raises(InterpError, match=message):
        protosac(**options)


@pytest.mark.parametrize("algorithm", [SAC, ProtoSAC])
def test_wrong_inputs_are_named(algorithm, tmp_path):
    with pytest.raises(InterpError, match="continuous actions"):
        algorithm("MlpPolicy", "CartPole-v1")
    agent = algorithm("MlpPolicy", make_task_vec("pendulum"), **SMALL)
    with pytest.raises(InterpError, match="holds 1 NaN"):
        agent.predict(np.array([0.0, np.nan, 0.0], np.float32))
    agent.save(tmp_path / "agent.zip")
    with pytest.raises(InterpError, match="another environment"):
        algorithm.load(tmp_path / "agent.zip", make_task_vec("mountaincar"))

    agent.save_run(tmp_path / "run")
    with pytest.raises(InterpError, match="trained on pendulum, not on mountaincar"):
        algorithm.load_run(tmp_path / "run", env=make_task_vec("mountaincar"))
    other = SAC if algorithm is ProtoSAC else ProtoSAC
    with pytest.raises(InterpError, match=f"holds a {algorithm.algorithm} run"):
        other.load_run(tmp_path / "run")
    with pytest.raises(InterpError, match="does not exist"):
        algorithm.load_run(tmp_path / "nothing")


def test_nan_rewards_stop_training_with_one_line():
    class Broken(gym.RewardWrapper):
        def reward(self, reward):
            return float("nan")

    for algorithm in (SAC, ProtoSAC):
        with pytest.raises(InterpError, match="loss is nan at step 51"):
            algorithm("MlpPolicy", Broken(gym.make("Pendulum-v1")), **SMALL).learn(60)


def test_damaged_run_folders(trained, tmp_path):
    trained.save_run(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    weights = (tmp_path / "policy.safetensors").read_bytes()

    (tmp_path / "policy.safetensors").write_bytes(weights[:-100])
    with pytest.raises(InterpError, match="policy.safetensors is damaged"):
        ProtoSAC.load_run(tmp_path)
    (tmp_path / "policy.safetensors").write_bytes(weights)

    for change, message in (
        ({"format": 2}, "reads format 1"),
        ({"hyperparameters": {}}, "config.json is damaged"),
        ({"hyperparameters": config["hyperparameters"] | {"n_prototypes": 5}}, "does not fit this agent"),
    ):
        (tmp_path / "config.json").write_text(json.dumps(config | change))
        with pytest.raises(InterpError, match=message):
            ProtoSAC.load_run(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(InterpError, match="does not describe a run"):
        ProtoSAC.load_run(tmp_path)


def test_noise_and_schedules_survive_a_release(tmp_path):
    env = make_task_vec("mountaincar")
    options = SMALL | {"learning_rate": make_schedule("lin_7.3e-4"), "action_noise": make_noise("ou_0.5", 1)}
    SAC("MlpPolicy", env, **options).save_run(tmp_path)
    again = SAC.load_run(tmp_path)
    assert repr(again.action_noise) == repr(make_noise("ou_0.5", 1))
    assert again.lr_schedule(0.5) == pytest.approx(3.65e-4)
    with pytest.raises(InterpError, match="unknown action noise"):
        make_noise("pink_1", 1)
    with pytest.raises(InterpError, match="unknown learning rate"):
        make_schedule("fast")
    with pytest.raises(InterpError, match="above 0"):
        make_schedule("lin_-1")
    odd = SAC("MlpPolicy", env, **(SMALL | {"learning_rate": lambda progress: 1e-3 * progress**2}))
    with pytest.raises(InterpError, match="learning rate"):
        odd.save_run(tmp_path)


def test_a_run_names_the_code_that_was_there_when_learning_began(tmp_path, monkeypatch):
    agent = protosac().learn(60)
    began = agent._learned_with
    monkeypatch.setattr("interp_lib.common.provenance.provenance", lambda: {"git": {"revision": "checked out since"}})
    config = json.loads((agent.save_run(tmp_path / "run") / "config.json").read_text())
    assert config["provenance"] == began and "torch" in began["libraries"]
    agent.save(tmp_path / "own.zip")
    resumed = ProtoSAC.load(tmp_path / "own.zip", make_task_vec("pendulum", 1, 0))
    resumed.learn(10, reset_num_timesteps=False)
    config = json.loads((resumed.save_run(tmp_path / "resumed") / "config.json").read_text())
    assert config["provenance"]["git"]["revision"] == "checked out since"
