"""What Procgen's 15 actions do in each game: most games give several of them the same effect.

Actions are a joystick's nine positions and six buttons. In CoinRun no button does anything, in FruitBot up and down
are ignored and D throws a key. The table was measured and named with the games' source in hand: actions share an effect
when, taken in the same state of the game, they gave the same frames, reward and end in every one of 192 states
(``tests/test_actions.py`` measures it again).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

NUM_ACTIONS = 15
# In Procgen's order: a joystick's nine positions, then six buttons.
ACTION_NAMES: tuple[str, ...] = (
    "left-down", "left", "left-up", "down", "noop", "up", "right-down", "right", "right-up",
    "D", "A", "W", "S", "Q", "E",
)  # fmt: skip

_ALL_WAYS = {
    "left down": "left-down", "left": "left", "left up": "left-up", "down": "down", "stay": "noop", "up": "up",
    "right down": "right-down", "right": "right", "right up": "right-up",
}  # fmt: skip
_FOUR_WAYS = {
    "left": "left-down left left-up", "down": "down", "stay": "noop", "up": "up", "right": "right-down right right-up",
}  # fmt: skip
_SIDEWAYS = {"left": "left-down left left-up", "straight": "down noop up", "right": "right-down right right-up"}
_JUMPING = {
    "left": "left-down left", "left jump": "left-up", "stay": "down noop", "jump": "up",
    "right": "right-down right", "right jump": "right-up",
}  # fmt: skip
_PLATFORM = {  # down lets go of a crate
    "left drop": "left-down", "left": "left", "left jump": "left-up", "drop": "down", "stay": "noop", "jump": "up",
    "right drop": "right-down", "right": "right", "right jump": "right-up",
}  # fmt: skip

# Game → effect → its actions by name. Buttons that stand nowhere do what the noop does.
_EFFECTS: dict[str, dict[str, str]] = {
    "coinrun": _PLATFORM,
    "starpilot": {**_ALL_WAYS, "shoot": "D W S Q E", "shoot back": "A"},
    "caveflyer": {**_ALL_WAYS, "shoot": "D"},
    "dodgeball": {**_ALL_WAYS, "throw ball": "D"},
    "fruitbot": {**_SIDEWAYS, "throw key": "D"},
    "chaser": _ALL_WAYS,
    "miner": _FOUR_WAYS,
    "jumper": _JUMPING,
    "leaper": _FOUR_WAYS,
    "maze": _FOUR_WAYS,
    "bigfish": _ALL_WAYS,
    "heist": _ALL_WAYS,
    "climber": _JUMPING,
    "plunder": {**_SIDEWAYS, "shoot": "D"},
    "ninja": {**_JUMPING, "star ahead": "D Q E", "star up ahead": "A", "star up": "W", "star down ahead": "S"},
    "bossfight": {**_ALL_WAYS, "shoot": "D"},
}


def _effects(game: str) -> Mapping[str, tuple[int, ...]]:
    named = {effect: tuple(map(ACTION_NAMES.index, names.split())) for effect, names in _EFFECTS[game].items()}
    idle = set(range(NUM_ACTIONS)).difference(*named.values())
    return MappingProxyType(
        {
            effect: tuple(sorted({*actions, *idle})) if ACTION_NAMES.index("noop") in actions else actions
            for effect, actions in named.items()
        }
    )


#: Game → effect, in the order they are shown in → the actions that have it. Every action stands in exactly one effect.
ACTION_EFFECTS: Mapping[str, Mapping[str, tuple[int, ...]]] = MappingProxyType({g: _effects(g) for g in _EFFECTS})


def effect_of(game: str, action: int) -> str:
    """What ``action`` (0 to 14) does in ``game``."""
    return next(effect for effect, actions in ACTION_EFFECTS[game].items() if action in actions)


def by_effect(probabilities: np.ndarray, game: str) -> np.ndarray:
    """Add up what has the same effect in ``game``: (..., 15) → (..., m), in the order of ``ACTION_EFFECTS[game]``."""
    return np.stack([probabilities[..., list(actions)].sum(-1) for actions in ACTION_EFFECTS[game].values()], -1)
