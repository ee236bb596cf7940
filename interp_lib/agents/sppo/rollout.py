"""What happens between environment and loss: reward scaling, advantages, episode statistics (methods 2.8–2.9)."""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np


class RewardNormalizer:
    """Divides rewards by the running std of the discounted return, then clips to ±10 (Baselines' VecNormalize).

    The return has a discount of its own (0.99, not the agent's). All statistics are float64.
    """

    def __init__(self, num_envs: int, gamma: float = 0.99, clip: float = 10.0, epsilon: float = 1e-8) -> None:
        self.gamma, self.clip, self.epsilon = gamma, clip, epsilon
        self.mean, self.var, self.count = 0.0, 1.0, 1e-4
        self.returns = np.zeros(num_envs)

    def __call__(self, reward: np.ndarray, done: np.ndarray) -> np.ndarray:
        """Scale the raw ``reward`` (n,) of one step; ``done`` (n,) says which episodes ended with it → float32 (n,)."""
        self.returns = self.returns * self.gamma + reward
        self._update(self.returns)
        scaled = np.clip(reward / np.sqrt(self.var + self.epsilon), -self.clip, self.clip)
        self.returns[done] = 0.0
        return scaled.astype(np.float32)

    def _update(self, batch: np.ndarray) -> None:
        # Parallel variance (Chan et al.): exact for any batch size.
        n, delta = len(batch), batch.mean() - self.mean
        total = self.count + n
        m2 = self.var * self.count + batch.var() * n + delta**2 * self.count * n / total
        self.mean, self.var, self.count = float(self.mean + delta * n / total), float(m2 / total), float(total)

    def state_dict(self) -> dict[str, Any]:
        """Everything a bit-exact resume needs."""
        return {"mean": self.mean, "var": self.var, "count": self.count, "returns": self.returns.tolist()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore :meth:`state_dict`."""
        self.mean, self.var, self.count = state["mean"], state["var"], state["count"]
        self.returns = np.array(state["returns"], dtype=np.float64)


def generalized_advantages(
    rewards: np.ndarray,
    values: np.ndarray,
    dones: np.ndarray,
    last_values: np.ndarray,
    gamma: float = 0.999,
    lam: float = 0.95,
) -> np.ndarray:
    """Generalised advantage estimation (Schulman et al. 2016).

    Args:
        rewards, values, dones: (T, n); ``dones[t]`` says that the episode ended with step t.
        last_values: (n,), the value after the last step.

    Returns:
        advantages (T, n), float32; returns are advantages + values.
    """
    advantages = np.zeros_like(rewards, dtype=np.float32)
    advantage = np.zeros_like(last_values, dtype=np.float32)
    next_values = last_values
    for t in reversed(range(len(rewards))):
        alive = 1.0 - dones[t].astype(np.float32)
        delta = rewards[t] + gamma * next_values * alive - values[t]
        advantages[t] = advantage = delta + gamma * lam * alive * advantage
        next_values = values[t]
    return advantages


class EpisodeStatistics:
    """Raw returns and lengths of the last 100 episodes."""

    def __init__(self, num_envs: int, window: int = 100) -> None:
        self.episode_return = np.zeros(num_envs)
        self.episode_length = np.zeros(num_envs, dtype=np.int64)
        self.returns: deque[float] = deque(maxlen=window)
        self.lengths: deque[int] = deque(maxlen=window)

    def add(self, reward: np.ndarray, done: np.ndarray) -> None:
        """Count one step of all environments: raw ``reward`` (n,), ``done`` (n,)."""
        self.episode_return += reward
        self.episode_length += 1
        for i in np.flatnonzero(done):
            self.returns.append(float(self.episode_return[i]))
            self.lengths.append(int(self.episode_length[i]))
        self.episode_return[done] = 0.0
        self.episode_length[done] = 0

    @property
    def mean_return(self) -> float:
        """Mean raw return, NaN before the first episode has ended."""
        return float(np.mean(self.returns)) if self.returns else float("nan")

    @property
    def mean_length(self) -> float:
        """Mean episode length in steps, NaN before the first episode has ended."""
        return float(np.mean(self.lengths)) if self.lengths else float("nan")

    def summary(self) -> dict[str, float]:
        """Number, mean and sample standard deviation (n − 1; 0 for one episode) of the returns in the window."""
        returns = np.array(self.returns)
        std = float(returns.std(ddof=1)) if len(returns) > 1 else 0.0
        return {"n": len(returns), "mean": self.mean_return, "std": round(std, 6)}

    def state_dict(self) -> dict[str, Any]:
        """Everything a bit-exact resume needs."""
        names = ("episode_return", "episode_length", "returns", "lengths")
        return {name: np.asarray(getattr(self, name)).tolist() for name in names}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore :meth:`state_dict`."""
        self.episode_return = np.array(state["episode_return"], dtype=np.float64)
        self.episode_length = np.array(state["episode_length"], dtype=np.int64)
        self.returns, self.lengths = (deque(state[name], self.returns.maxlen) for name in ("returns", "lengths"))
