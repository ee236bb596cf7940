"""Episodes and states that an agent recorded, or as it would have: made up."""

from pathlib import Path

import h5py
import numpy as np

from interp_lib import load_agent
from interp_lib.agents.sppo.play import Episode
from interp_lib.clusters.collect import collect_states
from interp_lib.clusters.states import StateSet
from interp_lib.clusters.study import ClusterStudy
from interp_lib.envs.procgen import Levels

CHECKPOINTS = Path(__file__).resolve().parents[1] / "checkpoints"


def collected(folder, run, *, steps, num_envs):
    """The study of a released run, and the states it meets."""
    agent = load_agent(CHECKPOINTS / run, device="cpu")
    states = collect_states(agent, folder / "s.h5", steps=steps, num_envs=num_envs, progress=False)
    return ClusterStudy(agent, states)


def recorded(total, codes):
    codes = np.array(codes, np.int8)
    rewards = np.zeros(len(codes), np.float32)
    rewards[-1] = total
    return Episode("ninja", Levels("easy"), 200_000, np.zeros(len(codes), np.int8), rewards, codes)


def recording(path, code, *, done=None, num_codes=4, level=None, feature=None, frames=None):
    """A recording of given codes (T, n); everything else is as given or 0."""
    code = np.asarray(code)
    steps, n = code.shape
    size = code.size
    with h5py.File(path, "w") as file:
        file["obs"] = np.zeros((size, 64, 64, 3), np.uint8) if frames is None else frames
    zeros = np.zeros(size)
    return StateSet(
        path=path,
        meta={"num_envs": n, "num_codes": num_codes, "game": "fruitbot", "steps": steps, "random_action": 0.2},
        feature=np.zeros((size, 4), np.float32) if feature is None else feature,
        fdr=np.random.default_rng(0).normal(size=(size, 2)).astype(np.float32),
        code=code.ravel().astype(np.int64),
        value=zeros.astype(np.float32),
        action=np.zeros(size, np.int64),
        reward=zeros.astype(np.float32),
        done=np.zeros(size, bool) if done is None else np.asarray(done, bool).ravel(),
        level=np.arange(size) % n if level is None else level,
        env=np.tile(np.arange(n), steps),
        t=np.repeat(np.arange(steps), n),
        kept=np.ones(size, bool),
    )
