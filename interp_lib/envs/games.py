"""The 16 Procgen games: all that is true of one stands in its record.

What actions do was measured and named with the games' source in hand: actions share an effect when, taken in the same
state of the game, they gave the same frames, reward and end in every one of 192 states (``tests/envs/test_actions.py``
measures it again).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

MODES = ("easy", "hard")


@dataclass(frozen=True)
class Game:
    """What is true of one game.

    Attributes:
        title: as Procgen's authors write it; its name is that in small letters.
        easy, hard: (R_min, R_max) of the Procgen benchmark paper (Cobbe et al. 2020, appendix C): R_min is the return
            of an agent that sees no observation, R_max the best possible or, where unknown, the best reached.
        effects: what people see → the actions that do it, by name (:mod:`.actions`). Buttons that stand nowhere do
            what the noop does.
    """

    title: str
    easy: tuple[float, float]
    hard: tuple[float, float]
    effects: Mapping[str, str]

    @property
    def name(self) -> str:
        """As commands and Procgen spell it."""
        return self.title.lower()

    def score_range(self, mode: str) -> tuple[float, float]:
        """(R_min, R_max) in one of :data:`MODES`."""
        return {"easy": self.easy, "hard": self.hard}[mode]


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
_STARS = {"star ahead": "D Q E", "star up ahead": "A", "star up": "W", "star down ahead": "S"}
_SHOOT = {"shoot": "D"}

_GAMES = (
    Game("BigFish", (1, 40), (0, 40), _ALL_WAYS),
    Game("BossFight", (0.5, 13), (0.5, 13), _ALL_WAYS | _SHOOT),
    Game("CaveFlyer", (3.5, 12), (2, 13.4), _ALL_WAYS | _SHOOT),
    Game("Chaser", (0.5, 13), (0.5, 14.2), _ALL_WAYS),
    Game("Climber", (2, 12.6), (1, 12.6), _JUMPING),
    Game("CoinRun", (5, 10), (5, 10), _PLATFORM),
    Game("Dodgeball", (1.5, 19), (1.5, 19), _ALL_WAYS | {"throw ball": "D"}),
    Game("FruitBot", (-1.5, 32.4), (-0.5, 27.2), _SIDEWAYS | {"throw key": "D"}),
    Game("Heist", (3.5, 10), (2, 10), _ALL_WAYS),
    Game("Jumper", (3, 10), (1, 10), _JUMPING),
    Game("Leaper", (3, 10), (1.5, 10), _FOUR_WAYS),
    Game("Maze", (5, 10), (4, 10), _FOUR_WAYS),
    Game("Miner", (1.5, 13), (1.5, 20), _FOUR_WAYS),
    Game("Ninja", (3.5, 10), (2, 10), _JUMPING | _STARS),
    Game("Plunder", (4.5, 30), (3, 30), _SIDEWAYS | _SHOOT),
    Game("StarPilot", (2.5, 64), (1.5, 35), _ALL_WAYS | {"shoot": "D W S Q E", "shoot back": "A"}),
)
GAMES: dict[str, Game] = {game.name: game for game in _GAMES}
