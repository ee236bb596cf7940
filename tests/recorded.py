"""Episodes and states as an agent would have recorded them, made up."""

import h5py
import numpy as np

from interp_lib.agents.sppo.play import Episode
from interp_lib.clusters.states import StateSet
from interp_lib.envs.procgen import Levels


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
