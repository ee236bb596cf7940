"""Formulas and their fast twins: the same values, the same gradients."""

import pytest
import torch

from interp_lib.agents.sppo import losses
from interp_lib.agents.sppo.kernels import fdr_loss, max_pool
from interp_lib.agents.sppo.network import ImpalaStage, conv_pool


def test_losses_equal_their_formulas():
    torch.manual_seed(0)
    h, z, e = torch.randn(7, 256), torch.randn(7, 2), torch.randn(7, 2)
    assert float(fdr_loss(h, z)) == pytest.approx(float(losses.fdr_loss(h.double(), z.double())), rel=1e-5)
    squared = float(((e - z) ** 2).mean())
    assert float(losses.vq_loss(z, e, beta=0.25)) == pytest.approx(1.25 * squared, rel=1e-6)


@pytest.mark.parametrize("spread", [0.1, 1.0, 20.0])  # of the map: the last one clamps most similarities
def test_the_gradient_of_the_fdr_loss_is_that_of_its_formula(spread):
    torch.manual_seed(0)
    h, z = torch.randn(300, 16, dtype=torch.float64), spread * torch.randn(300, 2, dtype=torch.float64)
    results = []
    for loss in (fdr_loss, losses.fdr_loss):
        own = [x.clone().requires_grad_() for x in (h, z)]
        value = loss(*own)
        (3 * value).backward()
        results.append([value.detach(), *(x.grad for x in own)])
    for ours, formula in zip(*results, strict=True):
        torch.testing.assert_close(ours, formula, rtol=1e-9, atol=1e-15)


def test_the_fdr_loss_and_its_gradient_are_as_exact_as_float32_allows():
    torch.manual_seed(0)
    h, z = torch.randn(160, 256).relu(), torch.randn(160, 2)
    results = {}
    for name, dtype, bf16 in (("double", torch.float64, False), ("single", torch.float32, False),
                              ("bf16", torch.float32, True)):  # fmt: skip
        own = [x.detach().to(dtype).requires_grad_() for x in (h, z)]
        loss = fdr_loss(*own, bf16=bf16)
        loss.backward()
        results[name] = [loss.detach(), *(x.grad for x in own)]
    for of_loss, of_h, of_z, name in ((1e-5, 1e-5, 1e-5, "single"), (1e-5, 1e-2, 1e-5, "bf16")):
        for tolerance, value, double in zip((of_loss, of_h, of_z), results[name], results["double"], strict=True):
            assert (value - double).norm() / double.norm() < tolerance, name


@pytest.mark.parametrize("size", [64, 16])
def test_the_pool_without_gradient_looks_over_the_last_row_and_column_only(size):
    x = torch.randn(3, 5, size, size)
    with torch.no_grad():
        without = max_pool(x)
    padded = torch.nn.functional.pad(x, (0, 1, 0, 1), value=-torch.inf)  # one row and column after the last only
    assert torch.equal(without, torch.nn.functional.max_pool2d(padded, 3, 2))


@pytest.mark.parametrize("bf16", [False, True])
def test_keeping_less_for_the_backward_pass_changes_no_bit(bf16):
    torch.manual_seed(0)
    obs = torch.randint(0, 4, (2, 3, 64, 64), dtype=torch.uint8)  # few values: many windows have several maxima
    stages = torch.nn.Sequential(ImpalaStage(3, 16), ImpalaStage(16, 32)).to(memory_format=torch.channels_last)

    def textbook(stage, x):
        x = conv_pool(x, stage.conv)
        for block in (stage.block1, stage.block2):
            x = x + block.conv2(block.conv1(x.relu()).relu())
        return x

    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        ours, theirs = stages(obs), textbook(stages[1], textbook(stages[0], obs))
    assert torch.equal(ours, theirs)
    weights = torch.randn_like(ours)
    gradients, expected = (torch.autograd.grad((x * weights).sum(), list(stages.parameters())) for x in (ours, theirs))
    for ours, theirs in zip(gradients, expected, strict=True):
        assert torch.equal(ours, theirs)
