"""The vectorised Procgen games: every game steps, states restore, names and ranges are checked."""

import gc
import threading

import numpy as np
import pytest

from interp_lib import InterpError
from interp_lib.agents.sppo.config import PPOConfig
from interp_lib.envs.actions import ACTION_NAMES, NUM_ACTIONS
from interp_lib.envs.games import GAMES
from interp_lib.envs.names import PROCGEN_GAMES, continuous_task, procgen_game
from interp_lib.envs.procgen import Levels, ProcgenVec


@pytest.mark.parametrize("game", PROCGEN_GAMES)
def test_every_game_steps_in_both_modes(game):
    for mode in ("easy", "hard"):
        env = ProcgenVec(game, 2, Levels(mode))
        step = env.step(np.zeros(2, dtype=np.int64))
        assert step.obs.shape == (2, 64, 64, 3) and step.obs.dtype == np.uint8 and step.obs.max() > 0
        low, high = GAMES[game].score_range(mode)
        assert low < high
        env.close()


def test_levels_come_from_the_range_asked_for():
    env = ProcgenVec("coinrun", 16, Levels(num_levels=3, start_level=100))
    rng = np.random.default_rng(0)
    seen = set(env.level_seeds)
    for _ in range(300):
        env.step(rng.integers(0, NUM_ACTIONS, 16))
        seen |= set(env.level_seeds)
    assert seen == {100, 101, 102}


def test_every_setting_of_the_levels_is_an_option_of_training_with_the_same_default():
    assert Levels.seen(PPOConfig()) == Levels()
    few = PPOConfig(num_levels=10, start_level=7, distribution_mode="hard")
    assert Levels.unseen(few) == Levels("hard", num_levels=100_000, start_level=200_007)
    env = ProcgenVec("coinrun", 1, Levels.seen(few).only(8))
    assert env.level_seeds.tolist() == [8] and env.levels.end == 9


def test_a_restored_state_continues_identically():
    env = ProcgenVec("fruitbot", 4, seed=1)
    actions = np.random.default_rng(0).integers(0, NUM_ACTIONS, (60, 4))
    for a in actions[:20]:
        env.step(a)
    state = env.get_state()
    first = [env.step(a) for a in actions[20:]]
    env.set_state(state)
    for before, a in zip(first, actions[20:], strict=True):
        again = env.step(a)
        np.testing.assert_array_equal(again.obs, before.obs)
        np.testing.assert_array_equal(again.reward, before.reward)


def test_the_same_seed_gives_the_same_levels():
    first, second, other = (ProcgenVec("ninja", 8, seed=s).level_seeds for s in (5, 5, 6))
    np.testing.assert_array_equal(first, second)
    assert (first != other).any()


def test_names():
    assert len(ACTION_NAMES) == NUM_ACTIONS
    assert procgen_game(" CoinRun ") == "coinrun"
    with pytest.raises(InterpError, match="Did you mean ninja"):
        procgen_game("nimja")
    assert continuous_task("LunarLanderContinuous-v3") == "lunarlander"
    assert [continuous_task(str(i)) for i in (0, 6)] == ["pendulum", "carracing"]
    with pytest.raises(InterpError, match="Valid names: pendulum"):
        continuous_task("7")


def test_bad_arguments():
    with pytest.raises(InterpError, match="easy, hard"):
        ProcgenVec("ninja", 1, Levels("medium"))
    with pytest.raises(InterpError, match="num_envs"):
        ProcgenVec("ninja", 0)


@pytest.mark.parametrize("later", [10, 50, 200])
def test_an_environment_made_while_another_is_garbage_does_not_hang(later):
    """What is collected closes, which needs the lock that binding functions holds (as it did 50 objects later)."""

    def make():
        threshold = gc.get_threshold()
        gc.collect()
        gc.disable()
        try:
            old = ProcgenVec("coinrun", 1)
            old.myself = old  # only the collector gets rid of it
            del old
            gc.set_threshold(gc.get_count()[0] + later)
            gc.enable()
            ProcgenVec("coinrun", 1)
        finally:
            gc.set_threshold(*threshold)
            gc.enable()

    thread = threading.Thread(target=make, daemon=True)
    thread.start()
    thread.join(60)
    assert not thread.is_alive()
