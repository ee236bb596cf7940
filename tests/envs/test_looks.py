"""Looks: another picture of the same game, whose course nothing in them changes."""

import numpy as np
import pytest

from interp_lib.envs.actions import ACTION_NAMES, NUM_ACTIONS
from interp_lib.envs.gamestate import GAMES_READ, read_state, rewrite
from interp_lib.envs.looks import CHOICES, looks_of, redraw, undo
from interp_lib.envs.procgen import Levels, ProcgenVec, can_restore

NUM_ENVS = 6


@pytest.mark.parametrize(("game", "look"), [(game, look) for game in GAMES_READ for look in looks_of(game)])
def test_the_same_actions_give_the_same_game_in_every_look(game, look):
    """To the last byte of the state; going right at random ends many of FruitBot's episodes."""
    played, painted = (ProcgenVec(game, NUM_ENVS, seed=4) for _ in range(2))
    painted.set_state([redraw(read_state(state), look) for state in played.get_state()])
    assert (painted.observation != played.observation).any((1, 2, 3)).all()
    rng, ends = np.random.default_rng(0), 0
    for _ in range(60):
        action = np.where(
            rng.random(NUM_ENVS) < 0.5, ACTION_NAMES.index("right"), rng.integers(0, NUM_ACTIONS, NUM_ENVS)
        )
        one, other = played.step(action), painted.step(action)
        assert np.array_equal(one.reward, other.reward) and np.array_equal(one.done, other.done)
        ends += one.done.sum()
    pairs = zip(painted.get_state(), map(read_state, played.get_state()), strict=True)
    assert all(undo(state, look, original) == original.raw for state, original in pairs)
    assert ends or game != "fruitbot"


def test_a_look_lasts_for_a_level_and_games_have_those_they_can():
    env = ProcgenVec("ninja", 2, seed=0)
    before = [redraw(read_state(state), "other background and ground") for state in env.get_state()]
    env.step(np.array([7, 7]))
    after = [redraw(read_state(state), "other background and ground") for state in env.get_state()]
    env.set_state(before)
    first = env.observation
    env.set_state(after)
    assert np.abs(first.astype(int) - env.observation).mean() < 20  # one step on, and not another background
    assert looks_of("fruitbot") == ["other background", "no background", "monochrome"] and looks_of("maze") == []
    assert len(looks_of("coinrun")) == 4


@pytest.mark.parametrize(("game", "name"), [(game, name) for game, of in CHOICES.items() for name in of])
def test_each_choice_is_another_picture(game, name):
    count = CHOICES[game][name]
    env = ProcgenVec(game, 1, seed=1)
    state, frames = read_state(env.get_state()[0]), set()
    for number in range(count):
        env.set_state([rewrite(state, {name: number})])
        frames.add(env.observation.tobytes())
    assert len(frames) > 0.9 * count  # where nothing but sky is in sight, a few are alike


@pytest.mark.parametrize("game", ["coinrun", "fruitbot"])  # from the side, from above
def test_there_are_no_more_backgrounds(game):
    state = read_state(ProcgenVec(game, 1).get_state()[0])
    last = CHOICES[game]["background_index"] - 1
    assert can_restore(game, Levels(), [rewrite(state, {"background_index": last})])
    assert not can_restore(game, Levels(), [rewrite(state, {"background_index": last + 1})])
