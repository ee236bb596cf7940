"""The fast multilayer perceptrons: the same numbers and gradients as torch.nn's own."""

from __future__ import annotations

import pytest
import torch
from stable_baselines3.common.torch_layers import create_mlp
from torch import nn

from interp_lib.agents.protosac import ProtoSAC, kernels
from interp_lib.agents.protosac.kernels import layers_of, run_mlp
from interp_lib.common import compute
from interp_lib.envs.continuous import make_task_vec


def network(*widths: int, activation: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(*create_mlp(5, widths[-1], list(widths[:-1]), activation))


def gradients(y: torch.Tensor, inputs: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    return torch.autograd.grad((y * torch.linspace(-1, 2, y.numel()).reshape(y.shape)).sum(), inputs)


@pytest.mark.parametrize("onednn", [True, False])
@pytest.mark.parametrize("widths", [(1,), (16, 3), (96, 64, 80, 1)])
def test_values_and_gradients_are_those_of_torch(widths, onednn, monkeypatch):
    if onednn and not compute.has_onednn():
        pytest.skip("this PyTorch has no oneDNN")
    monkeypatch.setattr(compute, "prefers_onednn", lambda: onednn)
    net = network(*widths)
    x = torch.randn(kernels._FEW_ROWS + 38, 5, requires_grad=True)
    inputs = [x, *net.parameters()]
    fast, plain = run_mlp(net, x), net(x)
    assert type(fast.grad_fn).__name__ == "_MLPBackward"
    torch.testing.assert_close(fast, plain)
    for got, expected in zip(gradients(fast, inputs), gradients(plain, inputs), strict=True):
        torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-4)


def test_frozen_parameters_get_no_gradient_and_the_input_does():
    net = network(64, 64, 1)
    x = torch.randn(64, 5, requires_grad=True)
    run_mlp(net, x, frozen=True).sum().backward()
    assert all(p.grad is None for p in net.parameters())
    torch.testing.assert_close(x.grad, torch.autograd.grad(net(x).sum(), x)[0], atol=1e-5, rtol=1e-4)

    # The first layer's inputs are data while critics learn: no product is spent on their gradient.
    run_mlp(net, x.detach()).sum().backward()
    assert all(p.grad is not None for p in net.parameters())


def test_other_networks_and_single_decisions_take_the_usual_way():
    assert layers_of(network(8, 8, 2, activation=nn.Tanh)) is None
    assert layers_of(nn.Sequential(nn.Linear(5, 8), nn.ReLU())) is None
    assert len(layers_of(network(8, 8, 2))) == 3
    for net, x in ((network(8, 2, activation=nn.Tanh), torch.randn(64, 5)), (network(8, 2), torch.randn(1, 5))):
        assert torch.equal(run_mlp(net, x), net(x))
        assert type(run_mlp(net, x).grad_fn).__name__ != "_MLPBackward"
    doubles = network(64, 64, 1).double()
    x = torch.randn(64, 5, dtype=torch.float64)
    assert torch.equal(run_mlp(doubles, x), doubles(x))


@pytest.mark.parametrize("share", [True, False])
def test_critics_are_sb3s_own(share):
    kwargs = {"net_arch": [64, 64], "share_features_extractor": share}
    agent = ProtoSAC("MlpPolicy", make_task_vec("pendulum"), policy_kwargs=kwargs, seed=0, buffer_size=10)
    obs, actions = torch.randn(64, 3), torch.rand(64, 1, requires_grad=True)
    sb3_forward = super(kernels.FastCritic, agent.critic).forward
    for got, expected in zip(agent.critic(obs, actions), sb3_forward(obs, actions), strict=True):
        torch.testing.assert_close(got, expected)
    frozen = sum(q.sum() for q in agent.critic(obs, actions, frozen=True))
    frozen.backward()
    assert all(p.grad is None for p in agent.critic.parameters())
    expected = torch.autograd.grad(sum(q.sum() for q in sb3_forward(obs, actions)), actions)[0]
    torch.testing.assert_close(actions.grad, expected, atol=1e-5, rtol=1e-4)
