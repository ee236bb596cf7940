"""Game states: read to the last byte, the agent is drawn where they say, and concepts agree with what the game does."""

import functools
from dataclasses import replace

import numpy as np
import pytest

from interp_lib import InterpError
from interp_lib.envs.actions import ACTION_NAMES, NUM_ACTIONS
from interp_lib.envs.concepts import CONCEPTS, SPACE, concepts
from interp_lib.envs.gamestate import ENTITY, GAMES_READ, agent_pixels, read_state
from interp_lib.envs.procgen import Levels, ProcgenVec

RIGHT, UP, NOOP, KEY = (ACTION_NAMES.index(name) for name in ("right", "up", "noop", "D"))
HOW_MANY = [64, pytest.param(1_000, marks=pytest.mark.slow)]
NUM_ENVS = 8
each_game = pytest.mark.parametrize("game", GAMES_READ)


def actions(rng):
    return np.where(rng.random(NUM_ENVS) < 0.4, RIGHT, rng.integers(0, NUM_ACTIONS, NUM_ENVS))


@functools.cache
def recorded(game, count, mode="easy"):
    """Every fourth state of eight environments that mostly go right, with its frame and level."""
    env, rng, found = ProcgenVec(game, NUM_ENVS, Levels(mode), seed=3), np.random.default_rng(0), []
    while len(found) < count:
        found += zip(env.get_state(), env.observation, env.level_seeds, strict=True)
        for _ in range(4):
            env.step(actions(rng))
    return found[:count]


def transitions(game, steps, choose=actions):
    """Read states before and after a step within one episode, environment by environment, and the actions between."""
    env, rng = ProcgenVec(game, NUM_ENVS, seed=5), np.random.default_rng(1)
    before = [read_state(state) for state in env.get_state()]
    for _ in range(steps):
        taken = choose(rng)
        step = env.step(taken)
        after = [read_state(state) for state in env.get_state()]
        for i in np.flatnonzero(~step.done):
            yield before[i], taken[i], after[i]
        before = after


# -- the parser -----------------------------------------------------------------------------------------------------


@each_game
@pytest.mark.parametrize("mode", ["easy", "hard"])
@pytest.mark.parametrize("count", HOW_MANY)
def test_states_are_read_to_the_last_byte(game, mode, count):
    steps = set()
    for raw, _, level in recorded(game, count, mode):
        state = read_state(raw)  # refuses what is left over
        assert state.game == game and state.values["current_level_seed"] == level
        assert state.grid.shape == (state.values["main_height"], state.values["main_width"])
        x, y = state.entities[state.agent][["x", "y"]]
        assert 0 < x < state.grid.shape[1] and 0 < y < state.grid.shape[0]
        found = concepts(state)
        assert list(found) == list(CONCEPTS[game]) and all(type(value) is float for value in found.values())
        assert not any(abs(value) > 360 for value in found.values())
        steps.add(state.values["cur_time"])
    assert len(steps) >= count // NUM_ENVS / 4  # of many moments


def put(raw, at, number):
    return raw[:at] + int(number).to_bytes(4, "little", signed=True) + raw[at + 4 :]


def without_agent(raw):
    """The state with an agent that looks like empty space, which no game draws."""
    state = read_state(raw)
    at = raw.find(state.entities.tobytes()) + state.agent * ENTITY.itemsize
    return put(raw, at + ENTITY.fields["image_type"][1], SPACE)


def whole_level(raw, game):
    """The state seen by a camera that stands still and shows all of the level, in plain colours."""
    options = 8 + len(game)
    return put(put(raw, options + 4 * 2, True), options + 4 * 5, False)


@each_game
@pytest.mark.parametrize("view", ["as played", "whole level"])
@pytest.mark.parametrize("count", HOW_MANY)
def test_the_agent_is_drawn_where_the_state_says(game, view, count):
    """Its true place is what changes in Procgen's own frame when the same state is drawn without it."""
    probe, right, drawn = ProcgenVec(game, NUM_ENVS), 0, 0
    states = recorded(game, count)
    for at in range(0, count, NUM_ENVS):
        raws = [raw if view == "as played" else whole_level(raw, game) for raw, _, _ in states[at : at + NUM_ENVS]]
        probe.set_state([without_agent(raw) for raw in raws])
        empty = probe.observation
        probe.set_state(raws)
        for raw, frame, background in zip(probe.get_state(), probe.observation, empty, strict=True):
            rows, columns = np.nonzero((frame != background).any(-1))
            if not len(rows):
                continue
            true = [(places.min() + places.max() + 1) / 2 for places in (columns, rows)]
            drawn += 1
            right += np.abs(np.subtract(agent_pixels(read_state(raw)), true)).max() <= 1
    print(f"{game} {view}: {right} of {drawn} within a pixel")
    assert right >= 0.99 * drawn
    # From afar FruitBot's agent is smaller than a pixel, and sometimes between two.
    assert drawn >= count * (0.7 if (game, view) == ("fruitbot", "whole level") else 0.99)


def test_where_the_agent_is_drawn_does_not_depend_on_larger_frames():
    small, large = (ProcgenVec("fruitbot", 2, seed=1, human_frames=human) for human in (False, True))
    assert [*map(agent_pixels, map(read_state, small.get_state()))] == [
        *map(agent_pixels, map(read_state, large.get_state()))
    ]


def refused(raw):
    with pytest.raises(InterpError) as told:
        read_state(raw)
    assert "\n" not in str(told.value) and len(str(told.value)) < 160
    return str(told.value)


@each_game
def test_damaged_states_are_refused_in_a_line(game):
    raw = recorded(game, 64)[20][0]
    state = read_state(raw)
    for end in np.linspace(0, len(raw) - 1, 200).astype(int):
        refused(raw[:end])
    counts = (4, 8 + len(game) + 17 * 4 + 4, raw.find(state.entities.tobytes()) - 4, raw.find(state.grid.tobytes()) - 4)
    for at in counts:
        assert 0 < int.from_bytes(raw[at : at + 4], "little") < 10_000
        for number in (-1, 10_000, 2**31 - 1):
            refused(put(raw, at, number))
    assert "version 1" in refused(put(raw, 0, 1))
    assert "doesn't end" in refused(raw + b"\0")
    assert "no agent" in refused(raw.replace(state.entities.tobytes(), b"\1\0\0\0" * (state.entities.nbytes // 4)))
    assert "bigfish" in refused(ProcgenVec("bigfish", 1).get_state()[0])


@each_game
def test_a_damaged_byte_is_refused_or_read(game):
    raw, rng = bytearray(recorded(game, 64)[20][0]), np.random.default_rng(0)
    entities = raw.find(read_state(bytes(raw)).entities.tobytes())
    for at in np.r_[rng.integers(0, len(raw), 150), rng.integers(entities - 40, entities + 124, 150), -200:0]:
        damaged = raw.copy()
        damaged[at] = rng.integers(256)
        try:
            concepts(read_state(bytes(damaged)))
        except InterpError as told:
            assert "\n" not in str(told)


# -- concepts against what the game does ----------------------------------------------------------------------------


@pytest.mark.parametrize("game", ["coinrun", "jumper", "ninja"])
def test_on_ground_is_what_the_game_finds_at_the_next_step(game):
    seen = []
    for before, _, after in transitions(game, 150):
        on_ground = concepts(before)["on_ground"]
        assert on_ground == after.values["has_support"]
        seen.append(on_ground)
    assert 0.1 < np.mean(seen) < 0.95 and len(seen) > 1_000


def test_who_is_on_the_ground_can_jump():
    jumped = {0.0: [], 1.0: []}
    env = ProcgenVec("coinrun", NUM_ENVS)
    states = recorded("coinrun", 64)
    for at in range(0, 64, NUM_ENVS):
        raws = [raw for raw, _, _ in states[at : at + NUM_ENVS]]
        env.set_state(raws)
        done = env.step(np.full(NUM_ENVS, UP)).done
        for before, after in zip(np.array(raws)[~done], np.array(env.get_state())[~done], strict=True):
            upwards = read_state(after).entities["vy"][read_state(after).agent] - concepts(read_state(before))["vy"]
            jumped[concepts(read_state(before))["on_ground"]].append(upwards > 0.5)
    assert all(jumped[1.0]) and not any(jumped[0.0]) and min(map(len, jumped.values())) > 5


@each_game
def test_a_free_agent_moves_by_its_speed(game):
    moved = 0
    for before, _, after in transitions(game, 60):
        old, new = concepts(before), concepts(after)
        beside_the_edge = game == "fruitbot" and not 1 < new["x"] < 9
        if old["wall_ahead"] > 1 and new["vx"] > 0.05 and not beside_the_edge:
            assert new["x"] - old["x"] == pytest.approx(new["vx"], abs=1e-5)
            moved += 1
    assert moved > 10


@pytest.mark.parametrize("game", ["coinrun", "ninja"])
def test_walking_ends_where_a_wall_was_said_to_be(game):
    stopped = 0
    for before, _, after in transitions(game, 120, lambda rng: np.full(NUM_ENVS, RIGHT)):
        old, new = concepts(before), concepts(after)
        went = new["x"] - old["x"]
        if old["on_ground"] and new["on_ground"] and not np.isnan(old["wall_ahead"]):
            assert went <= old["wall_ahead"] + 0.011  # a body may stand a hundredth in a wall: sub_step's margin
            if went < 1e-4 and old["vx"] + new["vx"] == 0 and new["x"] > 2:
                assert new["wall_ahead"] == pytest.approx(0, abs=1e-5) and new["wall_rise"] > 0
                stopped += 1
    assert stopped > 20


def test_jumpers_compass_shows_the_bearing_and_the_distance():
    wrong = []
    for raw, frame, _ in recorded("jumper", 64):
        found, needle = concepts(read_state(raw)), (frame == (252, 186, 3)).all(-1)
        # draw_compass: a dial of 16 pixels whose middle is at (54.67, 9.33), and a bar of two rows below it
        rows, columns = np.nonzero(needle[:17, 46:63])
        right, up = columns.mean() + 46.5 - 54.67, 9.33 - rows.mean() - 0.5
        off = np.degrees(np.arctan2(up, right)) - found["goal_bearing"]
        wrong.append(abs((off + 180) % 360 - 180))
        assert needle[18, 46:63].sum() == pytest.approx(16 * found["goal_distance"] / (20 * 2**0.5), abs=1)
    assert np.median(wrong) < 6 and max(wrong) < 20


def test_fruitbot_dies_at_a_wall_unless_it_fits_through_the_gap():
    env, fits, died = ProcgenVec("fruitbot", 32, seed=2), {}, {}
    while len(died) < 32:  # straight on, until each has met its first wall
        for i, state in enumerate(map(read_state, env.get_state())):
            found = concepts(state)
            if i not in fits and found["wall_ahead"] < 0.2:
                fits[i] = found["gap_fits"]
            elif i in fits and not found["wall_ahead"] < 0.2:
                died.setdefault(i, False)
        for i in np.flatnonzero(env.step(np.full(32, NOOP)).done):
            assert i in fits  # nothing else ends an episode before the first wall
            died.setdefault(i, True)
    assert died == {i: not fit for i, fit in fits.items()}
    assert 3 < sum(died.values()) < 30


def test_a_key_can_be_thrown_when_it_is_ready():
    thrown = []
    for before, action, after in transitions(
        "fruitbot", 40, lambda rng: np.where(rng.random(NUM_ENVS) < 0.5, KEY, NOOP)
    ):
        if action == KEY:
            new = after.values["last_fire_time"] == after.values["cur_time"]
            assert concepts(before)["key_ready"] == new
            thrown.append(new)
    assert 5 < sum(thrown) < len(thrown)


# -- concepts of situations made by hand ----------------------------------------------------------------------------


def scene(game, picture, things=(), x=2.0, feet=2.0):
    """A state of ``game`` with this picture as its level, an agent of one cell and its camera, and more entities."""
    state = read_state(recorded(game, 64)[0][0])
    letters = {"#": {"coinrun": 15, "jumper": 6, "ninja": 20}.get(game), ".": SPACE, "L": 18, "C": 1, "F": 14, "B": 6}
    rows = picture.split()[::-1]
    grid = np.array([[letters[cell] for cell in row] for row in rows], dtype=np.int32)
    entities = np.repeat(state.entities[state.agent : state.agent + 1], 1 + len(things))
    for name, value in {"x": x + 0.5, "y": feet + 0.5, "rx": 0.5, "ry": 0.5, "vx": 0, "vy": 0}.items():
        entities[name][0] = value
    for i, (kind, tx, ty) in enumerate(things):
        for name, value in {"type": kind, "x": tx, "y": ty, "rx": 0.5, "ry": 0.5}.items():
            entities[name][i + 1] = value
    camera = {"center_x": x + 0.5, "center_y": feet + 0.5, "view_dim": 13.0, "facing_right": 1, "is_on_crate": 0}
    return replace(state, grid=grid, entities=entities, agent=0, values={**state.values, **camera})


def expect(state, **expected):
    found = concepts(state)
    assert {name: found[name] for name in expected} == pytest.approx(expected, nan_ok=True)


LEVEL = """
#......................#
#......................#
#..........##.........C#
#..........##....#######
#######..####....#######
#######LL####LLLL#######
########################
"""


def test_distances_in_a_level_of_coinrun():
    nan = np.nan
    things = [(2, 4.5, 3.5), (20, 6.5, 3.5), (5, 15.5, 2.5)]
    # five cells to the ledge, which is two deep (lava is no ground); a wall at column 11
    expect(
        scene("coinrun", LEVEL, things, x=2, feet=3),
        on_ground=1, height=0, wall_ahead=nan, ledge_ahead=4, ledge_drop=2, lava_ahead=4, saw_ahead=1, crate_ahead=3,
        enemy_ahead=nan, goal_ahead=nan, goal_above=nan, level_left=19,
    )  # fmt: skip
    # between two pits, a block is in the way: no ledge can be walked to, and what is passed is gone
    expect(
        scene("coinrun", LEVEL, things, x=9, feet=3),
        on_ground=1, wall_ahead=1, wall_rise=2, ledge_ahead=nan, ledge_drop=nan, saw_ahead=nan, crate_ahead=nan,
        enemy_ahead=5, goal_ahead=nan, level_left=12,
    )  # fmt: skip
    # in the air over the lava: the ground is what is below, and nothing to jump from
    expect(scene("coinrun", LEVEL, x=7, feet=4.5), on_ground=0, height=3.5, lava_ahead=0, wall_ahead=3, wall_rise=0.5)
    expect(scene("coinrun", LEVEL, x=19, feet=4), goal_ahead=2, goal_above=0, level_left=2, on_ground=1)


def test_jumper_looks_where_it_faces():
    things = [(1, 20.5, 5.5), (2, 5.5, 3.5)]
    right = scene("jumper", LEVEL, things, x=2, feet=3)
    turned = "\n".join(row[::-1] for row in LEVEL.replace("L", ".").split())
    left = scene("jumper", turned, [(kind, 24 - x, y) for kind, x, y in things], x=21, feet=3)
    left = replace(left, values={**left.values, "facing_right": 0})
    right = replace(right, grid=np.where(right.grid == 18, SPACE, right.grid))
    ahead = {"on_ground": 1, "ledge_ahead": 4, "ledge_drop": 2, "spike_ahead": 2, "ceiling_above": 3, "height": 0}
    ahead |= {"goal_distance": np.hypot(18, 2), "goal_above": 2, "jumps_left": 2}
    expect(right, **ahead, facing_right=1, goal_right=18, goal_bearing=np.degrees(np.arctan2(2, 18)))
    expect(left, **ahead, facing_right=0, goal_right=-18, goal_bearing=180 - np.degrees(np.arctan2(2, 18)))


def test_ninja_sees_where_it_can_land():
    level = """
    #....................#
    #.......B............#
    #....................#
    #.....######.........#
    #.................####
    ####.................#
    ####FFFFFFFFFFFFFFFFF#
    ######################
    """
    things = [(1, 8.5, 5.5)]
    expect(
        scene("ninja", level, things, x=2, feet=3),
        on_ground=1, ledge_ahead=1, landing_ahead=3, landing_rise=2, fire_height=1, bomb_ahead=5, goal_ahead=5,
        goal_above=2, level_left=5, wall_ahead=np.nan,
    )  # fmt: skip
    expect(scene("ninja", level, things, x=14, feet=5), on_ground=0, height=4, landing_ahead=3, landing_rise=-1)


def test_fruitbots_gap_and_fruit():
    walls = [(1, 1.5, 8.0), (1, 8.5, 8.0), (7, 5.2, 4.0), (7, 8.0, 3.0), (4, 4.5, 0.5), (12, 4.5, 59.5), (7, 5.0, 50.0)]
    state = scene("fruitbot", "..........\n" * 60, walls, x=4.5, feet=1)
    state.entities["rx"][1:3], state.entities["ry"][1:3] = 1.5, 0.3  # the gap is from 3 to 7
    state = replace(
        state, values={**state.values, "center_y": 6.0, "view_dim": 10.0, "cur_time": 7, "last_fire_time": 0}
    )
    expect(
        state, wall_ahead=5.7, gap_offset=0, gap_width=4, gap_fits=1, fruit_ahead=1.5, fruit_offset=0.2, fruits=2,
        junk_ahead=np.nan, junk_offset=np.nan, door_ahead=np.nan, goal_ahead=np.nan, level_left=57, key_ready=1,
    )  # fmt: skip
