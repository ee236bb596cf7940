"""Collecting what the semantic clustering paper looks at: states on unseen levels, written to one file."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import h5py
import numpy as np
from sklearn.decomposition import PCA
from tqdm.auto import tqdm

from ..agents.sppo.agents import PPO
from ..agents.sppo.config import SPPOConfig
from ..agents.sppo.play import play
from ..common.errors import InterpError
from ..common.grouping import k_means
from ..common.storage import atomic_write
from ..envs.concepts import CONCEPTS, concepts
from ..envs.gamestate import read_state
from ..envs.procgen import OBSERVATION_SHAPE, Levels, ProcgenVec
from .states import MOST_STATES, StateSet, columns_of, difference, has_codes, load_states, weights_digest


def open_states(
    agent: PPO, path: Path | str, *, any_settings: bool = False, progress: bool = True, **settings: Any
) -> StateSet:
    """The states of ``agent`` in ``path``; collected now where it holds none, or others. Why is said on stderr.

    Args:
        any_settings: the same weights are enough; otherwise the file must be what :func:`collect_states` would write.
        **settings: of :func:`collect_states`.

    Raises:
        InterpError: a number is out of range, or the file can't be written.
    """
    path, wanted = Path(path), _meta(agent, **settings)
    if path.exists():
        try:
            states = load_states(path)
            keys = ("game", "weights") if any_settings else tuple(wanted)
            problem = difference(states.meta, {key: wanted[key] for key in keys})
        except InterpError:
            problem = "is damaged or no embedding file"
        if problem is None:
            return states
        print(f"{path} {problem}: collecting again.", file=sys.stderr)
    return collect_states(agent, path, progress=progress, **settings)


def collect_states(
    agent: PPO,
    path: Path | str,
    *,
    steps: int = 500,
    num_envs: int = 64,
    random_action: float = 0.2,
    keep: float = 0.8,
    seed: int = 0,
    progress: bool = True,
) -> StateSet:
    """Collect states on unseen levels (paper, section 5: 20% random actions, 80% of the states kept).

    A PPO agent has no codes: its states are grouped by k-means on h, in as many groups, and mapped by PCA.

    The file holds everything the figures, videos and the browser need; it is written whole or not at all.

    Raises:
        InterpError: numbers that are out of range.
    """
    meta = _meta(agent, steps, num_envs, random_action, keep, seed)
    path = Path(path)
    env = ProcgenVec(agent.config.env, num_envs, Levels.unseen(agent.config), seed=seed)
    rng = np.random.default_rng(seed)
    # Whole columns from the start: rows kept one by one lie between the network's buffers, whose room is then lost.
    columns: dict[str, np.ndarray] = {}
    without_codes: dict[str, np.ndarray] = {}
    if not has_codes(agent):
        without_codes = {"fdr": np.zeros((num_envs, 2), np.float32), "code": np.zeros(num_envs, np.int64)}
    try:
        with atomic_write(path) as raw, _held_back(raw) as target, h5py.File(target, "w") as file:
            frames = file.create_dataset(
                "obs",
                (steps * num_envs, *OBSERVATION_SHAPE),
                np.uint8,
                chunks=(min(16, steps * num_envs), *OBSERVATION_SHAPE),
                compression="gzip",  # level 1: a third smaller than lzf, and as fast to read
                compression_opts=1,
                fletcher32=True,
            )
            transitions = play(agent, env, random_action=random_action, seed=seed)
            for t in tqdm(range(steps), desc="collect", unit="step", disable=not progress):
                known = {}
                if "concepts" in meta:  # read before the step that the next transition takes
                    named = [[*concepts(read_state(state)).values()] for state in env.get_state()]
                    known = {"concepts": np.array(named, np.float32)}
                step = next(transitions)
                if target.failed is not None:
                    break
                part = slice(t * num_envs, (t + 1) * num_envs)
                frames[part] = step.obs
                row = {
                    **step.embedding._asdict(),
                    **without_codes,
                    **step._asdict(),
                    **known,
                    "env": np.arange(num_envs),
                    "t": np.full(num_envs, t),
                    "kept": rng.random(num_envs) < keep,
                }
                for name in columns_of(meta):
                    if t == 0:
                        columns[name] = np.empty((steps * num_envs, *row[name].shape[1:]), row[name].dtype)
                    columns[name][part] = row[name]
            if without_codes and target.failed is None:
                h = columns["feature"]
                columns["fdr"] = PCA(2, random_state=seed).fit_transform(h).astype(np.float32)
                columns["code"] = k_means(h, min(meta["num_codes"], len(h)), seed).labels_.astype(np.int64)
            for name, values in columns.items():
                file.create_dataset(name, data=values, chunks=True, fletcher32=True)
            file.attrs["meta"] = json.dumps(meta)
    finally:
        env.close()
    return load_states(path)


def _meta(
    agent: PPO,
    steps: int = 500,
    num_envs: int = 64,
    random_action: float = 0.2,
    keep: float = 0.8,
    seed: int = 0,
) -> dict[str, Any]:
    """What a file says about itself: the agent and how its states were collected."""
    if steps < 1 or num_envs < 1:
        raise InterpError(f"steps and num_envs must be at least 1, not {steps} and {num_envs}.")
    if steps * num_envs < 2:
        raise InterpError("one state is no map. Ask for more steps or environments.")
    if steps * num_envs > MOST_STATES:
        raise InterpError(f"steps and num_envs give {steps * num_envs:,} states. Ask for {MOST_STATES:,} at most.")
    if not 0 <= random_action <= 1 or not 0 < keep <= 1:
        raise InterpError("random_action must be within 0 and 1, keep above 0 and at most 1.")
    return {
        "run": f"{agent.algorithm}-{agent.config.env}-s{agent.config.seed}",
        "timesteps": agent.timesteps,
        "weights": weights_digest(agent),
        "game": agent.config.env,
        "mode": agent.config.distribution_mode,
        "num_codes": getattr(agent.config, "num_codes", SPPOConfig.num_codes),
        "steps": steps,
        "num_envs": num_envs,
        "random_action": random_action,
        "keep": keep,
        "seed": seed,
        **({} if has_codes(agent) else {"groups": "k-means on h"}),
        **({"concepts": [*CONCEPTS[agent.config.env]]} if agent.config.env in CONCEPTS else {}),
    }


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
