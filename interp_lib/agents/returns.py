"""Whole episodes played by an agent: their returns and lengths, in Procgen and in continuous tasks."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..common.errors import InterpError
from ..envs.procgen import Levels, ProcgenVec


class Returns(NamedTuple):
    """Undiscounted returns and lengths of N episodes."""

    returns: np.ndarray  # float64 (N,)
    lengths: np.ndarray  # int64 (N,)


def evaluate_procgen(
    agent: Any, episodes: int, *, side: str = "unseen", deterministic: bool = False, seed: int = 0, num_envs: int = 64
) -> Returns:
    """Play whole episodes of the agent's game.

    Args:
        side: ``train`` draws from the levels the agent was trained on; ``unseen`` from the 100,000 levels that start
            200,000 after the first training level, or after the last one where there were more.
        deterministic: take the most probable action; the papers sample.

    Raises:
        InterpError: unknown side or no episodes.
    """
    from .sppo.play import play_episodes

    levels = {"train": Levels.seen, "unseen": Levels.unseen}.get(side)
    if levels is None:
        raise InterpError(f"unknown side '{side}'. Valid: train, unseen.")
    env = ProcgenVec(agent.config.env, min(num_envs, max(episodes, 1)), levels(agent.config), seed=seed)
    try:
        played = play_episodes(agent, env, episodes, deterministic=deterministic, seed=seed)
    finally:
        env.close()
    return Returns(np.array([e.total for e in played]), np.array([len(e.actions) for e in played]))


def evaluate_continuous(agent: Any, task: str, episodes: int, *, deterministic: bool = True, seed: int = 0) -> Returns:
    """Play whole episodes of a continuous task, each with a seed of its own (``seed``, ``seed + 1``, …).

    One of them starts as a training episode did: the first one of a run began with the run's seed, all later ones with
    the dice that this seed left (with several environments, each has a seed and a first episode). Evaluation and
    training keep these seeds so that released runs can be trained again, and their returns measured again.

    Args:
        agent: anything with Stable-Baselines3's ``predict``; None acts at random.

    Raises:
        InterpError: no episodes.
    """
    from ..envs.continuous import make_task

    if episodes <= 0:
        raise InterpError(f"the number of episodes must be positive, not {episodes}.")
    returns, lengths = [], []
    env = make_task(task)
    env.action_space.seed(seed)
    try:
        for episode in range(episodes):
            obs, _ = env.reset(seed=seed + episode)
            total, length, ended = 0.0, 0, False
            while not ended:
                action = (
                    env.action_space.sample() if agent is None else agent.predict(obs, deterministic=deterministic)[0]
                )
                obs, reward, terminated, truncated, _ = env.step(action)
                total, length, ended = total + float(reward), length + 1, terminated or truncated
            returns.append(total)
            lengths.append(length)
    finally:
        env.close()
    return Returns(np.array(returns), np.array(lengths))


def evaluate_side_by_side(agent: Any, task: str, episodes: int, *, seed: int = 0) -> Returns:
    """The same episodes as :func:`evaluate_continuous`, with mean actions and one ``predict`` a step for all of them.

    Many times as fast where the network takes longer than the simulator. A batch is summed in another order than one
    state: compare only returns that were measured alike.

    Raises:
        InterpError: no episodes.
    """
    from ..envs.continuous import make_task

    if agent is None or episodes <= 0:
        return evaluate_continuous(agent, task, episodes, seed=seed)
    envs = [make_task(task) for _ in range(episodes)]
    returns, lengths = np.zeros(episodes), np.zeros(episodes, dtype=np.int64)
    try:
        playing = {i: env.reset(seed=seed + i)[0] for i, env in enumerate(envs)}
        while playing:
            actions = agent.predict(np.stack(list(playing.values())), deterministic=True)[0]
            for i, action in zip(list(playing), actions, strict=True):
                playing[i], reward, terminated, truncated, _ = envs[i].step(action)
                returns[i] += float(reward)
                lengths[i] += 1
                if terminated or truncated:
                    del playing[i]
    finally:
        for env in envs:
            env.close()
    return Returns(returns, lengths)
