"""What actions do in a game, measured in the game itself."""

import numpy as np
import pytest

from interp_lib.clusters.collect import collect_states
from interp_lib.clusters.study import ClusterStudy
from interp_lib.envs.actions import ACTION_EFFECTS, ACTION_NAMES, NUM_ACTIONS, by_effect, effect_of
from interp_lib.envs.names import PROCGEN_GAMES
from interp_lib.envs.procgen import ProcgenVec
from interp_lib.runs.folder import load_agent


def test_every_action_has_exactly_one_effect_in_every_game():
    assert set(ACTION_EFFECTS) == set(PROCGEN_GAMES)
    for game, effects in ACTION_EFFECTS.items():
        assert sorted(a for actions in effects.values() for a in actions) == list(range(NUM_ACTIONS)), game
    assert effect_of("fruitbot", ACTION_NAMES.index("D")) == "throw key"
    assert effect_of("fruitbot", ACTION_NAMES.index("left-up")) == effect_of("fruitbot", ACTION_NAMES.index("left"))


def consequences(env, state):
    """Frames, rewards and ends of three steps: each action once from ``state``, then nothing is pressed."""
    env.set_state([state] * NUM_ACTIONS)
    steps = [env.step(np.arange(NUM_ACTIONS)), *(env.step(np.full(NUM_ACTIONS, 4)) for _ in range(2))]
    return [
        b"".join(s.obs[a].tobytes() + s.reward[a].tobytes() + s.done[a].tobytes() for s in steps) for a in range(15)
    ]


@pytest.mark.parametrize("game", PROCGEN_GAMES)
def test_actions_share_an_effect_exactly_when_the_game_cannot_tell_them_apart(game):
    """From 96 states and more: the same effect, always the same consequences; two effects, at least once others."""
    explorer, env = ProcgenVec(game, 64, seed=5), ProcgenVec(game, NUM_ACTIONS, seed=1)
    rng = np.random.default_rng(0)
    same, states = np.ones((NUM_ACTIONS, NUM_ACTIONS), bool), 0
    wanted: set[tuple[int, ...]] = set(ACTION_EFFECTS[game].values())
    groups: set[tuple[int, ...]] = set()
    held = rng.integers(0, NUM_ACTIONS, 64)
    while states < 96 or (states < 800 and groups != wanted):  # only somebody on a crate, in CoinRun, can let go of it
        for _ in range(12):
            explorer.step(np.where(rng.random(64) < 0.75, held, rng.integers(0, NUM_ACTIONS, 64)))
        held = rng.integers(0, NUM_ACTIONS, 64)  # held for a while, or nobody gets anywhere
        for state in explorer.get_state()[::4]:
            found, states = consequences(env, state), states + 1
            same &= np.array([[a == b for b in found] for a in found])
        groups = {tuple(np.flatnonzero(row).tolist()) for row in same}
    assert groups == wanted


def test_a_clusters_actions_are_the_policys_and_not_the_dice(tiny_sppo, tmp_path):
    agent = load_agent(tiny_sppo, device="cpu")
    states = collect_states(agent, tmp_path / "s.h5", steps=12, num_envs=8, random_action=1.0, progress=False)
    rows = np.flatnonzero(states.kept)
    study = ClusterStudy(agent, states)
    probabilities, effects = study.policy[rows], study.effects[rows]
    np.testing.assert_allclose(effects.sum(1), 1, atol=1e-5)
    np.testing.assert_allclose(effects[:, 0], probabilities[:, :3].sum(1), atol=1e-6)  # steer left
    np.testing.assert_array_equal(by_effect(probabilities, "fruitbot"), effects)
    table = study.actions
    assert list(table.columns) == list(ACTION_EFFECTS["fruitbot"])
    k = states.code[rows][0]
    np.testing.assert_allclose(table.loc[k], effects[states.code[rows] == k].mean(0), atol=1e-6)
