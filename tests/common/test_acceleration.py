"""Faster ways are taken where they give the same, and left out, with a line, where they don't."""

import pytest
import torch
from captures import failing, recording
from torch import nn

from interp_lib.common.acceleration import Captured, Checked, captured, difference


def layer():
    torch.manual_seed(0)
    return nn.Linear(3, 2)


def gradients(network, x, scale):
    """A loss and its gradients, as an update computes them."""
    for p in network.parameters():
        p.grad = None
    loss = scale * network(x).relu().square().sum()
    loss.backward()
    return {"loss": loss.detach()}, [p.grad for p in network.parameters()]


def same(a, b):
    return difference(a, b, b, 0.0) == ""


def test_a_capture_follows_inputs_and_weights_and_leaves_other_shapes_and_settings_to_the_function():
    network, x = layer(), torch.randn(4, 3)
    captured = Captured(gradients, recording, (network, x, 2.0))
    for inputs, scale in ((x + 1, 2.0), (torch.randn(4, 3), 2.0), (torch.randn(5, 3), 2.0), (x, 3.0)):
        got = captured(network, inputs, scale)
        assert same(got, gradients(network, inputs, scale))
        with torch.no_grad():
            network.weight.sub_(0.1 * got[1][0])
    first = captured(network, x, 2.0)[1][0]
    assert captured(network, 2 * x, 2.0)[1][0] is first  # in the graph's own memory, every time


def checked(make, **options):
    return Checked(gradients, make, "the update could not be captured and", **options)


def test_what_gives_the_same_is_taken_silently_and_draws_no_dice(capsys):
    network, x = layer(), torch.randn(4, 3)
    fast = checked(captured(gradients, recording))
    dice = torch.get_rng_state()
    assert same(fast(network, x, 1.0), gradients(network, x, 1.0)) and fast.fast
    assert torch.equal(torch.get_rng_state(), dice) and capsys.readouterr().err == ""


def wrong_gradient(network, x, scale):
    losses, (weight, bias) = gradients(network, x, scale)
    return losses, [weight, 1.2 * bias]


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (captured(gradients, lambda function: (lambda: None, function())), "differs"),  # a graph of nothing
        (captured(gradients, failing), "RuntimeError: operation not permitted when stream is capturing"),
        (lambda *args: wrong_gradient, "output 2 differs"),
        (lambda *args: lambda *args: gradients(*args)[0], "other outputs"),
        (lambda *args: lambda network, x, scale: gradients(network, x * torch.nan, scale), "differs by nan"),
    ],
)
def test_what_fails_or_gives_other_numbers_is_left_out_with_one_line(make, reason, capsys):
    network, x = layer(), torch.randn(4, 3)
    fast = checked(make)
    for _ in range(2):
        assert same(fast(network, x, 1.0), gradients(network, x, 1.0)) and not fast.fast
    line = capsys.readouterr().err
    assert line.count("\n") == 1 and reason in line
    assert line.startswith("the update could not be captured and runs as it is, slower: ")


def test_all_examples_have_to_give_the_same(capsys):
    network, x = layer(), torch.randn(4, 3)

    def right_without_scale(network, x, scale):
        return gradients(network, x, min(scale, 1.0))

    fast = checked(lambda *args: right_without_scale, examples=lambda *args: [args, (*args[:2], 2.0)])
    fast(network, x, 1.0)
    assert not fast.fast and "differs" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("got", "alike"),
    [
        ((1.0, [100.0, 0.0], [0.1]), True),
        ((1.0, [100.0, 0.5], [0.1]), True),  # half a per cent of the vector
        ((1.0, [100.0, 3.0], [0.1]), False),
        ((1.0, [100.0, 0.0], [0.105]), True),  # next to nothing beside the other
        ((1.0, [100.0, 0.0], [0.3]), False),
        ((1.02, [100.0, 0.0], [0.1]), False),
    ],
)
def test_rounding_is_told_from_errors(got, alike):
    expected = (torch.tensor(1.0), torch.tensor([100.0, 0.0]), torch.tensor([0.1]))
    assert (difference(tuple(map(torch.tensor, got)), expected, expected, 0.01) == "") == alike


@pytest.mark.parametrize(("got", "alike"), [(1.2, True), (0.7, False), (1.4, False)])
def test_what_rounds_itself_may_be_missed_by_twice_as_much(got, alike):
    expected, exact = torch.tensor([1.0]), torch.tensor([1.1])
    assert (difference(torch.tensor([got]), expected, exact, 0.01) == "") == alike
