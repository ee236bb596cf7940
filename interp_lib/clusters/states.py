"""What the semantic clustering paper looks at: an SPPO agent's states on unseen levels, in one file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import pandas as pd

from ..agents.registry import ALGORITHMS
from ..agents.sppo.agents import PPO
from ..agents.sppo.config import MOST_CODES
from ..agents.sppo.network import FEATURE_SIZE
from ..common.errors import InterpError
from ..common.graphs import CUT, END
from ..envs.actions import NUM_ACTIONS
from ..envs.concepts import CONCEPTS
from ..envs.names import PROCGEN_GAMES
from ..envs.procgen import OBSERVATION_SHAPE

# Column → shape of a row and kind of its dtype.
_SCHEMA: dict[str, tuple[tuple[int, ...], str]] = {
    "fdr": ((2,), "f"), "code": ((), "i"), "value": ((), "f"), "action": ((), "i"), "reward": ((), "f"),
    "done": ((), "b"), "level": ((), "i"), "env": ((), "i"), "t": ((), "i"), "kept": ((), "b"),
    "feature": ((FEATURE_SIZE,), "f"),
}  # fmt: skip
MOST_STATES = 2**22  # 4 GB of features
_META = {"run": str, "timesteps": int, "game": str, "mode": str, "num_codes": int, "steps": int, "num_envs": int}
GAMMA = 0.999


@dataclass(frozen=True)
class StateSet:
    """N states of T steps in n environments, in order of time (row ``t · n + env``).

    Frames stay in the file: :meth:`frames` reads those asked for.
    """

    path: Path
    meta: dict  # run, timesteps, weights (digest), game, mode, num_codes, steps, num_envs, random_action, keep, seed
    feature: np.ndarray  # float32 (N, 256), h
    fdr: np.ndarray  # float32 (N, 2), z; of a PPO agent the first two principal components of h
    code: np.ndarray  # int64 (N,), k; of a PPO agent its group of k-means on h
    value: np.ndarray  # float32 (N,)
    action: np.ndarray  # int64 (N,), action taken
    reward: np.ndarray  # float32 (N,), raw
    done: np.ndarray  # bool (N,), the episode ended with this action
    level: np.ndarray  # int64 (N,)
    env: np.ndarray  # int64 (N,), which environment
    t: np.ndarray  # int64 (N,), step since collecting began
    kept: np.ndarray  # bool (N,), belongs to the paper's 80%
    concepts: np.ndarray | None = None  # float32 (N, C), those of CONCEPTS[game]; None: another game, an older file

    def __len__(self) -> int:
        return len(self.code)

    def frames(self, rows: npt.ArrayLike) -> np.ndarray:
        """Observations of the states ``rows`` (m,), in that order → uint8 (m, 64, 64, 3).

        Raises:
            InterpError: the file is gone or was replaced, or its frames are damaged (they carry checksums).
        """
        rows = np.asarray(rows, dtype=np.int64)
        unique, inverse = np.unique(rows, return_inverse=True)  # HDF5 wants increasing, distinct rows
        try:
            with h5py.File(self.path) as file:
                if json.loads(file.attrs.get("meta", "null")) not in (None, self.meta):
                    raise InterpError(f"{self.path} was replaced meanwhile, by another collection. Run this again.")
                return file["obs"][unique][inverse]
        except (OSError, KeyError, ValueError, IndexError) as error:
            raise InterpError(f"{self.path}: frames can't be read ({error}). Delete it and collect again.") from error

    @property
    def concept_table(self) -> pd.DataFrame:
        """:attr:`concepts` with their names, a row a state; NaN is what the frame doesn't show.

        Raises:
            InterpError: none were recorded.
        """
        if self.concepts is None:
            raise InterpError(f"{self.path} holds no concepts. Games that have: {', '.join(CONCEPTS)}. Collect again.")
        return pd.DataFrame(self.concepts, columns=[*CONCEPTS[self.meta["game"]]])

    @property
    def map(self) -> str:
        """Name of the 2-D space in ``fdr``."""
        return "PCA" if "groups" in self.meta else "FDR"

    @property
    def num_codes(self) -> int:
        """K, also where some codes were never used."""
        return int(self.meta["num_codes"])


def has_codes(agent: PPO) -> bool:
    """Whether ``agent`` has the semantic module."""
    return ALGORITHMS[agent.algorithm].explains == "clusters"


def clusters_of(agent: PPO, purpose: str) -> int:
    """How many clusters ``agent`` has, used or not.

    Raises:
        InterpError: it has none to do with what ``purpose`` says: to embed, browse or film.
    """
    if not has_codes(agent):
        raise InterpError(
            f"a {agent.algorithm} run has no clusters to {purpose}: only SPPO has codes. Choose an sppo run."
        )
    return int(agent.config.num_codes)  # type: ignore[attr-defined]


def load_states(path: Path | str, agent: PPO | None = None) -> StateSet:
    """Open what :func:`.collect_states` wrote.

    Args:
        agent: refuse states that another agent, or this one with other weights, was collected with.

    Raises:
        InterpError: the file is missing, damaged, of another kind or of another agent.
    """
    path = Path(path)
    if not path.exists():
        raise InterpError(f"{path} does not exist. Collect first: interp embed RUN")
    try:
        if not path.is_file():
            raise ValueError("no regular file")
        with h5py.File(path) as file:
            meta = _meta_of(file)
            _check_columns(file, meta)
            states = StateSet(path, meta, **{name: file[name][:] for name in columns_of(meta)})
        _check_values(states)
    except (OSError, KeyError, ValueError, TypeError, RuntimeError) as error:
        raise InterpError(f"{path} is damaged or no embedding file ({error}). Delete it and collect again.") from error
    if agent is not None:
        problem = difference(meta, {"game": agent.config.env, "weights": weights_digest(agent)})
        if problem:
            raise InterpError(f"{path} {problem}: its clusters mean something else. Collect again: interp embed RUN")
    return states


def _meta_of(file: h5py.File) -> dict[str, Any]:
    """What a file says about itself, checked as far as sizes follow from it; ValueError where it can't be."""
    try:
        meta = json.loads(file.attrs["meta"])
    except RecursionError as error:
        raise ValueError("its description is nested too deeply") from error
    if not isinstance(meta, dict) or not all(type(meta.get(name)) is kind for name, kind in _META.items()):
        raise ValueError("its description is incomplete")
    if meta["game"] not in PROCGEN_GAMES or not 1 <= meta["num_codes"] <= MOST_CODES:
        raise ValueError("its description is of no SPPO agent")
    if meta["steps"] < 1 or meta["num_envs"] < 1 or meta["steps"] * meta["num_envs"] > MOST_STATES:
        raise ValueError("its number of states is out of range")
    return meta


def columns_of(meta: Mapping[str, Any]) -> dict[str, tuple[tuple[int, ...], str]]:
    """The columns of a file; concepts that are named otherwise today are as good as none."""
    names = [*CONCEPTS.get(meta["game"], ())]
    return _SCHEMA | ({"concepts": ((len(names),), "f")} if names and meta.get("concepts") == names else {})


def _check_columns(file: h5py.File, meta: Mapping[str, Any]) -> None:
    """Shapes and kinds before anything is read: a few bytes of HDF5 can claim any size, all of it zeros."""
    size = meta["steps"] * meta["num_envs"]
    for name, (row, kind) in (*columns_of(meta).items(), ("obs", (OBSERVATION_SHAPE, "u"))):
        column = file[name]
        if not isinstance(column, h5py.Dataset) or column.shape != (size, *row) or column.dtype.kind != kind:
            raise ValueError(f"{name} is not of {size} rows of shape {row}")
        stored = column.id.get_storage_size()
        if stored < (1 if name == "obs" else size * int(np.prod(row, dtype=int)) * column.dtype.itemsize):
            raise ValueError(f"{name} is not stored in it")


def _check_values(states: StateSet) -> None:
    n, size = states.meta["num_envs"], len(states)
    for name in ("fdr", "value", "reward", "feature"):
        if not np.isfinite(getattr(states, name)).all():
            raise ValueError(f"{name} is not finite")
    if states.concepts is not None and np.isinf(states.concepts).any():
        raise ValueError("concepts are not finite")
    for name, end in (("code", states.num_codes), ("action", NUM_ACTIONS), ("level", 2**31)):
        values = getattr(states, name)
        if values.min() < 0 or values.max() >= end:
            raise ValueError(f"{name} is out of range")
    if not np.array_equal(states.t, np.arange(size) // n) or not np.array_equal(states.env, np.arange(size) % n):
        raise ValueError("its states are not in the order of time")


def weights_digest(agent: PPO) -> str:
    """SHA-256 over names and values of the weights, as float32; a run released in half precision counts as another."""
    digest = hashlib.sha256()
    for name, tensor in sorted(agent.network.state_dict().items()):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(tensor.float().cpu().numpy()).tobytes())
    return digest.hexdigest()


def difference(meta: Mapping[str, Any], wanted: Mapping[str, Any]) -> str | None:
    """How a file differs from what is wanted, as the end of a sentence that begins with its name; None: not at all."""
    if meta.get("game") != wanted["game"]:
        return f"holds states of {meta.get('game')}, not of {wanted['game']}"
    if meta.get("weights") != wanted["weights"]:
        return f"holds states of another {wanted['game']} agent, or of this one before its last training"
    if "concepts" in wanted and meta.get("concepts") != wanted["concepts"]:
        return f"holds other concepts than are read of {wanted['game']} now, or none"
    different = [f"{key} {meta.get(key)}, not {value}" for key, value in wanted.items() if meta.get(key) != value]
    return f"was collected with {' and '.join(different)}" if different else None


def sample_rows(states: StateSet, size: int, *, seed: int = 0) -> np.ndarray:
    """Up to ``size`` of the kept states, at random, in order → int64 (m,)."""
    rows = np.flatnonzero(states.kept)
    if len(rows) > size:
        rows = np.sort(np.random.default_rng(seed).choice(rows, size, replace=False))
    return rows


def return_to_go(states: StateSet, gamma: float = GAMMA) -> np.ndarray:
    """Discounted raw return from each state to the end of its episode → float64 (N,); NaN where it was not recorded."""
    n = states.meta["num_envs"]
    reward, done = states.reward.reshape(-1, n), states.done.reshape(-1, n)
    result = np.zeros(reward.shape)
    running = np.full(n, np.nan)
    for t in reversed(range(len(reward))):
        running = reward[t] + gamma * np.where(done[t], 0, running)
        result[t] = running
    return result.ravel()


def stretches(states: StateSet) -> pd.DataFrame:
    """The stretches that an environment stays in one cluster within an episode, by environment and time.

    Returns:
        columns ``env``, ``start`` (step), ``length`` (steps), ``cluster`` and ``next``: the cluster that follows,
        :data:`END` where the episode ended, :data:`CUT` where the recording did.
    """
    n = states.meta["num_envs"]
    code, done = (column.reshape(-1, n).T.ravel() for column in (states.code, states.done))  # env by env
    steps = len(code) // n
    step = np.arange(len(code)) % steps
    following = np.append(code[1:], CUT)
    following[step == steps - 1] = CUT
    following[done] = END
    stop = np.flatnonzero(following != code)
    start = np.append(0, stop[:-1] + 1)
    return pd.DataFrame(
        {
            "env": start // steps,
            "start": step[start],
            "length": stop + 1 - start,
            "cluster": code[start],
            "next": following[stop],
        }
    )


def episode_steps(states: StateSet) -> np.ndarray:
    """Steps since the start of each state's episode → int64 (N,). Every environment starts one as recording starts."""
    done = states.done.reshape(-1, states.meta["num_envs"])
    step = np.arange(len(done))[:, None]
    began = np.where(np.roll(done, 1, axis=0), step, 0)  # the last row's ends come to step 0, where all began
    return (step - np.maximum.accumulate(began)).ravel()


def episode_rows(states: StateSet, row: int) -> np.ndarray:
    """All recorded rows of the episode that ``row`` belongs to, in order of time → int64 (T,)."""
    n = states.meta["num_envs"]
    t, env = divmod(int(row), n)
    ends = np.flatnonzero(states.done.reshape(-1, n)[:, env])
    at = int(np.searchsorted(ends, t))  # the end of this episode, if it was recorded
    first = ends[at - 1] + 1 if at else 0
    last = ends[at] if at < len(ends) else len(states) // n - 1
    return np.arange(first, last + 1) * n + env
