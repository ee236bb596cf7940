"""What the semantic clustering paper looks at: states on unseen levels, in one file, and their FDR and t-SNE spaces."""

from __future__ import annotations

import contextlib
import hashlib
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import h5py
import numpy as np
import numpy.typing as npt
import pandas as pd
from tqdm.auto import tqdm

from ..agents.sppo.agents import PPO
from ..agents.sppo.config import MOST_CODES, SPPOConfig
from ..agents.sppo.network import FEATURE_SIZE
from ..agents.sppo.play import play
from ..common.errors import InterpError
from ..common.graphs import CUT, END
from ..common.storage import atomic_write
from ..envs.actions import NUM_ACTIONS
from ..envs.names import PROCGEN_GAMES
from ..envs.procgen import OBSERVATION_SHAPE, Levels, ProcgenVec

# Column → shape of a row and kind of its dtype.
_SCHEMA: dict[str, tuple[tuple[int, ...], str]] = {
    "fdr": ((2,), "f"), "code": ((), "i"), "value": ((), "f"), "action": ((), "i"), "reward": ((), "f"),
    "done": ((), "b"), "level": ((), "i"), "env": ((), "i"), "t": ((), "i"), "kept": ((), "b"),
    "feature": ((FEATURE_SIZE,), "f"),
}  # fmt: skip


COLUMNS = tuple(_SCHEMA)


_MOST_STATES = 2**22  # 4 GB of features


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
    fdr: np.ndarray  # float32 (N, 2), z
    code: np.ndarray  # int64 (N,), k
    value: np.ndarray  # float32 (N,)
    action: np.ndarray  # int64 (N,), action taken
    reward: np.ndarray  # float32 (N,), raw
    done: np.ndarray  # bool (N,), the episode ended with this action
    level: np.ndarray  # int64 (N,)
    env: np.ndarray  # int64 (N,), which environment
    t: np.ndarray  # int64 (N,), step since collecting began
    kept: np.ndarray  # bool (N,), belongs to the paper's 80%

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
    def num_codes(self) -> int:
        """K, also where some codes were never used."""
        return int(self.meta["num_codes"])


def collect_states(
    agent: PPO,
    path: Path | str,
    *,
    steps: int = 500,
    num_envs: int = 64,
    random_action: float = 0.2,
    keep: float = 0.8,
    seed: int = 0,
    reuse: bool = False,
    progress: bool = True,
) -> StateSet:
    """Collect states on unseen levels (paper, section 5: 20% random actions, 80% of the states kept).

    The file holds everything the figures, videos and the browser need; it is written whole or not at all.

    Args:
        reuse: open ``path`` instead when it holds what would be collected: the same weights, the same settings. Why
            another file is replaced is said on stderr.

    Raises:
        InterpError: the agent has no semantic module, or numbers that are out of range.
    """
    if agent.algorithm != "sppo":
        raise InterpError(f"a {agent.algorithm} run has no clusters to embed: only SPPO has codes. Choose an sppo run.")
    assert isinstance(agent.config, SPPOConfig)
    path = Path(path)
    if steps < 1 or num_envs < 1:
        raise InterpError(f"steps and num_envs must be at least 1, not {steps} and {num_envs}.")
    if steps * num_envs > _MOST_STATES:
        raise InterpError(f"steps and num_envs give {steps * num_envs:,} states. Ask for {_MOST_STATES:,} at most.")
    if not 0 <= random_action <= 1 or not 0 < keep <= 1:
        raise InterpError("random_action must be within 0 and 1, keep above 0 and at most 1.")
    meta = {
        "run": f"{agent.algorithm}-{agent.config.env}-s{agent.config.seed}",
        "timesteps": agent.timesteps,
        "weights": weights_digest(agent),
        "game": agent.config.env,
        "mode": agent.config.distribution_mode,
        "num_codes": agent.config.num_codes,
        "steps": steps,
        "num_envs": num_envs,
        "random_action": random_action,
        "keep": keep,
        "seed": seed,
    }
    if reuse and path.exists():
        try:
            states = load_states(path)
            problem = _difference(states.meta, meta)
        except InterpError:
            problem = "is damaged or no embedding file"
        if problem is None:
            return states
        print(f"{path} {problem}: collecting again.", file=sys.stderr)
    env = ProcgenVec(agent.config.env, num_envs, Levels.unseen(agent.config), seed=seed)
    rng = np.random.default_rng(seed)
    # Whole columns from the start: rows kept one by one lie between the network's buffers, whose room is then lost.
    columns: dict[str, np.ndarray] = {}
    try:
        with atomic_write(path) as raw, _held_back(raw) as target, h5py.File(target, "w") as file:
            frames = file.create_dataset(
                "obs",
                (steps * num_envs, *OBSERVATION_SHAPE),
                np.uint8,
                chunks=(16, *OBSERVATION_SHAPE),
                compression="gzip",  # level 1: a third smaller than lzf, and as fast to read
                compression_opts=1,
                fletcher32=True,
            )
            transitions = play(agent, env, random_action=random_action, seed=seed)
            for t in tqdm(range(steps), desc="collect", unit="step", disable=not progress):
                step = next(transitions)
                if target.failed is not None:
                    break
                part = slice(t * num_envs, (t + 1) * num_envs)
                frames[part] = step.obs
                row = {
                    **step.embedding._asdict(),
                    **step._asdict(),
                    "env": np.arange(num_envs),
                    "t": np.full(num_envs, t),
                    "kept": rng.random(num_envs) < keep,
                }
                for name in COLUMNS:
                    if t == 0:
                        columns[name] = np.empty((steps * num_envs, *row[name].shape[1:]), row[name].dtype)
                    columns[name][part] = row[name]
            for name, values in columns.items():
                file.create_dataset(name, data=values, chunks=True, fletcher32=True)
            file.attrs["meta"] = json.dumps(meta)
    finally:
        env.close()
    return load_states(path)


class _Held:
    """A file for HDF5 to write, which hears of no failure: after one its library crashes as the process ends."""

    def __init__(self, file: BinaryIO):
        self._file = file
        self.failed: OSError | None = None

    def write(self, data: Any) -> int:
        if self.failed is None:
            try:
                return self._file.write(data)
            except OSError as error:
                self.failed = error
        return memoryview(data).nbytes

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


@contextlib.contextmanager
def _held_back(file: BinaryIO) -> Iterator[_Held]:
    """Raise what writing came to only once HDF5 has closed ``file``."""
    held = _Held(file)
    try:
        yield held
    finally:
        if held.failed is not None:
            raise held.failed


def load_states(path: Path | str, agent: PPO | None = None) -> StateSet:
    """Open what :func:`collect_states` wrote.

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
            states = StateSet(path, meta, **{name: file[name][:] for name in COLUMNS})
        _check_values(states)
    except (OSError, KeyError, ValueError, TypeError, RuntimeError) as error:
        raise InterpError(f"{path} is damaged or no embedding file ({error}). Delete it and collect again.") from error
    if agent is not None:
        keys = ("game", "weights")
        problem = _difference(
            {key: meta.get(key) for key in keys}, {"game": agent.config.env, "weights": weights_digest(agent)}
        )
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
    if meta["steps"] < 1 or meta["num_envs"] < 1 or meta["steps"] * meta["num_envs"] > _MOST_STATES:
        raise ValueError("its number of states is out of range")
    return meta


def _check_columns(file: h5py.File, meta: Mapping[str, Any]) -> None:
    """Shapes and kinds before anything is read: a few bytes of HDF5 can claim any size, all of it zeros."""
    size = meta["steps"] * meta["num_envs"]
    for name, (row, kind) in (*_SCHEMA.items(), ("obs", (OBSERVATION_SHAPE, "u"))):
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


def _difference(meta: Mapping[str, Any], wanted: Mapping[str, Any]) -> str | None:
    """How a file differs from what is wanted, as the end of a sentence that begins with its name; None: not at all."""
    if meta.get("game") != wanted["game"]:
        return f"holds states of {meta.get('game')}, not of {wanted['game']}"
    if meta.get("weights") != wanted["weights"]:
        return f"holds states of another {wanted['game']} agent, or of this one before its last training"
    different = [f"{key} {meta.get(key)}, not {value}" for key, value in wanted.items() if meta.get(key) != value]
    return f"was collected with {' and '.join(different)}" if different else None


def sample_rows(states: StateSet, size: int, *, seed: int = 0) -> np.ndarray:
    """Up to ``size`` of the kept states, at random, in order → int64 (m,)."""
    rows = np.flatnonzero(states.kept)
    if len(rows) > size:
        rows = np.sort(np.random.default_rng(seed).choice(rows, size, replace=False))
    return rows


def return_to_go(states: StateSet, gamma: float = GAMMA) -> np.ndarray:
    """Discounted return from each state to the end of its episode, or of the recording → float64 (N,)."""
    n = states.meta["num_envs"]
    reward, done = states.reward.reshape(-1, n), states.done.reshape(-1, n)
    result = np.zeros(reward.shape)
    running = np.zeros(n)
    for t in reversed(range(len(reward))):
        running = reward[t] + gamma * running * ~done[t]
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


def dwell_times(states: StateSet) -> dict[int, np.ndarray]:
    """Lengths in steps of the stretches that one environment stays in a cluster within an episode, by cluster."""
    found = stretches(states)
    return {k: found["length"][found["cluster"] == k].to_numpy() for k in range(states.num_codes)}
