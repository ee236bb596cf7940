"""SAC made readable after training: a released agent's decisions, in prototypes that are states it visits."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from interp_lib.agents.protosac import ProtoSAC
from interp_lib.agents.protosac.distilled import distilled, k_medoids, visited_states
from interp_lib.agents.returns import evaluate_continuous
from interp_lib.common.errors import InterpError
from interp_lib.prototypes import PrototypeStudy
from interp_lib.runs.folder import load_agent

STATES, EPISODES = 8_000, 3


@pytest.fixture(scope="module")
def sac(pytestconfig):
    return load_agent(pytestconfig.rootpath / "checkpoints" / "sac-pendulum-s100")


@pytest.fixture(scope="module")
def states(sac):
    return visited_states(sac, "pendulum", STATES, seed=10_000)


@pytest.fixture(scope="module")
def medoids(sac, states):
    return k_medoids(sac, states, 32)


@pytest.fixture(scope="module")
def imitator(sac, states):
    """Of few prototypes: that many k-medoids don't hold the pendulum up."""
    return distilled(sac, states, 32, epochs=30)


def error(agent: ProtoSAC, sac, states: np.ndarray) -> float:
    """Mean square difference of actions, of −2 to 2."""
    return float(
        np.square(agent.predict(states, deterministic=True)[0] - sac.predict(states, deterministic=True)[0]).mean()
    )


def test_states_are_those_of_whole_episodes_and_can_be_had_again(sac, states):
    assert states.shape == (STATES, 3) and states.dtype == np.float32
    first = evaluate_continuous(sac, "pendulum", 1, seed=10_000).lengths[0]
    again = visited_states(sac, "pendulum", int(first) + 1, seed=10_000)
    np.testing.assert_array_equal(again, states[: first + 1])
    assert np.abs(again[first] - again[first - 1]).max() > 10 * np.abs(np.diff(again[:first], axis=0)).mean()


def test_a_medoid_is_a_visited_state_where_sac_decides(sac, states, medoids):
    found = medoids.prototypes
    known = {state.tobytes() for state in states}
    assert len({o.tobytes() for o in found.observations} & known) == 32
    np.testing.assert_allclose(found.actions, sac.predict(found.observations, deterministic=True)[0], atol=1e-3)
    with torch.no_grad():
        _, log_std, _ = sac.actor.get_action_dist_params(torch.as_tensor(found.observations))
    np.testing.assert_allclose(found.action_stds, log_std.exp().numpy(), rtol=1e-3)


def test_medoids_look_like_the_states_they_speak_for_and_cost_return(pytestconfig):
    sac = load_agent(pytestconfig.rootpath / "checkpoints" / "sac-mountaincar-s100")
    agent = k_medoids(sac, visited_states(sac, "mountaincar", 3_000, seed=10_000), 16)
    study = PrototypeStudy.record(agent, "mountaincar", EPISODES)
    leaders = study.likeness.agent
    assert leaders.nearest.low > 0.9 and leaders.near.low > 0.95 and leaders.ratio.high < 0.35
    returns = np.mean([trace.total for trace in study.traces])
    assert study.returns(None).mean() + 100 < returns < study.returns(sac).mean()


def test_medoids_may_look_alike_and_still_not_hold_a_pendulum_up(sac, medoids):
    study = PrototypeStudy.record(medoids, "pendulum", EPISODES)
    assert study.likeness.agent.near.mean > 0.7 and study.likeness.agent.ratio.high < 0.4
    assert study.returns(sac).mean() - np.mean([trace.total for trace in study.traces]) > 500


def test_the_temperature_is_that_of_the_least_error_on_states_held_out(sac, states, medoids):
    held_out, chosen = states[STATES * 3 // 4 :], medoids.actor.temperature
    least = error(medoids, sac, held_out)
    with pytest.MonkeyPatch.context() as patch:
        for temperature in (chosen / 8, chosen * 8):
            patch.setattr(medoids.actor, "temperature", temperature)
            assert error(medoids, sac, held_out) > least
    assert medoids.temperature == chosen


def test_distillation_keeps_sacs_encoder_and_comes_near_its_return(sac, states, imitator):
    own, its = ([p for p in net.parameters()] for net in (imitator.actor.encoder, sac.actor.latent_pi))
    for ours, theirs in zip(own, its, strict=False):
        assert torch.equal(ours, theirs) and not ours.requires_grad
    assert len(own) == len(its) + 2 and own[-1].requires_grad
    only_fitted = distilled(sac, states, 32, epochs=0)
    assert torch.equal(list(only_fitted.actor.encoder.parameters())[-2], torch.eye(256))
    assert error(imitator, sac, states) < 0.9 * error(only_fitted, sac, states)
    returns = evaluate_continuous(imitator, "pendulum", EPISODES).returns.mean()
    own_return, random = (evaluate_continuous(a, "pendulum", EPISODES).returns.mean() for a in (sac, None))
    assert returns > random + 0.8 * (own_return - random)


def test_prototypes_are_where_their_states_are_encoded(imitator):
    found = imitator.prototypes
    assert found.projected and found.latents.shape == (32, 256)
    np.testing.assert_allclose(imitator.encode(found.observations), found.latents, atol=1e-5)
    said = imitator.explain(found.observations)
    np.testing.assert_allclose(said.action, imitator.predict(found.observations, deterministic=True)[0], atol=1e-5)
    with imitator.free_prototypes():  # before its projection there was no other policy
        np.testing.assert_allclose(imitator.explain(found.observations).action, said.action, atol=1e-6)


def test_critics_are_sacs_and_a_run_folder_keeps_all_of_it(sac, imitator, medoids, states, tmp_path):
    observations, actions = torch.as_tensor(states[:64]), torch.zeros(64, 1)
    for i, agent in enumerate((imitator, medoids)):
        read = ProtoSAC.load_run(agent.save_run(tmp_path / str(i)))
        for ours, theirs in zip(read.critic(observations, actions), sac.critic(observations, actions), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-3)
        np.testing.assert_allclose(read.explain(states[:64]).weights, agent.explain(states[:64]).weights, atol=1e-6)


def test_too_few_states_and_nan_are_refused_in_a_line(sac, states):
    with pytest.raises(InterpError, match=r"^40 states are too few for 32 prototypes\. Let SAC play longer\.$"):
        k_medoids(sac, states[:40], 32)
    with pytest.raises(InterpError, match="NaN"):
        distilled(sac, np.full_like(states[:200], np.nan), 4)
