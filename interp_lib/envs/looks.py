"""The same game drawn otherwise: its state stays, dice included, and pixels don't.

A saved game says how it is drawn: Procgen's options ``use_backgrounds`` and ``use_monochrome_assets``, and which of its
own backgrounds and grounds a level has, which no option chooses. So a look is a few numbers that are written there.
The option ``restrict_themes`` would not do: FruitBot's fruit are as large as their pictures, so others change the game.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from .gamestate import GameState, read_state, rewrite

# How many there are: resources.cpp (49 for platforms and 13 of space; 9 from above) and the games' own files.
CHOICES: dict[str, dict[str, int]] = {
    "coinrun": {"background_index": 62, "wall_theme": 6},
    "fruitbot": {"background_index": 9},
    "jumper": {"background_index": 62, "wall_theme": 4},
    "ninja": {"background_index": 62, "wall_theme": 3},
}
ANOTHER = -1  # another of CHOICES, the same one throughout a level
LOOKS: dict[str, Mapping[str, int]] = {
    "other background": {"background_index": ANOTHER},
    "other background and ground": {"background_index": ANOTHER, "wall_theme": ANOTHER},
    "no background": {"use_backgrounds": 0},
    "monochrome": {"use_monochrome_assets": 1},
}


def looks_of(game: str) -> list[str]:
    """Those of :data:`LOOKS` that ``game`` can have; none of a game whose states can't be read."""
    choices = CHOICES.get(game, {})
    return [
        name for name, look in LOOKS.items() if choices and all(n in choices for n, v in look.items() if v == ANOTHER)
    ]


def redraw(state: GameState, look: str) -> bytes:
    """``state`` in one of the looks of its game (:func:`looks_of`), for ``ProcgenVec.set_state``."""
    dice = np.random.default_rng(int(state.values["current_level_seed"]))
    numbers = {}
    for name, number in LOOKS[look].items():
        if number == ANOTHER:
            among = CHOICES[state.game][name]
            number = (int(state.values[name]) + int(dice.integers(1, among))) % among
        numbers[name] = number
    return rewrite(state, numbers)


def undo(state: bytes, look: str, original: GameState) -> bytes:
    """``state``, in ``look``, drawn as ``original`` is: equal to it where nothing but the look was another."""
    return rewrite(read_state(state), {name: int(original.values[name]) for name in LOOKS[look]})
