"""The space of observations: its distances, and prototypes that follow the states."""

import json

import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.torch_layers import FlattenExtractor

from interp_lib.agents.protosac import ProtoSAC
from interp_lib.agents.protosac.actor import ProtoActor
from interp_lib.agents.protosac.settings import ENCODER, SETTINGS, task_settings
from interp_lib.agents.protosac.standardised import StandardisedSpace, cooled, follow
from interp_lib.agents.protosac.vision import CoarseFrames
from interp_lib.envs.continuous import make_task_vec

SMALL = dict(learning_starts=50, batch_size=32, buffer_size=2000, policy_kwargs={"net_arch": [32, 32]}, seed=0)


def actor_of(prototypes: np.ndarray) -> ProtoActor:
    box, actions = spaces.Box(-9, 9, (2,), np.float32), spaces.Box(-1, 1, (1,), np.float32)
    torch.manual_seed(0)
    actor = ProtoActor(box, actions, [], FlattenExtractor(box), 2, n_prototypes=len(prototypes), temperature=0.5)
    actor.move_prototypes(torch.tensor(prototypes, dtype=torch.float32))
    return actor


def test_distances_are_standardised_and_weighted_by_the_metric():
    actor = actor_of(np.array([[0.0, 0.0], [4.0, 1.0]]))
    actor.encoder.observe(torch.tensor([[-2.0, 1.0], [2.0, 1.0], [-2.0, -1.0], [2.0, -1.0]]))  # std 2 and 1, mean 0
    with torch.no_grad():
        actor.encoder.log_metric.copy_(torch.tensor([0.0, np.log(3.0)]))
    found = actor.compare(torch.tensor([[2.0, 1.0]]))
    # (2/2)² and 3 (1/1)² over two numbers; the other prototype differs by 2/2 in the first.
    torch.testing.assert_close(found.distances, torch.tensor([[2.0, 0.5]]))
    torch.testing.assert_close(found.similarities, -found.distances)
    torch.testing.assert_close(found.weights, torch.softmax(torch.tensor([[-4.0, -1.0]]), 1))
    assert actor.encoder.unevenness().item() == pytest.approx(np.log(3.0) ** 2 / 4)


def test_a_number_that_never_varies_does_not_decide():
    space = StandardisedSpace(2)
    space.observe(torch.tensor([[1.0, 5.0], [3.0, 5.0]]))
    assert torch.isfinite(space(torch.tensor([[2.0, 5.001]]))).all()
    assert space(torch.tensor([[2.0, 5.001]]))[0, 1].abs() < 1


def test_prototypes_come_to_the_means_of_the_states_they_are_nearest_to():
    rng = np.random.default_rng(0)
    centres = np.array([[-4.0, 0.0], [4.0, 0.0], [0.0, 4.0]])
    actor = actor_of(centres + 1.0)
    for update in range(1, 3000):
        states = centres[rng.integers(3, size=64)] + 0.3 * rng.standard_normal((64, 2))
        follow(actor, torch.tensor(states, dtype=torch.float32), update)
    np.testing.assert_allclose(actor.prototypes.detach(), centres, atol=0.1)
    assert actor.followers.sum().item() == pytest.approx(64, rel=0.01)
    np.testing.assert_allclose(actor.encoder.centre, centres.mean(0), atol=0.5)


def test_a_prototype_without_states_starts_anew_where_none_is_and_acts_as_the_policy_does_there():
    actor = actor_of(np.array([[0.0, 0.0], [50.0, 50.0]]))
    with torch.no_grad():
        actor.means.copy_(torch.tensor([[1.0], [-1.0]]))
    actor.followers.copy_(torch.tensor([64.0, 0.0]))
    states = torch.zeros(64, 2)
    states[0] = torch.tensor([3.0, 0.0])
    action = actor(states[:1], deterministic=True)
    follow(actor, states, update=200)
    assert actor.prototypes[1].tolist() == [3.0, 0.0]
    torch.testing.assert_close(torch.tanh(actor.means[1]), action[0].detach(), atol=1e-3, rtol=0)
    assert actor.followers[1] == 32
    before = actor.prototypes.detach().clone()
    follow(actor, states, update=201)  # only now and then
    assert (actor.prototypes[1] - before[1]).abs().max() < 1


def test_images_are_compared_by_the_means_of_their_blocks():
    box = spaces.Box(0, 255, (4, 64, 64), np.uint8)
    image = torch.zeros(1, 4, 64, 64)
    image[0, 1, 8:16, 16:24] = 0.5
    image[0, 1, 8, 16] = 1.0
    seen = CoarseFrames(box)(image).reshape(4, 8, 8)
    assert seen[1, 1, 2].item() == pytest.approx((63 * 0.5 + 1) / 64) and seen.count_nonzero() == 1


def test_training_keeps_prototypes_on_states_and_out_of_the_optimiser():
    agent = ProtoSAC("MlpPolicy", make_task_vec("pendulum", 1, 0), n_prototypes=6, **SMALL)
    agent.final_projection = False
    agent.learn(300)
    states = agent.replay_buffer.observations[:300, 0]
    low, high = states.min(0), states.max(0)
    prototypes = agent.actor.prototypes.detach().numpy()
    assert ((low <= prototypes) & (prototypes <= high)).all()  # means of states
    assert not any(p is agent.actor.prototypes for p in agent.actor.optimizer.state)
    assert agent.actor.encoder.log_metric.abs().max() > 0  # learned
    agent.project()
    assert all((states == o).all(1).any() for o in agent.prototypes.observations)


@pytest.mark.parametrize("task", SETTINGS)
def test_the_older_form_keeps_its_settings(task):
    older = task_settings(task, {"space": "encoder"})
    assert older.space == "encoder" and SETTINGS[task].space == "observation"
    assert {name: getattr(older, name) for name in ENCODER[task]} == ENCODER[task]
    assert task_settings(task, {"space": "encoder", "n_prototypes": "7"}).n_prototypes == 7


def test_a_run_from_before_there_was_a_choice_compares_latents(tmp_path):
    agent = ProtoSAC("MlpPolicy", make_task_vec("pendulum", 1, 0), n_prototypes=6, space="encoder", **SMALL)
    agent.save_run(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    for name in ("space", "metric_weight", "gaussian_rate", "initial_temperature"):
        del config["hyperparameters"][name]
    (tmp_path / "config.json").write_text(json.dumps(config))
    state = np.array([1.0, 0.0, 0.0], np.float32)
    assert ProtoSAC.load_run(tmp_path).space == "encoder" and ProtoSAC.load_run(tmp_path).gaussian_rate == 1.0
    np.testing.assert_array_equal(ProtoSAC.load_run(tmp_path).predict(state)[0].shape, (1,))
    np.testing.assert_allclose(ProtoSAC.load_run(tmp_path).explain(state).weights, agent.explain(state).weights)


def test_prototypes_come_to_rest_as_training_ends():
    actor = actor_of(np.array([[0.0, 0.0], [50.0, 50.0]]))
    actor.followers.copy_(torch.tensor([64.0, 0.0]))
    before = {name: value.clone() for name, value in actor.state_dict().items()}
    follow(actor, torch.randn(64, 2), update=200, remaining=0.0)
    for name, value in actor.state_dict().items():
        torch.testing.assert_close(value, before[name], msg=name)
    moved = []
    for remaining in (1.0, 0.5):
        actor.load_state_dict(before)
        follow(actor, torch.ones(64, 2), update=1, remaining=remaining)
        moved.append(actor.prototypes[0, 0].item())
    assert moved[0] == pytest.approx(2 * moved[1], rel=0.02) and moved[1] > 0


@pytest.mark.parametrize("rate", [1.0, 7.0])
def test_gaussians_learn_at_a_rate_of_their_own(rate):
    agent = ProtoSAC(
        "MlpPolicy",
        make_task_vec("pendulum", 1, 0),
        n_prototypes=6,
        gaussian_rate=rate,
        final_projection=False,
        **SMALL,
    )
    before = {name: value.detach().clone() for name, value in agent.actor.named_parameters()}
    agent.learn(51)
    # Adam's first step is as long as the learning rate wherever there is a gradient.
    for name in ("means", "log_stds"):
        moved = (getattr(agent.actor, name) - before[name]).abs().max().item()
        assert moved == pytest.approx(rate * 3e-4, rel=1e-3)


def test_the_temperature_falls_on_a_line_in_its_logarithm():
    assert [cooled(0.4, 0.1, left) for left in (1.0, 0.7, 0.2, 0.0)] == pytest.approx([0.4, 0.4, 0.1, 0.1])
    assert cooled(0.4, 0.1, 0.45) == pytest.approx(0.2)
    assert cooled(0.1, 0.1, 0.45) == pytest.approx(0.1)


def test_the_metric_is_held_so_that_the_temperature_alone_sharpens():
    agent = ProtoSAC(
        "MlpPolicy", make_task_vec("pendulum", 1, 0), n_prototypes=6, temperature=0.1, initial_temperature=0.8,
        final_projection=False, **SMALL
    )  # fmt: skip
    metric = agent.actor.encoder.log_metric
    states = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 2.0]])
    agent.learn(60, reset_num_timesteps=False)
    assert metric.mean().item() == pytest.approx(0.0, abs=1e-6) and metric.std() > 0
    cold = agent.actor.compare(states)
    agent.actor.encoder.hold(0.1 / 0.8)
    warm = agent.actor.compare(states)
    torch.testing.assert_close(warm.weights, torch.softmax(-cold.distances / 0.8, 1))
