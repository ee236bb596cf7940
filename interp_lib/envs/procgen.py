"""Vectorised Procgen: its environments, their level splits and normalised scores.

A thin layer over ``ProcgenGym3Env`` (64 environments step in C++ threads) that returns plain arrays and can save and
restore every environment exactly.
"""

from __future__ import annotations

import contextlib
import gc
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import numpy as np

from ..common.errors import InterpError
from .games import GAMES, MODES
from .names import MOST_SEEDS, procgen_game

OBSERVATION_SHAPE = (64, 64, 3)
# Unseen levels start here (semantic clustering paper, evaluation): far beyond every training range of the papers.
UNSEEN_LEVEL_OFFSET = 200_000
UNSEEN_NUM_LEVELS = 100_000
MOST_LEVELS = 2**31 - 1  # levels have 31 bits


@dataclass(frozen=True)
class Levels:
    """Which levels of a game are drawn; each field is the option of Procgen, and of PPOConfig, of that name.

    A setting that changes what all environments of a run are belongs here, once it is a field of PPOConfig as well.

    Attributes:
        distribution_mode: ``"easy"`` or ``"hard"``.
        num_levels: size of the level set; 0 means all levels, and Procgen then ignores ``start_level``.
        start_level: first level of the set.
    """

    distribution_mode: str = "easy"
    num_levels: int = 0
    start_level: int = 0

    @classmethod
    def seen(cls, config: Any) -> Levels:
        """Those that an agent of this PPOConfig is trained on."""
        return cls(**{option.name: getattr(config, option.name) for option in fields(cls)})

    @classmethod
    def unseen(cls, config: Any) -> Levels:
        """100,000 levels that start 200,000 after the first training level, or after the last where there are more.

        Where training draws from all levels, it sees these too.
        """
        start = config.start_level + max(UNSEEN_LEVEL_OFFSET, config.num_levels)
        return replace(cls.seen(config), num_levels=UNSEEN_NUM_LEVELS, start_level=start)

    @property
    def end(self) -> int:
        """The first level after the set."""
        return self.start_level + self.num_levels

    def only(self, level: int) -> Levels:
        """One level of them."""
        return replace(self, num_levels=1, start_level=level)


def best_score(game: str, mode: str) -> float:
    """The best score R_max of ``game`` in ``mode``, which the skill weight is relative to (methods 2.7)."""
    return float(GAMES[game].score_range(mode)[1])


def normalised(returns: Any, game: str, mode: str = "easy") -> Any:
    """Returns on the scale of the Procgen benchmark: (R − R_min) / (R_max − R_min), 0 blind, 1 the best possible.

    Args:
        returns: a number, an array or a DataFrame; what comes back is of the same kind.
    """
    low, high = GAMES[game].score_range(mode)
    return (returns - low) / (high - low)


@dataclass
class Step:
    """What one step of ``n`` environments returns.

    Attributes:
        obs: uint8 (n, 64, 64, 3), the observation after the step (of the next episode where one ended).
        reward: float32 (n,), raw reward.
        done: bool (n,), the episode ended with this step.
    """

    obs: np.ndarray
    reward: np.ndarray
    done: np.ndarray


@contextlib.contextmanager
def _nothing_collected() -> Iterator[None]:
    """Keep the garbage collector away while cffi binds an environment's functions.

    It holds a lock, for which an older environment that is collected right then, and closed by that, waits for ever.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class ProcgenVec:
    """``num_envs`` copies of one Procgen game.

    Args:
        game: one of the 16 names.
        num_envs: number of environments n.
        levels: those that are drawn (default: all of the easy ones).
        seed: seeds which levels are drawn, and in which order.
        human_frames: also render 512 × 512 frames (about 40 times slower: replay chosen stretches only).
        num_threads: C++ stepping threads; 0 steps in the calling thread. Results don't depend on it.

    Raises:
        InterpError: unknown game or mode, or a negative level range.
    """

    def __init__(
        self,
        game: str,
        num_envs: int,
        levels: Levels = Levels(),
        *,
        seed: int = 0,
        human_frames: bool = False,
        num_threads: int = 0,
    ) -> None:
        if levels.distribution_mode not in MODES:
            raise InterpError(
                f"unknown distribution mode '{levels.distribution_mode}'. Valid modes: {', '.join(MODES)}."
            )
        if num_envs < 1 or levels.num_levels < 0 or levels.start_level < 0:
            raise InterpError("num_envs must be at least 1, num_levels and start_level at least 0.")
        if levels.end > MOST_LEVELS:
            raise InterpError(f"levels end at {MOST_LEVELS:,}, and these at {levels.end:,}. Begin lower.")
        if seed < 0:
            raise InterpError(f"a seed is a whole number from 0 on, not {seed}.")
        self.game, self.num_envs, self.levels = procgen_game(game), num_envs, levels
        with _nothing_collected():
            self._env = _procgen_gym3_env()(
                num=num_envs,
                env_name=self.game,
                **asdict(levels),
                rand_seed=seed % MOST_SEEDS,  # one that others were derived from may be the last of them
                num_threads=num_threads,
                render_mode="rgb_array" if human_frames else None,
            )
            for name in dir(self._env._c_lib):
                getattr(self._env._c_lib, name, None)  # binds it

    @property
    def observation(self) -> np.ndarray:
        """The current observation, uint8 (n, 64, 64, 3); a copy that later steps don't touch."""
        return self._env.observe()[1]["rgb"].copy()

    def step(self, actions: np.ndarray) -> Step:
        """Take integer ``actions`` (n,) in all environments; an ended episode starts again by itself."""
        self.act(actions)
        return self.observe()

    def act(self, actions: np.ndarray) -> None:
        """Begin a step with ``actions`` (n,); with stepping threads of its own this returns before it is done."""
        self._env.act(np.asarray(actions, dtype=np.int32))

    def observe(self) -> Step:
        """Wait for the step that :meth:`act` began."""
        reward, obs, first = self._env.observe()
        return Step(obs["rgb"].copy(), reward.copy(), first.astype(bool))

    def infos(self) -> list[dict[str, Any]]:
        """One dict an environment: ``level_seed``, ``prev_level_complete``, …, and ``rgb`` with ``human_frames``."""
        return self._env.get_info()

    @property
    def level_seeds(self) -> np.ndarray:
        """The level each environment is in, int64 (n,)."""
        return np.array([info["level_seed"] for info in self.infos()], dtype=np.int64)

    @property
    def frames(self) -> np.ndarray:
        """Human-view frames, uint8 (n, 512, 512, 3); needs ``human_frames=True``."""
        return np.stack([info["rgb"] for info in self.infos()])

    def get_state(self) -> list[bytes]:
        """Exact states of all environments: n byte strings, about 30 KB each."""
        return self._env.callmethod("get_state")

    def set_state(self, states: Sequence[bytes]) -> None:
        """Restore states from :meth:`get_state`; what follows is then byte-identical."""
        self._env.callmethod("set_state", list(states))

    def close(self) -> None:
        """Free the C++ environments."""
        self._env.close()


class ProcgenGroups:
    """``num_envs`` environments in equal groups that can step independently of each other (double buffering).

    Args:
        groups: how many; while one group is stepped by its own threads, the actions of the next can be computed. Which
            levels are drawn doesn't depend on it.
        **options: see :class:`ProcgenVec`.
    """

    def __init__(
        self, game: str, num_envs: int, levels: Levels = Levels(), *, groups: int = 1, seed: int = 0, **options: Any
    ) -> None:
        if num_envs % groups:
            raise InterpError(f"{num_envs} environments can't be stepped in {groups} equal groups.")
        each = num_envs // groups
        self.groups = [ProcgenVec(game, each, levels, seed=seed, **options) for _ in range(groups)]
        self.rows = [slice(i * each, (i + 1) * each) for i in range(groups)]
        if groups > 1:  # the environments of one group, which all draw levels of their own
            whole = ProcgenVec(game, num_envs, levels, seed=seed)
            self.set_state(whole.get_state())
            whole.close()

    @property
    def observation(self) -> np.ndarray:
        """The current observations of all groups, uint8 (num_envs, 64, 64, 3)."""
        return np.concatenate([group.observation for group in self.groups])

    def get_state(self) -> list[bytes]:
        """Exact states of all environments."""
        return [state for group in self.groups for state in group.get_state()]

    def set_state(self, states: Sequence[bytes]) -> None:
        """Restore states from :meth:`get_state`, also of another number of groups."""
        for group, rows in zip(self.groups, self.rows, strict=True):
            group.set_state(states[rows])

    def close(self) -> None:
        """Free the C++ environments."""
        for group in self.groups:
            group.close()


def can_restore(game: str, levels: Levels, states: Sequence[bytes]) -> bool:
    """Whether Procgen can restore ``states``, tried in another process: what it can't read makes it abort."""
    code = (
        "import json, sys; from interp_lib.envs.procgen import Levels, ProcgenVec; game, levels, sizes = sys.argv[1:4];"
        "env = ProcgenVec(game, sizes.count(',') + 1, Levels(**json.loads(levels)));"
        "env.set_state([sys.stdin.buffer.read(int(size)) for size in sizes.split(',')]);"
        "import numpy; env.step(numpy.zeros(env.num_envs, int)); print('restored')"
    )
    sizes = ",".join(str(len(state)) for state in states)
    command = [sys.executable, "-c", code, game, json.dumps(asdict(levels)), sizes]
    done = subprocess.run(command, input=b"".join(states), capture_output=True)
    return done.returncode == 0 and done.stdout.endswith(b"restored\n")


def _procgen_gym3_env() -> type:
    try:
        from procgen import ProcgenGym3Env
    except ImportError as error:
        raise InterpError(f"Procgen is not installed ({error}). Run `make install`, then `interp doctor`.") from error
    return ProcgenGym3Env
