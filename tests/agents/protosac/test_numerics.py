"""ProtoSAC's mixtures, losses and projection against brute force and hand calculation."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from gymnasium import spaces
from scipy.stats import norm
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.torch_layers import FlattenExtractor

from interp_lib.agents.protosac import losses
from interp_lib.agents.protosac.actor import ProtoActor
from interp_lib.agents.protosac.mixtures import Blend, GaussianMixture, choice_gradient, imitation, log_tanh_slope
from interp_lib.agents.protosac.projection import (
    decisions,
    distinct,
    divergence,
    imitate,
    latest_observations,
    nearest_distinct,
    place,
    project,
    spread,
)

WEIGHTS = torch.tensor([[0.5, 0.3, 0.2], [0.05, 0.05, 0.9]], dtype=torch.float64)
MEANS = torch.tensor([[-1.0, 0.4], [0.3, -0.6], [1.2, 0.1]], dtype=torch.float64)
STDS = torch.tensor([[0.4, 0.7], [0.8, 0.5], [0.3, 1.1]], dtype=torch.float64)


def squashed_cdf(mixture: type, state: int, dim: int, actions: np.ndarray) -> np.ndarray:
    """P(tanh(u) ≤ a) for one action dimension, from scipy's normal distribution alone."""
    w, mu, sd = WEIGHTS[state].numpy(), MEANS[:, dim].numpy(), STDS[:, dim].numpy()
    u = np.arctanh(actions)
    if mixture is Blend:
        return norm.cdf(u, w @ mu, w @ sd)
    return sum(w[k] * norm.cdf(u, mu[k], sd[k]) for k in range(3))


@pytest.mark.parametrize("mixture", [Blend, GaussianMixture])
@pytest.mark.parametrize("state", [0, 1])
def test_density_in_one_dimension_is_the_derivative_of_the_brute_force_distribution(mixture, state):
    actions = np.linspace(-0.98, 0.98, 197)
    step = 1e-6
    expected = (squashed_cdf(mixture, state, 0, actions + step) - squashed_cdf(mixture, state, 0, actions - step)) / (
        2 * step
    )
    u = torch.as_tensor(np.arctanh(actions)).unsqueeze(1)
    weights = WEIGHTS[state].expand(len(u), 3)
    density = mixture(weights, MEANS[:, :1], STDS[:, :1]).log_prob(u).exp().numpy()
    np.testing.assert_allclose(density, expected, rtol=1e-6)


@pytest.mark.parametrize("mixture", [Blend, GaussianMixture])
def test_density_in_two_dimensions_integrates_to_one_and_explains_the_samples(mixture):
    # Midpoint rule over the square of actions, finer towards its edges where tanh piles up mass.
    edges = torch.tanh(torch.linspace(-7, 7, 601, dtype=torch.float64))
    centres, widths = (edges[1:] + edges[:-1]) / 2, edges[1:] - edges[:-1]
    x, y = torch.meshgrid(centres, centres, indexing="ij")
    grid = torch.atanh(torch.stack([x.ravel(), y.ravel()], 1))
    density = mixture(WEIGHTS[:1].expand(len(grid), 3), MEANS, STDS).log_prob(grid).exp()
    mass = density * (widths[:, None] * widths[None, :]).ravel()
    assert mass.sum().item() == pytest.approx(1.0, abs=1e-3)

    torch.manual_seed(0)
    u, _ = mixture(WEIGHTS[:1].expand(200_000, 3), MEANS, STDS).sample()
    actions = torch.tanh(u)
    # E[xy], E[x²] and E[y³] tell the blend from the mixture and see the correlation of its dimensions.
    for function in (lambda a, b: a * b, lambda a, b: a**2, lambda a, b: b**3):
        by_integral = (mass * function(x.ravel(), y.ravel())).sum().item()
        by_samples = function(actions[:, 0], actions[:, 1]).mean().item()
        assert by_samples == pytest.approx(by_integral, abs=5e-3)


def test_gradient_of_the_gmm_matches_numerical_integration():
    logits = torch.tensor([0.2, -0.5, 0.4], dtype=torch.float64, requires_grad=True)
    means = MEANS[:, :1].clone().requires_grad_()
    stds = STDS[:, :1].clone().requires_grad_()

    def cost(u: torch.Tensor) -> torch.Tensor:
        return (torch.tanh(u[:, 0]) - 0.3) ** 2 + 0.5 * torch.sin(2 * u[:, 0])

    # Truth: E[cost] as a sum over a fine grid of u, differentiated by autograd.
    u = torch.linspace(-9, 9, 20_001, dtype=torch.float64).unsqueeze(1)
    weights = torch.softmax(logits, 0).expand(len(u), 3)
    density_of_u = (GaussianMixture(weights, means, stds).log_prob(u) + log_tanh_slope(u).sum(-1)).exp()
    truth = torch.autograd.grad((density_of_u * cost(u)).sum() * (18 / 20_000), [logits, means, stds])

    torch.manual_seed(1)
    mixed = GaussianMixture(torch.softmax(logits, 0).expand(400_000, 3), means, stds)
    draws = [mixed.sample(), mixed.sample()]
    costs = [cost(u) for u, _ in draws]
    estimate = torch.cat(costs).mean() + choice_gradient(costs, [log_weight for _, log_weight in draws])
    for got, expected in zip(torch.autograd.grad(estimate, [logits, means, stds]), truth, strict=True):
        torch.testing.assert_close(got, expected, atol=4e-3, rtol=0)


def test_blend_is_reparameterised_and_the_modes_are_what_they_say():
    weights = WEIGHTS.clone().requires_grad_()
    u, log_weight = Blend(weights, MEANS, STDS).sample()
    assert log_weight is None
    assert torch.autograd.grad(u.sum(), weights)[0].abs().min() > 0
    torch.testing.assert_close(Blend(WEIGHTS, MEANS, STDS).mode(), WEIGHTS @ MEANS)
    torch.testing.assert_close(GaussianMixture(WEIGHTS, MEANS, STDS).mode(), MEANS[[0, 2]])


def test_slope_of_tanh_survives_saturation():
    u = torch.tensor([-30.0, -2.0, 0.0, 0.5, 30.0])
    expected = [math.log(1 / math.cosh(x) ** 2) for x in u.tolist()]
    torch.testing.assert_close(log_tanh_slope(u), torch.tensor(expected), rtol=1e-5, atol=1e-6)


def test_losses_by_hand():
    distances = torch.tensor([[0.0, 2.0, 3.0], [1.0, 0.5, 4.0]])
    assert losses.cluster_loss(distances).item() == pytest.approx((0.0 + 0.5) / 2)
    assert losses.coverage_loss(distances).item() == pytest.approx((0.0 + 0.5 + 3.0) / 3)
    torch.testing.assert_close(
        losses.similarities(torch.tensor([0.0, 1.0, 4.0])),
        torch.tensor([math.log(1e4), math.log(2 / 1.0001), math.log(5 / 4.0001)]),
    )

    x = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])  # squared distances 2, 4, 2
    torch.testing.assert_close(
        losses.squared_distances(x, x), torch.tensor([[0.0, 2.0, 4.0], [2.0, 0.0, 2.0], [4.0, 2.0, 0.0]])
    )
    assert losses.separation_loss(x, margin=3.0).item() == pytest.approx((1.0 + 0.0 + 1.0) / 3)
    assert losses.separation_loss(x[:1], margin=3.0).item() == 0.0

    weights = torch.tensor([[1.0, 0.0, 0.0, 0.0], [0.0, 0.5, 0.5, 0.0]])
    assert losses.decision_entropy(weights).item() == pytest.approx(math.log(2) / 2)
    assert losses.sharing_loss(weights).item() == 0.0
    assert losses.sharing_loss(weights, few=1.0).item() == pytest.approx(math.log(2) / 2)
    even = torch.full((2, 4), 0.25)
    assert losses.sharing_loss(torch.cat([weights, even])).item() == pytest.approx(math.log(4 / 3) / 2)
    mean_entropy = -(0.5 * math.log(0.5) + 2 * 0.25 * math.log(0.25))
    assert losses.usage_gap(weights).item() == pytest.approx(math.log(4) - mean_entropy)


@pytest.fixture(params=["observation", "encoder"])
def actor(request) -> ProtoActor:
    torch.manual_seed(0)
    box, actions = spaces.Box(-1, 1, (3,), np.float32), spaces.Box(-1, 1, (2,), np.float32)
    sizes = dict(n_prototypes=4, latent_dim=5, space=request.param)
    return ProtoActor(box, actions, [16], FlattenExtractor(box), 3, **sizes)


def stand_for_situations(actor: ProtoActor, states: np.ndarray) -> None:
    """Put the four prototypes on the first states, and let them say different things there."""
    actor.move_prototypes(torch.as_tensor(states[:4]))
    with torch.no_grad():
        actor.means.copy_(torch.tensor([[1.0, -1.0], [-1.0, 0.5], [0.3, 1.0], [-0.5, -0.5]]))
        actor.log_stds.fill_(-1.0)


def test_each_prototype_gets_a_state_of_its_own():
    # Both prototypes are nearest to latent 0; the least total distance gives it to the second.
    prototypes = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    latents = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    assert sorted(nearest_distinct(prototypes, latents)) == [0, 1]

    rng = np.random.default_rng(0)
    prototypes, latents = torch.randn(6, 4), torch.randn(9, 4)
    prototypes, latents = (x / x.norm(dim=1, keepdim=True) for x in (prototypes, latents))
    cost = losses.squared_distances(prototypes, latents).numpy()
    chosen = nearest_distinct(prototypes, latents)
    assert len(set(chosen)) == 6
    best = cost[np.arange(6), chosen].sum()
    for _ in range(2000):
        assert best <= cost[np.arange(6), rng.permutation(9)[:6]].sum() + 1e-6


def test_projection_makes_each_prototype_the_latent_of_a_seen_state(actor):
    states = np.random.default_rng(0).uniform(-1, 1, (200, 3)).astype(np.float32)
    free, located = actor.prototypes.detach().clone(), actor.located().detach()
    result = project(actor, states)

    assert actor.projected and actor.observed
    np.testing.assert_array_equal(actor.prototype_observations.numpy(), result.observations)
    assert all((states == o).all(1).any() for o in result.observations)
    assert len(distinct(result.observations)) == 4
    latents = actor.encode(torch.as_tensor(result.observations))
    torch.testing.assert_close(actor.located(), latents)
    torch.testing.assert_close(actor.free_prototypes, free)
    torch.testing.assert_close(torch.as_tensor(result.distances), ((latents - located) ** 2).sum(1))
    # A prototype's own state is led by it.
    assert actor.compare(torch.as_tensor(result.observations)).weights.argmax(1).tolist() == [0, 1, 2, 3]

    with pytest.raises(ValueError, match="3 different states"):
        project(actor, states[:3])


@pytest.mark.parametrize("mixture", ["blend", "gmm"])
def test_the_refit_imitates_the_policy_before_the_push(actor, mixture):
    actor.mixture = mixture
    states = np.random.default_rng(0).uniform(-1, 1, (2000, 3)).astype(np.float32)
    stand_for_situations(actor, states)
    free = [parameter.detach().clone() for _, parameter in actor.free_parameters()]
    drawn = torch.random.get_rng_state()
    result = project(actor, states[4:24], visited=states)  # few states to choose from: the push is a long one

    pushed, refitted = result.divergence
    assert 0 < refitted < 0.9 * pushed
    torch.testing.assert_close(torch.random.get_rng_state(), drawn)  # the caller's random numbers stay as they are
    for (kept, _), before in zip(actor.free_parameters(), free, strict=True):
        torch.testing.assert_close(kept, before)
    torch.testing.assert_close(actor.located(), actor.encode(torch.as_tensor(result.observations)))
    assert all(parameter.grad is None or not parameter.grad.any() for parameter in actor.parameters())


@pytest.mark.parametrize("mixture", ["blend", "gmm"])
def test_imitation_trains_encoder_or_metric_with_each_prototype_tied_to_its_state(actor, mixture):
    actor.mixture = mixture
    states = np.random.default_rng(0).uniform(-1, 1, (2000, 3)).astype(np.float32)
    stand_for_situations(actor, states)
    obs = torch.as_tensor(states[1000:])
    with torch.no_grad():
        free = actor(obs, deterministic=True)
    before = decisions(actor, torch.as_tensor(states))
    refitted = project(actor, states[4:24], states).divergence[1]
    for kept, parameter in actor.free_parameters():
        with torch.no_grad():
            parameter.copy_(kept)
    drawn = torch.random.get_rng_state()
    result = project(actor, states[4:24], states, imitation_epochs=30)
    torch.testing.assert_close(torch.random.get_rng_state(), drawn)

    # The metric has one number for each of an observation's, the encoder a network's.
    assert result.divergence[1] < (0.6 if actor.space == "encoder" else 1.0) * refitted
    assert result.divergence[1] == pytest.approx(divergence(actor, before), abs=1e-6)
    torch.testing.assert_close(actor.located(), actor.encode(torch.as_tensor(result.observations)))
    assert all(parameter.grad is None or not parameter.grad.any() for parameter in actor.parameters())
    for kept, parameter in actor.free_parameters():  # the encoder of before is kept as well
        with torch.no_grad():
            parameter.copy_(kept)
    with torch.no_grad():
        torch.testing.assert_close(actor(obs, deterministic=True), free)


def test_imitation_that_gains_nothing_leaves_everything_alone(actor):
    states = torch.as_tensor(np.random.default_rng(0).uniform(-1, 1, (50, 3)).astype(np.float32))
    place(actor, states[:4].numpy())
    before = {name: value.clone() for name, value in actor.state_dict().items()}
    imitate(actor, decisions(actor, states), epochs=3, learning_rate=1.0)  # the policy to imitate is its own
    for name, value in actor.state_dict().items():
        torch.testing.assert_close(value, before[name])


@pytest.mark.parametrize("kind", [Blend, GaussianMixture])
def test_imitation_measures_the_divergence_of_the_actions(kind):
    target, other = kind(WEIGHTS, MEANS, STDS), kind(WEIGHTS.flip(1), MEANS + 0.2, 1.1 * STDS)
    torch.manual_seed(1)
    u = [target.sample()[0] for _ in range(20_000)]
    brute = torch.stack([target.log_prob(x) - other.log_prob(x) for x in u]).mean().item()
    draws = 20_000 if kind is GaussianMixture else 4
    assert imitation(target, draws=draws)(other).item() == pytest.approx(brute, rel=0.03)
    assert imitation(target)(target).item() == pytest.approx(0, abs=1e-12)


def test_a_refit_that_gains_nothing_leaves_the_gaussians_alone(actor):
    states = np.random.default_rng(0).uniform(-1, 1, (50, 3)).astype(np.float32)
    place(actor, states[:4])
    means, log_stds = actor.means.detach().clone(), actor.log_stds.detach().clone()
    assert place(actor, states[:4], states) == pytest.approx((0, 0), abs=1e-6)  # nothing moves
    torch.testing.assert_close(actor.means, means, atol=1e-3, rtol=0)
    torch.testing.assert_close(actor.log_stds, log_stds, atol=1e-3, rtol=0)


def test_the_latest_observations_of_a_buffer_that_went_round():
    space = spaces.Box(-1, 1, (1,), np.float32)
    buffer = ReplayBuffer(5, space, spaces.Box(-1, 1, (1,), np.float32), handle_timeout_termination=False)
    for i in range(7):
        obs = np.array([[i / 10]], np.float32)
        buffer.add(obs, obs, obs, np.zeros(1), np.zeros(1), [{}])
    np.testing.assert_allclose(latest_observations(buffer, 3)[:, 0], [0.4, 0.5, 0.6])
    np.testing.assert_allclose(latest_observations(buffer, 99)[:, 0], [0.2, 0.3, 0.4, 0.5, 0.6])


def test_prototypes_can_be_put_on_given_states_and_started_apart(actor):
    states = np.random.default_rng(1).uniform(-1, 1, (50, 3)).astype(np.float32)
    place(actor, states[:4])
    torch.testing.assert_close(actor.located(), actor.encode(torch.as_tensor(states[:4])))

    spread(actor, states, np.random.default_rng(0))
    latents = actor.encode(torch.as_tensor(states))
    nearest = losses.squared_distances(actor.located(), latents).amin(1)
    assert nearest.max().item() < 1e-5
    between = losses.squared_distances(actor.located(), actor.located())[~torch.eye(4, dtype=torch.bool)]
    assert between.min().item() > 1e-4

    before = actor.prototypes[2:].clone()
    spread(actor, states[:2], np.random.default_rng(0))
    torch.testing.assert_close(actor.prototypes[2:], before)


def test_distinct_keeps_the_first_of_equal_observations():
    x = np.array([[1, 2], [3, 4], [1, 2], [5, 6]], np.uint8)
    np.testing.assert_array_equal(distinct(x), [[1, 2], [3, 4], [5, 6]])
