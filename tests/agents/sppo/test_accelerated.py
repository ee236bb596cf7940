"""Captured acting and compiled learning train as what they stand for, resume to the bit, and are left out if not."""

import copy
import functools

import numpy as np
import pytest
import torch
from captures import failing, recording
from conftest import TINY

from interp_lib import PPO, SPPO
from interp_lib.common.compute import has_cpp_compiler
from interp_lib.envs.procgen import ProcgenGroups

CLOCK = {"fps", "time_elapsed"}
SMALL = TINY | {"num_envs": 4, "num_steps": 8, "num_epochs": 1}


def trainer(cls=PPO, compile=False, capture=None, **options):
    agent = cls("fruitbot", seed=0, device="cpu", **SMALL | options)
    agent._set_training_precision(on=True)
    result = agent._make_trainer()
    result.accelerate(compile, steps=1000, capture=capture)
    return result


def same_rows(first, second):
    for name in first.keys() - CLOCK:
        np.testing.assert_equal(first[name], second[name], err_msg=name)  # NaN equals NaN


def same_weights(first, second):
    for (name, a), b in zip(first.network.state_dict().items(), second.network.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


@pytest.fixture()
def small_compiler(monkeypatch):
    """torch.compile without what writes C++: traced, differentiated as a graph and run, in seconds."""
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))
    torch._dynamo.reset()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_captured_acting_is_acting_to_the_bit(precision, capsys):
    plain, captured = (trainer(SPPO, capture=capture, precision=precision) for capture in (None, recording))
    for each in (captured, plain):
        each.regroup(2, 0)
    for _ in range(2):
        same_rows(captured.update(), plain.update())
    same_weights(captured, plain)
    assert [acting.fast for acting in captured._acting.values()] == [True, True] and capsys.readouterr().err == ""


def test_acting_that_cannot_be_captured_goes_on_as_it_is_and_says_so_once(capsys):
    plain, failed = trainer(), trainer(capture=failing)
    for _ in range(2):
        same_rows(failed.update(), plain.update())
    line = capsys.readouterr().err
    assert line.count("\n") == 1 and line.startswith("acting could not be captured and runs as it is, slower: Runtime")


def test_actions_are_drawn_as_by_multinomial():
    obs = torch.randint(0, 256, (1, 64, 64, 3), dtype=torch.uint8).expand(8, -1, -1, -1)
    drawn = trainer()
    with torch.no_grad():
        drawn.network.policy.weight.mul_(300)  # far from uniform
        logits = drawn.network(obs).logits
    dice = torch.Generator().manual_seed(0)
    expected = torch.multinomial(logits.softmax(-1), 1, generator=dice)[:, 0]
    action, log_prob, *_ = drawn.choose_actions(obs, torch.empty(8, 15).exponential_(generator=dice.manual_seed(0)))
    assert torch.equal(action, expected) and len(action.unique()) > 1
    torch.testing.assert_close(log_prob, logits.log_softmax(-1)[0, action], atol=1e-5, rtol=1e-5)


def test_levels_do_not_depend_on_how_environments_are_grouped():
    one, two, four = (ProcgenGroups("coinrun", 8, groups=groups, seed=3) for groups in (1, 2, 4))
    assert one.get_state() == two.get_state() == four.get_state()
    np.testing.assert_array_equal(one.observation, four.observation)


def test_trying_groups_changes_nothing_but_their_number():
    plain, tried = trainer(), trainer()
    assert tried.fastest_groups((1, 2)) in (1, 2)
    tried.regroup(1)
    same_rows(tried.update(), plain.update())
    same_weights(tried, plain)


def test_compiled_learning_is_learning_and_resumes_to_the_bit(small_compiler, capsys):
    plain, compiled = trainer(SPPO), trainer(SPPO, compile=True, capture=recording)
    for each in (plain, compiled):
        each.skill_weight = 0.5  # as in the middle of training
    first, expected = compiled.update(), plain.update()
    for name in first.keys() - CLOCK - {"eprewmean", "eplenmean"}:
        assert first[name] == pytest.approx(expected[name], rel=1e-4, abs=1e-6), name
    stopped = copy.deepcopy(compiled.state_dict())
    straight, weights = compiled.update(), copy.deepcopy(compiled.network)
    compiled.load_state_dict(stopped)
    same_rows(compiled.update(), straight)
    assert all(torch.equal(a, b) for a, b in zip(compiled.network.parameters(), weights.parameters(), strict=True))
    assert compiled.updater.gradients.fast and capsys.readouterr().err == ""


def test_a_compiler_that_gives_other_numbers_is_not_used(monkeypatch, capsys):
    def halves(graph, inputs):
        return lambda *args: tuple(x / 2 if x.is_floating_point() else x for x in graph(*args))

    torch._dynamo.reset()
    plain = trainer(PPO)
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=halves))
    wrong = trainer(PPO, compile=True)
    for _ in range(2):
        same_rows(wrong.update(), plain.update())
    line = capsys.readouterr().err
    assert line.count("\n") == 1 and line.startswith(
        "learning could not be compiled and runs as it is, slower: output "
    )


def test_a_state_of_a_gpu_whose_optimiser_was_fused_goes_on_as_one_of_this_device():
    plain, moved = trainer(), trainer()
    plain.update()
    state = copy.deepcopy(plain.state_dict())
    state["optimizer"]["param_groups"][0]["fused"] = True
    moved.load_state_dict(state)
    assert moved.updater.optimizer.param_groups[0]["fused"] is None
    same_rows(moved.update(), plain.update())


@pytest.mark.slow
@pytest.mark.skipif(not has_cpp_compiler(), reason="torch.compile needs a C++ compiler")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_what_inductor_writes_learns_the_same(precision, capsys):
    torch._dynamo.reset()
    plain, compiled = (trainer(SPPO, compile, precision=precision) for compile in (False, True))
    for each in (plain, compiled):
        each.skill_weight = 0.5
    first, expected = compiled.update(), plain.update()
    tolerance = 1e-3 if precision == "fp32" else 5e-2
    for name in ("loss", "value_loss", "skill_loss", "vq_loss", "policy_entropy"):
        assert first[name] == pytest.approx(expected[name], rel=tolerance, abs=tolerance), name
    assert compiled.updater.gradients.fast and capsys.readouterr().err == ""
