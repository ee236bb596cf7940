"""What Procgen's 15 actions do in each game: most games give several of them the same effect.

Actions are a joystick's nine positions and six buttons. In CoinRun no button does anything, in FruitBot up and down
are ignored and D throws a key.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from .games import GAMES

NUM_ACTIONS = 15
# In Procgen's order: a joystick's nine positions, then six buttons.
ACTION_NAMES: tuple[str, ...] = (
    "left-down", "left", "left-up", "down", "noop", "up", "right-down", "right", "right-up",
    "D", "A", "W", "S", "Q", "E",
)  # fmt: skip


def _numbers(effects: Mapping[str, str]) -> dict[str, tuple[int, ...]]:
    named = {effect: set(map(ACTION_NAMES.index, names.split())) for effect, names in effects.items()}
    idle = set(range(NUM_ACTIONS)).difference(*named.values())
    noop = ACTION_NAMES.index("noop")
    return {effect: tuple(sorted(actions | idle if noop in actions else actions)) for effect, actions in named.items()}


#: Game → effect, in the order they are shown in → the actions that have it. Every action stands in exactly one effect.
ACTION_EFFECTS: Mapping[str, Mapping[str, tuple[int, ...]]] = {g: _numbers(game.effects) for g, game in GAMES.items()}


def effect_of(game: str, action: int) -> str:
    """What ``action`` (0 to 14) does in ``game``."""
    return next(effect for effect, actions in ACTION_EFFECTS[game].items() if action in actions)


def by_effect(probabilities: np.ndarray, game: str) -> np.ndarray:
    """Add up what has the same effect in ``game``: (..., 15) → (..., m), in the order of ``ACTION_EFFECTS[game]``."""
    return np.stack([probabilities[..., list(actions)].sum(-1) for actions in ACTION_EFFECTS[game].values()], -1)
