"""Named quantities of a game's state: what a person would say of a frame, from the game's own numbers.

Each is defined by what the game itself does with it (openai/procgen, ``procgen/src``): what stands, falls, blocks and
kills is in ``games/*.cpp`` under ``set_action_xy``, ``can_support``, ``is_blocked`` and ``handle_*_collision``, what a
step does with a body in basic-abstract-game.cpp under ``sub_step`` and ``has_collision``. Distances are between edges,
so 0 is touching, and end where the frame ends: what it doesn't show is NaN, as is what isn't there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from .gamestate import GameState

SPACE = 100  # object-ids.h
# games/*.cpp; numbers mean other things in other games
LAVA, SAW, ENEMY, CRATE, COIN = (17, 18), 2, 5, 20, 1
MUSHROOM, BOMB, FIRE = 1, 6, 14
CARROT, SPIKE = 1, 2
BARRIER, BAD_OBJ, GOOD_OBJ, LOCKED_DOOR, PRESENT = 1, 4, 7, 10, 12
KEY_DURATION = 8
WALLS = {"coinrun": (15, 16), "jumper": (6, 7), "ninja": (20,)}  # is_wall
_CORNER = 0.98  # sub_step: how much of a body's half height walls can stop
_NEAR = 0.01  # set_action_xy: how far below its feet and within its sides a body looks for support


class Concept(NamedTuple):
    """What a number of :func:`concepts` is: its unit (``"yes/no"`` for 1 and 0), a phrase for it, and whether a frame
    shows it; what it doesn't show can still be known by what it goes along with."""

    unit: str
    phrase: str
    shown: bool = True


_BODY = {
    "x": Concept("cells", "place along the level", shown=False),
    "y": Concept("cells", "height in the level", shown=False),
    "vx": Concept("cells/step", "speed to the right"),
    "vy": Concept("cells/step", "speed upwards"),
}
_LEGS = {
    "on_ground": Concept("yes/no", "can jump off what it stands on"),
    "height": Concept("cells", "height of the feet above the ground below"),
    "wall_ahead": Concept("cells", "distance to the next wall"),
    "wall_rise": Concept("cells", "height of the next wall above the feet, as far as it shows"),
    "ledge_ahead": Concept("cells", "distance to where the ground ends"),
}
_DROP = {"ledge_drop": Concept("cells", "depth of the fall at the ledge")}
_GOAL = {
    "goal_ahead": Concept("cells", "distance to the goal in the frame"),
    "goal_above": Concept("cells", "height of the goal in the frame above the agent"),
    "level_left": Concept("cells", "way to the goal along the level, in the frame or not", shown=False),
}
#: Game → concept → what it is. Ahead is to the right in CoinRun and Ninja, where the agent faces in Jumper, and up in
#: FruitBot.
CONCEPTS: Mapping[str, Mapping[str, Concept]] = {
    "coinrun": {
        **_BODY, **_LEGS, **_DROP,
        "lava_ahead": Concept("cells", "distance to the next lava"),
        "saw_ahead": Concept("cells", "distance to the next saw"),
        "enemy_ahead": Concept("cells", "distance to the next walking enemy"),
        "crate_ahead": Concept("cells", "distance to the next crate"),
        **_GOAL,
    },
    "fruitbot": {
        **_BODY,
        "x": Concept("cells", "place across the level"),
        "wall_ahead": Concept("cells", "distance to the next wall"),
        "gap_offset": Concept("cells", "how far right of the agent the next gap's middle is"),
        "gap_width": Concept("cells", "width of the next gap"),
        "gap_fits": Concept("yes/no", "straight on leads through the next gap"),
        "door_ahead": Concept("cells", "distance to the next locked door"),
        "key_ready": Concept("yes/no", "a key can be thrown"),
        "fruit_ahead": Concept("cells", "distance to the next fruit straight on"),
        "fruit_offset": Concept("cells", "how far right of the agent the nearest fruit is"),
        "fruits": Concept("number", "fruits in the frame that can still be met"),
        "junk_ahead": Concept("cells", "distance to the next bad food straight on"),
        "junk_offset": Concept("cells", "how far right of the agent the nearest bad food is"),
        "goal_ahead": Concept("cells", "distance to the presents in the frame"),
        "level_left": Concept("cells", "way to the presents, in the frame or not", shown=False),
    },
    "jumper": {
        **_BODY, **_LEGS, **_DROP,
        "ceiling_above": Concept("cells", "distance from the head to the wall above"),
        "facing_right": Concept("yes/no", "faces right"),
        "jumps_left": Concept("number", "jumps before it has to land"),
        "spike_ahead": Concept("cells", "distance to the next spike"),
        "goal_bearing": Concept("degrees", "direction of the carrot, as the compass shows: 0 right, 90 up"),
        "goal_distance": Concept("cells", "distance to the carrot, as the compass shows"),
        "goal_right": Concept("cells", "how far right of the agent the carrot is", shown=False),
        "goal_above": Concept("cells", "height of the carrot above the agent", shown=False),
    },
    "ninja": {
        **_BODY, **_LEGS,
        "landing_ahead": Concept("cells", "distance to the next place to stand beyond the ledge or the fire"),
        "landing_rise": Concept("cells", "its height above the feet"),
        "fire_height": Concept("cells", "height of the feet above the fire"),
        "bomb_ahead": Concept("cells", "distance to the next bomb"),
        "jump_charge": Concept("fraction", "charge of the jump, as the bar shows"),
        **_GOAL,
    },
}  # fmt: skip


def concepts(state: GameState) -> dict[str, float]:
    """Every concept of :data:`CONCEPTS` for the state's game, in that order; truths are 1 or 0."""
    found = _OF_GAME[state.game](state)
    return {name: float(found[name]) for name in CONCEPTS[state.game]}


def _coinrun(state: GameState) -> dict[str, float]:
    """games/coinrun.cpp: a crate supports who fell onto it (``is_blocked_ents``), saws and enemies kill."""
    scene = _Platforms(state)
    supported = scene.supported or state.values["is_on_crate"]
    return {
        **scene.body,
        **scene.legs(supported and scene.body["vy"] == 0),
        "lava_ahead": scene.ahead(*LAVA),
        "saw_ahead": scene.ahead(SAW),
        "enemy_ahead": scene.ahead(ENEMY),
        "crate_ahead": scene.ahead(CRATE),
        **scene.goal(COIN),
    }


def _ninja(state: GameState) -> dict[str, float]:
    """games/ninja.cpp: ``update_agent_velocity`` jumps by the charge; FIRE and BOMB kill."""
    scene = _Platforms(state)
    fire = scene.find(FIRE)
    return {
        **scene.body,
        **scene.legs(scene.supported),
        **scene.landing(),
        "fire_height": scene.feet - (fire.y[0] + 0.5) if len(fire.y) else math.nan,
        "bomb_ahead": scene.ahead(BOMB),
        "jump_charge": state.values["jump_charge"],
        **scene.goal(MUSHROOM),
    }


def _jumper(state: GameState) -> dict[str, float]:
    """games/jumper.cpp: ``set_action_xy`` counts two jumps from the ground on, ``draw_compass`` shows the carrot."""
    facing_right = bool(state.values["facing_right"])
    scene = _Platforms(state, mirrored=not facing_right)
    goals = state.entities[state.entities["type"] == CARROT][-1:]
    right, above = (float(goals[axis][0]) - scene.body[axis] if len(goals) else math.nan for axis in "xy")
    return {
        **scene.body,
        **scene.legs(scene.supported),
        "ceiling_above": scene.ceiling(),
        "facing_right": facing_right,
        "jumps_left": 2 if scene.supported else state.values["jump_count"],
        "spike_ahead": scene.ahead(SPIKE),
        "goal_bearing": math.degrees(math.atan2(above, right)),
        "goal_distance": math.hypot(right, above),
        "goal_right": right,
        "goal_above": above,
    }


def _fruitbot(state: GameState) -> dict[str, float]:
    """games/fruitbot.cpp: ``add_walls`` puts two barriers at one height, ``handle_agent_collision`` says what kills."""
    body = _body(state)
    x, front, radius = body["x"], body["y"] + body["ry"], body["rx"]
    top = state.values["center_y"] + state.values["view_dim"] / 2
    things = state.entities
    near = things["y"] - things["ry"].astype(float)
    met = things[(things["y"] + things["ry"] > body["y"] - body["ry"]) & (near < top)]
    kinds = {kind: met[met["type"] == kind] for kind in (BARRIER, BAD_OBJ, GOOD_OBJ, LOCKED_DOOR, PRESENT)}

    def ahead(those: np.ndarray) -> float:
        return max(0.0, float((those["y"] - those["ry"]).min()) - front) if len(those) else math.nan

    def straight_on(those: np.ndarray) -> float:
        return ahead(those[abs(those["x"] - x) < those["rx"] + radius])

    def offset(those: np.ndarray) -> float:
        nearest = np.hypot(those["x"] - x, those["y"] - body["y"])
        return float(those["x"][nearest.argmin()]) - x if len(those) else math.nan

    left = right = math.nan
    barriers = kinds[BARRIER]
    walls = np.sort(barriers[barriers["y"] == barriers["y"].min(initial=np.inf)], order="x")
    if len(walls) == 2:
        left, right = float(walls[0]["x"] + walls[0]["rx"]), float(walls[1]["x"] - walls[1]["rx"])
    # game_step compares after it counted the step
    key_age = state.values["cur_time"] + 1 - state.values["last_fire_time"]
    return {
        **body,
        "wall_ahead": ahead(walls),
        "gap_offset": (left + right) / 2 - x,
        "gap_width": right - left,
        "gap_fits": math.nan if math.isnan(left) else left <= x - radius and x + radius <= right,
        "door_ahead": ahead(kinds[LOCKED_DOOR]),
        "key_ready": key_age >= KEY_DURATION,
        "fruit_ahead": straight_on(kinds[GOOD_OBJ]),
        "fruit_offset": offset(kinds[GOOD_OBJ]),
        "fruits": len(kinds[GOOD_OBJ]),
        "junk_ahead": straight_on(kinds[BAD_OBJ]),
        "junk_offset": offset(kinds[BAD_OBJ]),
        "goal_ahead": ahead(kinds[PRESENT]),
        "level_left": max(0.0, state.values["main_height"] - 1 - front),
    }


_OF_GAME: dict[str, Callable[[GameState], dict[str, float]]] = {
    "coinrun": _coinrun, "fruitbot": _fruitbot, "jumper": _jumper, "ninja": _ninja,
}  # fmt: skip


def _body(state: GameState) -> dict[str, float]:
    agent = state.entities[state.agent]
    return {name: float(agent[name]) for name in ("x", "y", "vx", "vy", "rx", "ry")}


class _Boxes(NamedTuple):
    """Things: the edge that is met first and the last, along the way ahead, and the height of their middles."""

    near: np.ndarray
    far: np.ndarray
    y: np.ndarray


class _Platforms:
    """A game of walking and jumping along the way ahead; ``mirrored`` turns the level round, so that this is right."""

    def __init__(self, state: GameState, mirrored: bool = False) -> None:
        self.body = _body(state)
        self._state, self._mirrored, self._walls = state, mirrored, WALLS[state.game]
        self._grid = state.grid[:, ::-1] if mirrored else state.grid
        self._height, self._width = self._grid.shape
        x = self._turned(self.body["x"])
        self._back, self._front = x - self.body["rx"], x + self.body["rx"]
        self.feet = self.body["y"] - self.body["ry"]
        camera = state.values
        self._reach = self._turned(camera["center_x"]) + camera["view_dim"] / 2
        self._bottom, self._top = (camera["center_y"] + sign * camera["view_dim"] / 2 for sign in (-1, 1))
        # As the game decides it before each step: a wall under either foot.
        row = _cell(self.feet - _NEAR)
        self._under = (_cell(self._back + _NEAR), _cell(self._front - _NEAR))
        self._footing = [column for column in self._under if self._wall(column, row)]
        self.supported = bool(self._footing)
        self._ground = self._ground_below(row)

    def _turned(self, x: float) -> float:
        return self._width - x if self._mirrored else x

    def _grid_at(self, column: int, row: int) -> int:
        inside = 0 <= column < self._width and 0 <= row < self._height
        return int(self._grid[row, column]) if inside else self._walls[0]  # out_of_bounds_object

    def _wall(self, column: int, row: int) -> bool:
        return self._grid_at(column, row) in self._walls

    def _ground_below(self, row: int) -> int:
        """The height of the ground under the feet; where there are two, the higher one. Below the grid is ground."""
        row = min(row, self._height)
        while not any(self._wall(column, row) for column in self._under):
            row -= 1
        self._footing = [column for column in self._under if self._wall(column, row)]
        return row + 1

    def _columns_ahead(self, first: int) -> range:
        return range(max(first, 0), min(math.ceil(self._reach), self._width))

    def legs(self, on_ground: float) -> dict[str, float]:
        """The concepts of :data:`_LEGS`, and the drop."""
        wall_ahead, wall_rise = self._next_wall()
        ledge = self._ledge()
        drop = 0
        while ledge is not None and not self._wall(ledge, self._ground - 1 - drop):
            drop += 1
        return {
            "on_ground": bool(on_ground),
            "height": max(0.0, self.feet - self._ground),
            "wall_ahead": wall_ahead,
            "wall_rise": wall_rise,
            "ledge_ahead": math.nan if ledge is None else max(0.0, ledge - self._front),
            "ledge_drop": math.nan if ledge is None else drop,
        }

    def _next_wall(self) -> tuple[float, float]:
        """Distance to the wall that the body would run into at its height, and how far that rises above the feet."""
        low, high = (_cell(self.body["y"] + sign * _CORNER * self.body["ry"]) for sign in (-1, 1))
        for column in self._columns_ahead(_cell(self._front - _NEAR) + 1):
            for row in range(low, high + 1):
                if self._wall(column, row):
                    while self._wall(column, row) and row < self._top:
                        row += 1
                    return max(0.0, column - self._front), min(row, self._top) - self.feet
        return math.nan, math.nan

    def _ledge(self) -> int | None:
        """The first column ahead without the ground the agent is on or above; none where a wall stands before it."""
        for column in self._columns_ahead(min(self._footing) + 1):
            if self._wall(column, self._ground):
                return None
            if not self._wall(column, self._ground - 1):
                return column
        return None

    def landing(self) -> dict[str, float]:
        """Ninja: the first column with a place to stand in the frame, from the ledge on; over the fire from here on."""
        over_fire = all(self._grid_at(column, self._ground) == FIRE for column in self._footing)
        start = _cell(self._front - _NEAR) if over_fire else self._ledge()
        low, high = math.floor(self._bottom), math.ceil(self._top)
        for column in () if start is None else self._columns_ahead(start):
            tops = [r for r in range(low + 1, high) if self._wall(column, r - 1) and self._grid_at(column, r) == SPACE]
            if tops:
                rise = min((top - self.feet for top in tops), key=abs)
                return {"landing_ahead": max(0.0, column - self._front), "landing_rise": rise}
        return {"landing_ahead": math.nan, "landing_rise": math.nan}

    def ceiling(self) -> float:
        """Distance from the head to the wall above either shoulder, in the frame."""
        head = self.body["y"] + self.body["ry"]
        for row in range(_cell(head - _NEAR) + 1, math.ceil(self._top)):
            if any(self._wall(column, row) for column in self._under):
                return max(0.0, row - head)
        return math.nan

    def find(self, *kinds: int, everywhere: bool = False) -> _Boxes:
        """Entities and cells of these kinds that the frame shows and that the agent hasn't passed."""
        entities = self._state.entities[_is_any(self._state.entities["type"], kinds)]
        grid, low, first = self._grid, 0, 0
        if not everywhere:  # looking in the frame alone is quicker
            low, first = (max(0, math.floor(edge)) for edge in (self._bottom, self._back))
            grid = grid[low : max(0, math.ceil(self._top)), first : max(0, math.ceil(self._reach))]
        rows, columns = np.nonzero(_is_any(grid, kinds))
        x = np.concatenate([self._turned(entities["x"].astype(float)), columns + first + 0.5])
        y = np.concatenate([entities["y"].astype(float), rows + low + 0.5])
        half = np.concatenate([entities["rx"].astype(float), np.full(len(rows), 0.5)])
        high = np.concatenate([entities["ry"].astype(float), np.full(len(rows), 0.5)])
        boxes = _Boxes(x - half, x + half, y)
        shown = (boxes.near < self._reach) & (y + high > self._bottom) & (y - high < self._top)
        kept = (boxes.far > self._back) & (shown | everywhere)
        return _Boxes(*(column[kept] for column in boxes))

    def ahead(self, *kinds: int) -> float:
        """Distance to the next of these kinds; 0 beside, above or below the agent."""
        return self._distance(self.find(*kinds))

    def goal(self, kind: int) -> dict[str, float]:
        """The concepts of :data:`_GOAL`."""
        shown, somewhere = self.find(kind), self.find(kind, everywhere=True)
        return {
            "goal_ahead": self._distance(shown),
            "goal_above": float(shown.y[0]) - self.body["y"] if len(shown.y) else math.nan,
            "level_left": self._distance(somewhere),
        }

    def _distance(self, boxes: _Boxes) -> float:
        return max(0.0, float(boxes.near.min()) - self._front) if len(boxes.near) else math.nan


def _cell(place: float) -> int:
    """The cell a place is in; the game keeps places in single precision (``get_obj_from_floats``)."""
    return math.floor(np.float32(place))


def _is_any(values: np.ndarray, kinds: tuple[int, ...]) -> np.ndarray:
    found = values == kinds[0]
    for kind in kinds[1:]:
        found = found | (values == kind)
    return found
