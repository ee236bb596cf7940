"""The environments of both papers by name, and what to say when a name is not one of them."""

from __future__ import annotations

import difflib

from ..common.errors import InterpError
from .games import GAMES
from .tasks import TASKS, TaskInfo

PROCGEN_GAMES: tuple[str, ...] = tuple(GAMES)
# Short name → Gymnasium id, in the order of the original project's numbers.
CONTINUOUS_TASKS: dict[str, str] = {name: task.gym_id for name, task in TASKS.items()}
MOST_SEEDS = 2**31


def env_title(env: str) -> str:
    """How an environment is written for people, e.g. ``CoinRun`` or ``HalfCheetah``."""
    record = GAMES.get(env) or TASKS.get(env)
    return record.title if record is not None else env.capitalize()


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
    for number, task in enumerate(TASKS.values()):
        if key in (task.name, task.gym_id.lower(), str(number)):
            return task.name
    raise InterpError(_unknown("continuous task", name, tuple(TASKS)))


def task_info(name: str) -> TaskInfo:
    """The record of a task, by any of its names; see :func:`continuous_task`."""
    return TASKS[continuous_task(name)]


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
