"""Numbers computed by the reference implementation (TensorFlow 2.4.4), which this one has to reproduce.

The compact fixture holds inputs as seeds instead of arrays, so that it fits in the repository.
"""

import numpy as np
import pytest
import torch
from golden import FIXTURES, fixture_weights

from interp_lib.agents.sppo.config import SPPOConfig
from interp_lib.agents.sppo.network import ActorCritic
from interp_lib.agents.sppo.rollout import RewardNormalizer, generalized_advantages
from interp_lib.agents.sppo.update import Minibatch, Updater
from interp_lib.runs.importing import load_reference_weights, reference_name_map


@pytest.fixture(scope="module")
def golden():
    return dict(np.load(FIXTURES / "sppo_compact.npz"))


@pytest.fixture()
def network(golden):
    network = ActorCritic(15, num_codes=8)
    load_reference_weights(network, fixture_weights(golden))
    return network


def minibatch(golden):
    obs = np.random.RandomState(5).randint(0, 256, (32, 8, 8, 3)).astype(np.uint8).repeat(8, 1).repeat(8, 2)
    return Minibatch(
        obs=torch.from_numpy(obs),
        actions=torch.from_numpy(golden["actions"]).long(),
        old_log_prob=-torch.from_numpy(golden["neglogpacs"]),
        old_value=torch.from_numpy(golden["values"]),
        returns=torch.from_numpy(golden["returns"]),
    )


def test_forward_equals_the_reference(golden, network):
    with torch.no_grad():
        out = network(minibatch(golden).obs)
    for name in ("logits", "value", "feature", "fdr"):
        np.testing.assert_allclose(
            getattr(out, name).numpy(), golden[f"forward/{name}"], rtol=0, atol=1e-5, err_msg=name
        )
    np.testing.assert_array_equal(out.code.numpy(), golden["forward/code"][:, 0])


def test_losses_and_weights_over_three_updates_equal_the_reference(golden, network):
    names = reference_name_map(network)
    before = {name: tensor.detach().clone() for name, tensor in names.items()}
    updater = Updater(network, SPPOConfig(env="ninja", vq_beta=0.25))
    for step in (1, 2, 3):
        losses = updater.step(minibatch(golden), skill_weight=0.6)
        for name in ("loss", "policy_loss", "value_loss", "skill_loss", "vq_loss", "policy_entropy", "approxkl"):
            # The first step compares losses alone; later ones also carry the optimiser's rounding.
            tolerance = 1e-5 if step == 1 else 1e-3
            expected = float(golden[f"step{step}/{name}"])
            assert float(losses[name]) == pytest.approx(expected, rel=tolerance, abs=1e-6 if step == 1 else 1e-4), (
                step,
                name,
            )
    for i, name in enumerate(golden["weight_names"]):
        after = names[str(name)].detach().double()
        count = after.numel()
        # Sums over n entries: an error of 1e-4 in every entry would show as n · 1e-4 in the sum.
        assert abs(float(after.sum()) - golden["after3/sum"][i]) <= 1e-4 * count, name
        assert abs(float(after.norm()) - golden["after3/l2"][i]) <= 1e-4 * np.sqrt(count), name
        delta = float((after - before[str(name)].double()).norm())
        assert delta == pytest.approx(golden["after3/delta_l2"][i], rel=2e-3, abs=1e-5), name


def test_reward_scaling_and_advantages_equal_the_reference():
    golden = np.load(FIXTURES / "gae_golden.npz")
    normalizer = RewardNormalizer(num_envs=6, gamma=float(golden["normalizer_gamma"]))
    rewards = np.stack([normalizer(r, d) for r, d in zip(golden["raw_rewards"], golden["dones"], strict=True)])
    np.testing.assert_allclose(rewards, golden["normalized_rewards"], rtol=1e-5, atol=1e-6)
    advantages = generalized_advantages(
        rewards, golden["values"], golden["dones"], golden["last_values"], float(golden["gamma"]), float(golden["lam"])
    )
    np.testing.assert_allclose(advantages, golden["advantages"], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(advantages + golden["values"], golden["returns"], rtol=1e-4, atol=1e-5)
