"""What the semantic clustering paper looks at: states on unseen levels, their FDR and t-SNE spaces, their clusters."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from .envs.procgen import OBSERVATION_SHAPE, ProcgenVec
from .errors import InterpError
from .evaluation import procgen_levels
from .semantic.agents import PPO
from .semantic.play import play
from .storage import atomic_write

COLUMNS = ("fdr", "code", "value", "action", "reward", "done", "level", "env", "t", "kept", "feature")
GAMMA = 0.999


@dataclass(frozen=True)
class StateSet:
    """N states of T steps in n environments, in order of time (row ``t · n + env``).

    Frames stay in the file: :meth:`frames` reads those asked for.
    """

    path: Path
    meta: dict  # run, env, steps, num_envs, random_action, keep, seed
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

    def frames(self, rows: np.ndarray) -> np.ndarray:
        """Observations of the states ``rows`` (m,), in that order → uint8 (m, 64, 64, 3)."""
        rows = np.asarray(rows, dtype=np.int64)
        unique, inverse = np.unique(rows, return_inverse=True)  # HDF5 wants increasing, distinct rows
        with h5py.File(self.path) as file:
            return file["obs"][unique][inverse]

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
    progress: bool = True,
) -> StateSet:
    """Collect states on unseen levels (paper, section 5: 20% random actions, 80% of the states kept).

    The file holds everything the figures, videos and the browser need; it is written whole or not at all.

    Raises:
        InterpError: the agent has no semantic module, or numbers that are out of range.
    """
    if agent.algorithm != "sppo":
        raise InterpError(f"a {agent.algorithm} run has no clusters to embed: only SPPO has codes. Choose an sppo run.")
    if steps < 1 or num_envs < 1:
        raise InterpError(f"steps and num_envs must be at least 1, not {steps} and {num_envs}.")
    if not 0 <= random_action <= 1 or not 0 < keep <= 1:
        raise InterpError("random_action must be within 0 and 1, keep above 0 and at most 1.")
    meta = {
        "run": f"{agent.algorithm}-{agent.config.env}-s{agent.config.seed}",
        "timesteps": agent.timesteps,
        "game": agent.config.env,
        "mode": agent.config.distribution_mode,
        "num_codes": agent.config.num_codes,
        "steps": steps,
        "num_envs": num_envs,
        "random_action": random_action,
        "keep": keep,
        "seed": seed,
    }
    env = ProcgenVec(agent.config.env, num_envs, seed=seed, **procgen_levels(agent.config, "unseen"))
    rng = np.random.default_rng(seed)
    columns: dict[str, list[np.ndarray]] = {name: [] for name in COLUMNS}
    try:
        with atomic_write(path) as raw, h5py.File(raw, "w") as file:
            frames = file.create_dataset(
                "obs",
                (steps * num_envs, *OBSERVATION_SHAPE),
                np.uint8,
                chunks=(16, *OBSERVATION_SHAPE),
                compression="lzf",
            )
            transitions = play(agent, env, random_action=random_action, seed=seed)
            for t in tqdm(range(steps), desc="collect", unit="step", disable=not progress):
                step = next(transitions)
                frames[t * num_envs : (t + 1) * num_envs] = step.obs
                row = {
                    **step.embedding._asdict(),
                    **step._asdict(),
                    "env": np.arange(num_envs),
                    "t": np.full(num_envs, t),
                    "kept": rng.random(num_envs) < keep,
                }
                for name in COLUMNS:
                    columns[name].append(row[name])
            for name, parts in columns.items():
                file[name] = np.concatenate(parts)
            file.attrs["meta"] = json.dumps(meta)
    finally:
        env.close()
    return load_states(path)


def load_states(path: Path | str) -> StateSet:
    """Open what :func:`collect_states` wrote.

    Raises:
        InterpError: the file is missing, damaged or of another kind.
    """
    path = Path(path)
    if not path.exists():
        raise InterpError(f"{path} does not exist. Collect first: interp embed RUN")
    try:
        with h5py.File(path) as file:
            meta = json.loads(file.attrs["meta"])
            return StateSet(path, meta, **{name: file[name][:] for name in COLUMNS})
    except (OSError, KeyError, ValueError) as error:
        raise InterpError(f"{path} is damaged or no embedding file ({error}). Delete it and collect again.") from error


def tsne(features: np.ndarray, *, seed: int = 0, perplexity: float = 30.0, jobs: int = 2) -> np.ndarray:
    """t-SNE of ``features`` (n, d) → float64 (n, 2), from a PCA start, so that the global layout means something."""
    import openTSNE

    if len(features) <= 3 * perplexity:
        raise InterpError(f"t-SNE with perplexity {perplexity:g} needs more than {3 * perplexity:g} states.")
    return np.asarray(openTSNE.TSNE(perplexity=perplexity, random_state=seed, n_jobs=jobs).fit(features))


def sample_rows(states: StateSet, size: int, *, seed: int = 0) -> np.ndarray:
    """Up to ``size`` of the kept states, at random, in order → int64 (m,)."""
    rows = np.flatnonzero(states.kept)
    if len(rows) > size:
        rows = np.sort(np.random.default_rng(seed).choice(rows, size, replace=False))
    return rows


def code_perplexity(code: np.ndarray, num_codes: int) -> float:
    """exp(entropy) of code usage: how many of the K codes are in use, in effect (1 to K)."""
    usage = np.bincount(code, minlength=num_codes) / max(len(code), 1)
    usage = usage[usage > 0]
    return float(np.exp(-(usage * np.log(usage)).sum()))


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


def dwell_times(states: StateSet) -> dict[int, np.ndarray]:
    """Lengths in steps of the stretches that one environment stays in a cluster within an episode, by cluster."""
    n = states.meta["num_envs"]
    code, done = states.code.reshape(-1, n), states.done.reshape(-1, n)
    lengths: dict[int, list[int]] = {k: [] for k in range(states.num_codes)}
    for env in range(n):
        for k, stop, start in _stretches(code[:, env], done[:, env]):
            lengths[k].append(stop - start)
    return {k: np.array(found, dtype=np.int64) for k, found in lengths.items()}


def _stretches(code: np.ndarray, done: np.ndarray) -> Iterator[tuple[int, int, int]]:
    start = 0
    for t in range(len(code)):
        last = t + 1 == len(code)
        if last or done[t] or code[t + 1] != code[t]:
            yield int(code[t]), t + 1, start
            start = t + 1


def cluster_table(states: StateSet) -> pd.DataFrame:
    """One row a cluster, over the kept states: share, dwell time, value, return to go, most frequent actions."""
    from .envs.procgen import ACTION_NAMES

    to_go, dwell = return_to_go(states), dwell_times(states)
    rows = []
    for k in range(states.num_codes):
        member = states.kept & (states.code == k)
        count = int(member.sum())
        actions = np.bincount(states.action[member], minlength=len(ACTION_NAMES))
        top = [ACTION_NAMES[a] for a in np.argsort(-actions, kind="stable")[:3] if actions[a]]
        rows.append(
            {
                "cluster": k,
                "states": count,
                "share": count / max(int(states.kept.sum()), 1),
                "mean dwell (steps)": float(dwell[k].mean()) if len(dwell[k]) else np.nan,
                "value": float(states.value[member].mean()) if count else np.nan,
                "return to go": float(to_go[member].mean()) if count else np.nan,
                "frequent actions": ", ".join(top),
            }
        )
    return pd.DataFrame(rows).set_index("cluster")


def mean_images(states: StateSet, *, per_cluster: int = 500, seed: int = 0) -> dict[int, np.ndarray]:
    """Mean observation of each cluster that has states → uint8 (64, 64, 3) by cluster."""
    rng = np.random.default_rng(seed)
    images = {}
    for k in range(states.num_codes):
        rows = np.flatnonzero(states.kept & (states.code == k))
        if len(rows):
            rows = rng.choice(rows, min(per_cluster, len(rows)), replace=False)
            images[k] = states.frames(rows).mean(0).round().astype(np.uint8)
    return images


def representative_rows(states: StateSet, k: int, count: int = 4) -> np.ndarray:
    """States of cluster ``k`` nearest to its median in FDR space, at most one a level → int64 (m ≤ count,)."""
    rows = np.flatnonzero(states.kept & (states.code == k))
    if not len(rows):
        return rows
    centre = np.median(states.fdr[rows], axis=0)
    order = rows[np.argsort(np.square(states.fdr[rows] - centre).sum(1), kind="stable")]
    _, first = np.unique(states.level[order], return_index=True)
    return order[np.sort(first)][:count]


def cluster_quality(states: StateSet, rows: np.ndarray, spaces: dict[str, np.ndarray]) -> pd.DataFrame:
    """Silhouette of the codes and trustworthiness against feature space, for each 2-D space of the states ``rows``.

    Args:
        spaces: name → (m, 2) coordinates of ``rows``.
    """
    from sklearn.manifold import trustworthiness
    from sklearn.metrics import silhouette_score

    code = states.code[rows]
    table = {}
    for name, points in spaces.items():
        several = len(np.unique(code)) > 1
        table[name] = {
            "silhouette of codes": silhouette_score(points, code) if several else np.nan,
            "trustworthiness (k=12)": trustworthiness(states.feature[rows], points, n_neighbors=12),
        }
    return pd.DataFrame(table).T.rename_axis("space")
