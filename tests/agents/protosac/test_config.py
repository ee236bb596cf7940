"""config.json and weights of SAC and ProtoSAC that are damaged or hostile: one line each, before memory is taken."""

from __future__ import annotations

import json
import time

import pytest
import torch

from interp_lib import load_agent
from interp_lib.agents.protosac import SAC, ProtoSAC
from interp_lib.agents.protosac.config import _ACTIVATIONS
from interp_lib.common.errors import InterpError
from interp_lib.common.storage import read_tensors, write_tensors
from interp_lib.envs.continuous import make_task_vec

SMALL = dict(learning_starts=50, batch_size=32, buffer_size=2000, policy_kwargs={"net_arch": [32, 32]}, seed=0)
HUGE = 10**12


@pytest.fixture(params=[SAC, ProtoSAC])
def run(request, tmp_path):
    request.param("MlpPolicy", make_task_vec("pendulum"), **SMALL).save_run(tmp_path)
    if request.param is ProtoSAC:
        (tmp_path / "is protosac").touch()
    return tmp_path


def refused(run):
    # With its own class and not through load_agent, whose checks of any run come first.
    cls = ProtoSAC if (run / "is protosac").exists() else SAC
    began = time.monotonic()
    with pytest.raises(InterpError) as error:
        cls.load_run(run)
    assert "\n" not in str(error.value) and len(str(error.value)) < 600, error.value
    assert time.monotonic() - began < 10
    return str(error.value)


def top(key, value):
    return lambda config: config.update({key: value})


def setting(key, value):
    return lambda config: config["hyperparameters"].update({key: value})


def kwargs(**values):
    return setting("policy_kwargs", values)


def space(name, **values):
    return lambda config: config["spaces"][name].update(values)


def without(*path):
    def change(config):
        for key in path[:-1]:
            config = config[key]
        del config[path[-1]]

    return change


DAMAGE = [
    without("hyperparameters"), top("hyperparameters", []), top("hyperparameters", None), top("hyperparameters", "x"),
    top("hyperparameters", {}), without("hyperparameters", "tau"), setting("surprise", 1), top("spaces", None),
    without("spaces"), without("spaces", "action"), top("seed", "1"), top("seed", -3), top("timesteps", 1.5),
    top("env", None), top("env", "hopper"), top("env", "carracing"), top("format", "1"), top("algorithm", []),
    setting("policy", "Evil"), setting("policy", None), setting("policy", ["MlpPolicy"]),
    setting("policy", "CnnPolicy"), setting("batch_size", "32"),
    setting("batch_size", None), setting("buffer_size", 0), setting("buffer_size", 1.5), setting("gamma", "nan"),
    setting("gamma", float("nan")), setting("tau", None), setting("ent_coef", "much"), setting("ent_coef", None),
    setting("ent_coef", "auto_-1"), setting("target_entropy", "low"), setting("learning_rate", "fast"),
    setting("learning_rate", None), setting("learning_rate", -1), setting("action_noise", 3),
    setting("action_noise", "pink_1"), setting("train_freq", 0), setting("train_freq", [1, "year"]),
    setting("train_freq", [1]), setting("train_freq", None), setting("use_sde", "no"), setting("gradient_steps", []),
    setting("policy_kwargs", None), setting("policy_kwargs", [1]), kwargs(net_arch="32"), kwargs(net_arch=[32, "32"]),
    kwargs(net_arch=[0]), kwargs(net_arch=[-1]), kwargs(net_arch=[1.5]), kwargs(net_arch={"pi": [32]}),
    kwargs(net_arch=[10**9]), kwargs(net_arch=[10**30]), kwargs(net_arch=[64, 64]), kwargs(net_arch=[32] * 10**5),
    kwargs(net_arch=[32, 32], n_critics=10**9), kwargs(net_arch=[32, 32], n_critics=0),
    kwargs(net_arch=[32, 32], activation_fn="Module"), kwargs(net_arch=[32, 32], activation_fn="init"),
    kwargs(net_arch=[32, 32], activation_fn=["ReLU"]), kwargs(net_arch=[32, 32], activation_fn="Transformer"),
    kwargs(net_arch=[32, 32], features_extractor_class="nn"), kwargs(net_arch=[32, 32], optimizer_class="SGD"),
    kwargs(net_arch=[32, 32], features_extractor_class="BaseFeaturesExtractor"), kwargs(share_features_extractor=1),
    space("observation", shape=[HUGE]), space("observation", shape=[4]), space("observation", shape=[]),
    space("observation", shape="3"), space("observation", shape=[-3]), space("observation", dtype="object"),
    space("observation", dtype="x"), space("observation", dtype="V8"), space("observation", low=[0.0]),
    space("action", shape=[2]), space("action", low="-inf"), space("action", low=3.0), space("action", high="nan"),
    space("action", shape=[HUGE, HUGE]),
]  # fmt: skip
PROTOTYPES = [
    setting("n_prototypes", 10**9), setting("n_prototypes", "8"), setting("n_prototypes", 2.5),
    setting("n_prototypes", 0), setting("n_prototypes", 17), setting("space", "encoder"), setting("latent_dim", True),
    setting("temperature", None), setting("temperature", 0), setting("mixture", "sum"), setting("mixture", ["gmm"]),
    setting("mixture", None), setting("space", "sphere"), setting("space", ["encoder"]), setting("metric_weight", -1),
    setting("projection_candidates", 0), setting("projection_interval", -5),
    setting("usage_weight", "0.1"), setting("final_projection", 1), without("hyperparameters", "mixture"),
]  # fmt: skip


def test_every_damage_of_a_config_is_one_line(run):
    config = (run / "config.json").read_text()
    algorithm = json.loads(config)["algorithm"]
    cases = DAMAGE + (PROTOTYPES if algorithm == "protosac" else [])
    wrong = []
    for change in cases:
        damaged = json.loads(config)
        change(damaged)
        (run / "config.json").write_text(json.dumps(damaged))
        try:
            refused(run)
        except Exception as error:
            fields = damaged.get("hyperparameters"), damaged.get("spaces")
            wrong.append(f"{error!r:.300}: {json.dumps(fields)[:1500]}")
    assert not wrong, "\n".join(wrong)
    print(f"{len(cases)} damaged configs of {algorithm} refused")
    (run / "config.json").write_text(config)
    load_agent(run)


def test_a_huge_buffer_is_refused_when_learning_would_need_it(run):
    config = json.loads((run / "config.json").read_text())
    config["hyperparameters"]["buffer_size"] = 10**15
    (run / "config.json").write_text(json.dumps(config))
    agent = load_agent(run)  # to predict it needs none
    agent.set_env(make_task_vec("pendulum"))
    with pytest.raises(InterpError, match="not enough memory for a replay buffer"):
        agent.learn(10)


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(run, number):
    tensors = read_tensors(run / "policy.safetensors")
    for name in ("log_ent_coef", "critic.qf0.0.weight"):
        broken = tensors[name].clone()
        broken.view(-1)[0] = number
        write_tensors(run / "policy.safetensors", tensors | {name: broken})
        assert "finite" in refused(run) or "NaN" in refused(run)
    write_tensors(run / "policy.safetensors", tensors)
    load_agent(run)


def test_weights_of_another_kind_are_refused(run):
    tensors = read_tensors(run / "policy.safetensors")
    name = next(name for name in tensors if tensors[name].ndim == 2)
    for change in ({name: tensors[name][:-1]}, {name: torch.zeros(1, dtype=torch.complex64)}, {"more": torch.zeros(1)}):
        write_tensors(run / "policy.safetensors", tensors | change)
        refused(run)


def test_every_activation_that_can_be_named_survives_a_release(tmp_path):
    for activation in _ACTIVATIONS:
        options = SMALL | {"policy_kwargs": {"net_arch": [8], "activation_fn": activation}}
        agent = SAC("MlpPolicy", make_task_vec("pendulum"), **options)
        agent.save_run(tmp_path)
        assert SAC.load_run(tmp_path).policy.activation_fn is activation
    options["policy_kwargs"]["activation_fn"] = torch.nn.Hardshrink
    with pytest.raises(InterpError, match="is none of ReLU, Tanh"):
        SAC("MlpPolicy", make_task_vec("pendulum"), **options).save_run(tmp_path)


def test_an_environment_that_was_changed_needs_another_name(tmp_path):
    from stable_baselines3.common.vec_env import VecFrameStack

    agent = SAC("MlpPolicy", VecFrameStack(make_task_vec("pendulum"), 2), **SMALL)
    with pytest.raises(InterpError, match="shapes .3,. and .1,., not .6,. and .1,.*needs another name"):
        agent.save_run(tmp_path)
    assert SAC.load_run(agent.save_run(tmp_path, env="pendulum-2")).observation_space.shape == (6,)
