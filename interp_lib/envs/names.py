"""The environments of both papers by name, and what to say when a name is not one of them."""

from __future__ import annotations

import difflib

from ..common.errors import InterpError

PROCGEN_GAMES: tuple[str, ...] = (
    "bigfish", "bossfight", "caveflyer", "chaser", "climber", "coinrun", "dodgeball", "fruitbot",
    "heist", "jumper", "leaper", "maze", "miner", "ninja", "plunder", "starpilot",
)  # fmt: skip

# Short name → Gymnasium id, in the order of the original project's numeric ``--environment 0..6``.
CONTINUOUS_TASKS: dict[str, str] = {
    "pendulum": "Pendulum-v1",
    "lunarlander": "LunarLanderContinuous-v3",
    "mountaincar": "MountainCarContinuous-v0",
    "halfcheetah": "HalfCheetah-v5",
    "humanoid": "Humanoid-v5",
    "hopper": "Hopper-v5",
    "carracing": "CarRacing-v3",
}


MOST_SEEDS = 2**31

# As Procgen's authors write the names that capitals alone don't give.
_GAME_TITLES = {
    "coinrun": "CoinRun", "fruitbot": "FruitBot", "starpilot": "StarPilot", "caveflyer": "CaveFlyer",
    "bigfish": "BigFish", "bossfight": "BossFight",
}  # fmt: skip


def game_title(game: str) -> str:
    """How a Procgen game is written for people, e.g. ``CoinRun``."""
    return _GAME_TITLES.get(game, game.capitalize())


def procgen_game(name: str) -> str:
    """Return the canonical name of a Procgen game.

    Raises:
        InterpError: unknown name; the message lists the nearest valid ones.
    """
    key = name.strip().lower()
    if key in PROCGEN_GAMES:
        return key
    raise InterpError(_unknown("Procgen game", name, PROCGEN_GAMES))


def continuous_task(name: str) -> str:
    """Return the short name of a continuous task given its short name, Gymnasium id or original number 0..6.

    Raises:
        InterpError: unknown name; the message lists the nearest valid ones.
    """
    key = name.strip().lower()
    if key in CONTINUOUS_TASKS:
        return key
    if key in (numbers := [str(n) for n in range(len(CONTINUOUS_TASKS))]):
        return list(CONTINUOUS_TASKS)[numbers.index(key)]
    by_id = {gym_id.lower(): short for short, gym_id in CONTINUOUS_TASKS.items()}
    if key in by_id:
        return by_id[key]
    raise InterpError(_unknown("continuous task", name, tuple(CONTINUOUS_TASKS)))


def check_seed(seed: int | None) -> None:
    """Refuse a seed before anything runs with it; None means none was given.

    Raises:
        InterpError: it is outside what all environments and libraries take, 31 bits without a sign.
    """
    if seed is not None and not 0 <= seed < MOST_SEEDS:
        raise InterpError(f"a seed is a whole number from 0 to {MOST_SEEDS - 1:,}, not {seed}.")


def _unknown(kind: str, name: str, valid: tuple[str, ...]) -> str:
    near = difflib.get_close_matches(name.lower(), valid, n=3, cutoff=0.5)
    hint = f"Did you mean {' or '.join(near)}?" if near else f"Valid names: {', '.join(valid)}."
    return f"unknown {kind} '{name}'. {hint}"
