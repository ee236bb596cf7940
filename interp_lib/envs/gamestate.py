"""Procgen's own account of a game: what ``ProcgenVec.get_state`` serialises, read without Procgen.

A state is little-endian: whole numbers of four bytes (truths too), floats of four bytes, lists after their length. The
order is that of ``serialize`` in openai/procgen, ``procgen/src``: ``Game`` (game.cpp), ``RandGen`` (randgen.cpp),
``BasicAbstractGame`` (basic-abstract-game.cpp), ``Entity`` (entity.cpp), ``Grid`` (grid.h), then the game's own fields
(games/*.cpp), and a mark at the end (vecgame.cpp).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ..common.errors import InterpError

SERIALIZE_VERSION = 0  # game.cpp; procgen-mirror 0.10.7 writes it
PLAYER = 0  # object-ids.h
_END_OF_BUFFER = b"\xfe\xca\xfe\xca"  # vecgame.cpp
MOST_CELLS = 1_000  # levels have 64 or fewer each way
_INT = np.dtype("<i4")
_PLACES = ("x", "y", "vx", "vy", "rx", "ry")


def _record(text: str) -> np.dtype:
    """Names in the order of the bytes; ``i:`` and ``f:`` say whether those that follow are whole numbers or floats."""
    fields, kind = [], ""
    for word in text.split():
        if word.endswith(":"):
            kind = f"<{word[0]}4"
        else:
            fields.append((word, kind))
    return np.dtype(fields)


_OPTIONS = _record("""i: paint_vel_info use_generated_assets use_monochrome_assets restrict_themes use_backgrounds
    center_agent debug_mode distribution_mode use_sequential_levels use_easy_jump plain_assets physics_mode
    grid_step level_seed_low level_seed_high game_type game_n""")
_STEP = _record("""f: reward i: done level_complete action timeout current_level_seed prev_level_seed
    episodes_remaining episode_done last_reward_timer f: last_reward i: default_action fixed_asset_seed cur_time
    is_waiting_for_step grid_size""")
ENTITY = _record("""f: x y vx vy rx ry i: type image_type image_theme render_z will_erase collides_with_entities
    f: collision_margin rotation vrot i: is_reflected fire_time spawn_time life_time expire_time use_abs_coords
    f: friction i: smart_step avoids_collisions auto_erase
    f: alpha health theta grow_rate alpha_decay climber_spawn_x""")
_DRAWING = _record("""i: use_procgen_background background_index f: bg_tile_ratio bg_pct_x char_dim
    i: last_move_action move_action special_action f: mixrate maxspeed max_jump action_vx action_vy action_vrot
    center_x center_y i: random_agent_start has_useful_vel_info step_rand_int""")
_WORLD = _record("""i: main_width main_height out_of_bounds_object f: unit view_dim x_off y_off visibility
    min_visibility i: grid_width grid_height""")
_OWN = {
    "coinrun": _record("f: last_agent_y i: wall_theme has_support facing_right is_on_crate f: gravity air_control"),
    "fruitbot": _record("f: min_dim bullet_vscale i: last_fire_time"),
    "jumper": _record("i: jump_count jump_delta jump_time has_support facing_right wall_theme f: compass_dim"),
    "ninja": _record("""i: has_support facing_right last_fire_time wall_theme
        f: gravity air_control jump_charge jump_charge_inc"""),
}
GAMES_READ = tuple(_OWN)


@dataclass(frozen=True, eq=False)
class GameState:
    """One state of one game. Lengths are in cells of the grid, y grows upwards, time is in steps.

    Attributes:
        game: one of :data:`GAMES_READ`.
        values: every number that is neither in the grid nor an entity's, under Procgen's name: options, ``cur_time``
            (steps since the level began), ``current_level_seed``, the camera, and what the game adds of its own.
        grid: int32 (height, width), the object in each cell, row 0 at the bottom; read-only.
        entities: (n,) of :data:`ENTITY`; x and y are a centre, rx and ry half a width and height; read-only.
        agent: which of them the agent is.
        raw: the state itself.
        places: at which of its bytes each of ``values`` begins.
    """

    game: str
    values: Mapping[str, float]
    grid: np.ndarray
    entities: np.ndarray
    agent: int
    raw: bytes
    places: Mapping[str, int]


def read_state(state: bytes) -> GameState:
    """Read what ``get_state`` gave, to its last byte.

    Raises:
        InterpError: another version or game, or bytes that are missing, too many or make no game.
    """
    reader = _Reader(state)
    if (version := reader.integer("the version")) != SERIALIZE_VERSION:
        raise InterpError(f"a game state of version {version} can't be read, only of version {SERIALIZE_VERSION}.")
    game = bytes(reader.take(reader.integer("the game's name"), "the game's name")).decode("ascii", "replace")
    if game not in _OWN:
        raise InterpError(f"states of '{game[:12]}' can't be read, only of {', '.join(_OWN)}.")
    values = reader.record(_OPTIONS, "the options")
    for which in ("levels", "the game"):
        reader.random_generator(f"the random numbers of {which}")
    values |= reader.record(_STEP, "the step")
    entities = reader.array(ENTITY, reader.integer("the entities"), "the entities")
    values |= reader.record(_DRAWING, "what is drawn")
    reader.random_generator("the random numbers of assets")
    values |= reader.record(_WORLD, "the world")
    width, height = int(values["grid_width"]), int(values["grid_height"])
    cells = reader.array(_INT, reader.integer("the grid"), "the grid")
    values |= reader.record(_OWN[game], f"what {game} adds")
    if reader.take(len(_END_OF_BUFFER), "the end mark") != _END_OF_BUFFER or reader.left:
        raise InterpError(f"a game state of {game} doesn't end where it should: it is damaged or of another version.")
    if min(width, height) < 1 or width * height != len(cells):
        raise InterpError(f"a game state has a grid of {width} by {height} and {len(cells)} cells: it is damaged.")
    places = [np.array([values[name] for name in ("center_x", "center_y", "view_dim")])]
    within = np.abs(np.concatenate(places + [entities[name] for name in _PLACES])) < MOST_CELLS
    if not (within.all() and values["view_dim"] >= 1):
        raise InterpError("a game state has a place that is in no level: it is damaged.")
    agents = np.flatnonzero(entities["type"] == PLAYER)
    if not len(agents):
        raise InterpError("a game state has no agent: it is damaged.")
    agent = int(agents[-1])  # find_entity_index: last
    return GameState(game, values, cells.reshape(height, width), entities, agent, state, reader.places)


def rewrite(state: GameState, numbers: Mapping[str, int]) -> bytes:
    """``state`` with other whole ``numbers`` under names of its values; Procgen aborts on those it can't restore."""
    changed = bytearray(state.raw)
    for name, number in numbers.items():
        changed[state.places[name] : state.places[name] + 4] = int(number).to_bytes(4, "little", signed=True)
    return bytes(changed)


def agent_pixels(state: GameState) -> tuple[float, float]:
    """Where the agent's centre is drawn in the 64 × 64 frame: pixels from the left and from the top edge.

    Pixel column i covers [i, i + 1). The camera follows the agent in CoinRun, Jumper and Ninja, so this is the middle
    there; in FruitBot it only climbs with it. From ``get_screen_rect`` and ``prepare_for_drawing`` in
    basic-abstract-game.cpp. CoinRun's ears stick out of the body that this is the centre of.
    """
    agent, camera = state.entities[state.agent], state.values
    unit = 64 / camera["view_dim"]  # the state's own is that of the last frame drawn, which may have been a larger one
    x = (agent["x"] - camera["center_x"] + camera["view_dim"] / 2) * unit
    y = (camera["center_y"] - agent["y"] + camera["view_dim"] / 2) * unit
    return float(x), float(y)


class _Reader:
    """Takes fields off a state from the front, and nothing that isn't there."""

    def __init__(self, state: bytes) -> None:
        self._state, self._at = memoryview(state), 0
        self.places: dict[str, int] = {}

    @property
    def left(self) -> int:
        """How many bytes weren't taken yet."""
        return len(self._state) - self._at

    def take(self, size: int, what: str) -> memoryview:
        if not 0 <= size <= self.left:
            raise InterpError(f"a game state is damaged in {what}: {size} bytes are to follow, and {self.left} do.")
        self._at += size
        return self._state[self._at - size : self._at]

    def array(self, kind: np.dtype, count: int, what: str) -> np.ndarray:
        return np.frombuffer(self.take(count * kind.itemsize, what), kind)

    def record(self, kind: np.dtype, what: str) -> dict[str, float]:
        self.places |= {name: self._at + offset for name, (_, offset, *_) in (kind.fields or {}).items()}
        return dict(zip(kind.names or (), self.array(kind, 1, what)[0].item(), strict=True))

    def integer(self, what: str) -> int:
        return int.from_bytes(self.take(4, what), "little", signed=True)

    def random_generator(self, what: str) -> None:
        self.take(4, what)  # whether it is seeded; its numbers follow as text, which only Procgen needs
        self.take(self.integer(what), what)
