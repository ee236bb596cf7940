"""Is the code used? The released agents hardly read it, and agents that are made to read it are found out."""

import copy
import dataclasses
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from recorded import collected

from interp_lib import InterpError, load_agent
from interp_lib.clusters.collect import collect_states
from interp_lib.clusters.intervention import WHOLE, OtherCode, changed_returns, code_changes, code_effect, code_verdict
from interp_lib.clusters.study import ClusterStudy

CHECKPOINTS = Path(__file__).resolve().parents[2] / "checkpoints"


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return collected(tmp_path_factory.mktemp("states"), "sppo-coinrun-s2021", steps=10, num_envs=16)


def reading(agent, strength):
    """``agent``, with the first action the likelier the larger its code is."""
    changed = copy.deepcopy(agent)
    with torch.no_grad():
        changed.network.policy.weight[0] += strength / 256  # over all of h: what shifts by k/K shifts the logit
    return changed


def test_a_released_agent_hardly_reads_its_code_and_one_made_to_is_found_to(study):
    table = code_effect(study)
    assert 0 < table.loc["shuffled", "KL (share of entropy) high"] < 0.01
    assert table.loc[WHOLE, "KL (share of entropy) low"] > 0.1
    assert (table["states"] == study.states.kept.sum()).all() and "hardly reads" in code_verdict(table)
    shares = code_changes(study.states)["shuffled"]
    always = table.loc[[f"always {k}" for k in range(8)]]
    for column in ("KL (nats)", "other most probable action", "change of value (SD)"):
        assert table.loc["shuffled", column] == pytest.approx(shares @ always[column].to_numpy(float))
        assert table.loc["random", column] == pytest.approx(always[column].mean())
    reader = dataclasses.replace(study, agent=reading(study.agent, 30.0))
    used = code_effect(reader)
    assert used.loc["shuffled", "KL (share of entropy) low"] > 0.01 and "uses the code" in code_verdict(used)


def test_divergence_and_changes_by_hand(study):
    """Logit of one action 0 under code 0 and log 3 under code 1, values 0 and 1, half of the states each."""
    agent = copy.deepcopy(study.agent)
    with torch.no_grad():
        for head in (agent.network.policy, agent.network.value):
            head.weight.zero_()
            head.bias.zero_()
        agent.network.policy.weight[4, 0], agent.network.value.weight[0, 0] = 8 * math.log(3), 8
    states = study.states
    states = dataclasses.replace(
        states, feature=np.zeros_like(states.feature), code=states.t % 2, kept=np.ones(len(states), bool)
    )
    table = code_effect(ClusterStudy(agent, states))
    to_1, to_0 = math.log(17 / 15) - math.log(3) / 15, 3 / 17 * math.log(3) + math.log(15 / 17)
    assert table.loc["shuffled", "KL (nats)"] == pytest.approx((to_1 + to_0) / 4)
    assert table.loc["always 0", "KL (nats)"] == pytest.approx(to_0 / 2)
    assert table.loc["always 1", "KL (nats) low"] == pytest.approx(to_1 / 2) == table.loc["always 1", "KL (nats) high"]
    entropy = (math.log(15) + math.log(17) - 3 / 17 * math.log(3)) / 2
    assert table.loc["always 1", "KL (share of entropy)"] == pytest.approx(to_1 / 2 / entropy)
    assert table.loc["shuffled", "other most probable action"] == pytest.approx(0.5)  # wherever the code is another
    assert table.loc["shuffled", "other most probable effect"] == 0  # action 4 stays, and staying always is likeliest
    assert table.loc["shuffled", "change of value (SD)"] == pytest.approx(0.5 / 0.5)


def test_play_is_paired_and_changed_by_nothing_but_the_code(tiny_sppo):
    """All states have code 3: with it always, episodes are the same; with another, what reads it plays otherwise."""
    agent = reading(load_agent(tiny_sppo, device="cpu"), 400.0)
    with torch.no_grad():
        agent.network.semantic.codebook.fill_(1e6)
        agent.network.semantic.codebook[3] = 0
        agent.network.encoder.dense.weight.zero_()  # h is 0: the code is all that the policy sees
        agent.network.encoder.dense.bias.zero_()
        agent.network.policy.bias[0] -= 400 * 5 / 8
    always = np.eye(8)
    table = changed_returns(agent, {"always 3": always[3], "always 7": always[7]}, 10)
    assert table.loc["always 3", ["difference", "difference low", "difference high"]].tolist() == [0, 0, 0]
    assert table.loc["always 3", "p"] == 1 and table.loc["always 7", "difference"] != 0
    obs = np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3), dtype=np.uint8)
    own, other = agent.embed(obs), OtherCode(agent, always[7]).embed(obs)
    assert (own.code == 3).all() and (other.code == 3).all() and (other.logits[:, 0] > own.logits[:, 0] + 100).all()


def test_the_verdict_needs_both_and_can_fall_either_way(study):
    effect = code_effect(study)
    row = {"episodes": 200, "return": 8.0, "difference": -1.0, "difference low": -2.0, "difference high": 0.1, "p": 0.1}
    played = pd.DataFrame([row, row], index=["own", "shuffled"])
    assert "does not use the code" in code_verdict(effect, played) and "do not differ" in code_verdict(effect, played)
    worse = code_verdict(effect, played.assign(p=0.01))
    assert "uses the code" in worse and "returns differ with other codes" in worse and "-1.00 [-2.00, 0.10]" in worse
    large = effect.assign(**{"KL (share of entropy) high": 0.011})
    assert "uses the code" in code_verdict(large, played)


def test_an_agent_without_codes_is_refused(tiny_ppo, tmp_path):
    agent = load_agent(tiny_ppo, device="cpu")
    states = collect_states(agent, tmp_path / "s.h5", steps=4, num_envs=4, progress=False)
    with pytest.raises(InterpError, match="has no clusters to change"):
        code_effect(ClusterStudy(agent, states))
