"""The training loop of PPO and SPPO: rollouts, updates, and a state that resumes to the bit."""

from __future__ import annotations

import math
import os
import time
from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from ...common.errors import InterpError
from ...envs.names import MOST_SEEDS
from ...envs.procgen import OBSERVATION_SHAPE, Levels, ProcgenGroups, best_score, can_restore
from .config import PPOConfig, SPPOConfig, changeable
from .network import ActorCritic
from .parallel import Workers
from .rollout import EpisodeStatistics, RewardNormalizer, generalized_advantages
from .training_state import check_state
from .update import Minibatch, Updater

# The columns of the published curves, then what is ours.
PROGRESS_COLUMNS = (
    "total_timesteps", "eprewmean", "eplenmean", "policy_entropy", "policy_loss", "value_loss", "skill_loss",
    "vq_loss", "approxkl", "clipfrac", "explained_variance", "fps", "time_elapsed", "skill_weight", "code_perplexity",
)  # fmt: skip


class Trainer:
    """Owns everything that changes during training; the network is shared with the agent.

    Args:
        network: on its device already.
        config: PPOConfig trains PPO, SPPOConfig trains SPPO.
        env_groups: groups of environments that step while the network acts for another; None: two beside a GPU, which
            then never waits for all of them, and one on a CPU, which has no core to spare.
        env_threads: C++ stepping threads of each group; None: shares of the cores beside a GPU, else none.

    Under ``torchrun`` this is one of several workers, which share the environments. The statistics of rewards and
    episodes are those of all environments and the same in every worker.

    Raises:
        InterpError: the environments or minibatches can't be shared equally by the workers.
    """

    def __init__(
        self, network: ActorCritic, config: PPOConfig, *, env_groups: int | None = None, env_threads: int | None = None
    ) -> None:
        self.network, self.config = network, config
        self.device = next(network.parameters()).device
        on_gpu = self.device.type == "cuda"
        self._env_groups = env_groups or (2 if on_gpu and config.num_envs % 2 == 0 else 1)
        cores = max((os.cpu_count() or 1) // (2 * self._env_groups), 1)
        self._env_threads = (min(cores, 4) if on_gpu else 0) if env_threads is None else env_threads
        self.workers = Workers(self.device)
        self.workers.same_start(network.parameters())
        self.own_envs = self.workers.share(config.num_envs)
        self.num_envs = self.own_envs.stop - self.own_envs.start
        self.num_samples = self.num_envs * config.num_steps
        if self.num_samples % config.num_minibatches:
            raise InterpError(
                f"a worker's {self.num_envs} environments · {config.num_steps} steps = {self.num_samples} must be a "
                f"multiple of num_minibatches = {config.num_minibatches}."
            )
        self.env = self._make_env(self._own_seed(config.seed))
        self.obs = self.env.observation
        self.updater = Updater(network, config, self.workers)
        self.normalizer = RewardNormalizer(config.num_envs)
        self.episodes = EpisodeStatistics(config.num_envs)
        self.generator = torch.Generator(self.device).manual_seed(self._own_seed(config.seed))
        self.updates, self.seconds, self.skill_weight = 0, 0.0, 0.0
        self.new_dice: int | None = None  # the seed they start from where a state's could not roll on
        shape = (config.num_steps, self.num_envs)
        self._obs = torch.empty(*shape, *OBSERVATION_SHAPE, dtype=torch.uint8, device=self.device)

    def _own_seed(self, seed: int) -> int:
        return (seed + 10_000 * self.workers.rank) % MOST_SEEDS  # workers draw levels and actions of their own

    def _make_env(self, seed: int) -> ProcgenGroups:
        how = {"groups": self._env_groups, "num_threads": self._env_threads}
        return ProcgenGroups(self.config.env, self.num_envs, Levels.seen(self.config), seed=seed, **how)

    @property
    def timesteps(self) -> int:
        """Environment steps so far."""
        return self.updates * self.config.steps_per_update

    def update(self) -> dict[str, Any]:
        """Collect one rollout, learn from it and return the row for progress.csv.

        Raises:
            InterpError: a loss is not finite.
        """
        started = time.perf_counter()
        if isinstance(self.config, SPPOConfig) and (self.updates + 1) % self.config.skill_interval == 0:
            self.skill_weight = self._next_skill_weight()
        batch, explained_variance, code_perplexity = self._collect()
        losses = self._learn(batch)
        self.updates += 1
        seconds = time.perf_counter() - started
        self.seconds += seconds
        row = {
            "total_timesteps": self.timesteps,
            "eprewmean": self.episodes.mean_return,
            "eplenmean": self.episodes.mean_length,
            **losses,
            "explained_variance": explained_variance,
            "fps": round(self.config.steps_per_update / seconds, 1),
            "time_elapsed": self.seconds,
        }
        if isinstance(self.config, SPPOConfig):
            row |= {"skill_weight": self.skill_weight, "code_perplexity": code_perplexity}
        return row

    def _next_skill_weight(self) -> float:
        """λ = min(mean return / (0.8 · best score), 1); at least 0, since games with negative returns would turn it.

        Before any episode has ended, as after a start from a release, it stays what it is.
        """
        mean_return = self.episodes.mean_return
        if math.isnan(mean_return):
            return self.skill_weight
        return min(max(mean_return / (0.8 * best_score(self.config.env, self.config.distribution_mode)), 0.0), 1.0)

    @torch.no_grad()
    def _collect(self) -> tuple[Minibatch, float, float]:
        """Step this worker's environments ``num_steps`` times → the rollout, flat, and two diagnostics."""
        cfg, workers = self.config, self.workers
        shape = (cfg.num_steps, self.num_envs)
        actions = torch.empty(shape, dtype=torch.int64, device=self.device)
        log_probs = torch.empty(shape, device=self.device)
        values, rewards, dones = (np.empty(shape, dtype) for dtype in (np.float32, np.float32, bool))
        code_counts = torch.zeros(getattr(cfg, "num_codes", 1), device=self.device)

        def act(t: int, group: int) -> None:
            rows = self.env.rows[group]
            self._obs[t, rows] = torch.from_numpy(self.obs[rows])
            out = self.network(self._obs[t, rows])
            log_policy = torch.log_softmax(out.logits, dim=-1)
            action = torch.multinomial(log_policy.exp(), 1, generator=self.generator)
            actions[t, rows], log_probs[t, rows] = action[:, 0], log_policy.gather(1, action)[:, 0]
            self.env.groups[group].act(action[:, 0].cpu().numpy())
            values[t, rows] = out.value.cpu().numpy()
            if out.code is not None:
                code_counts.add_(torch.bincount(out.code, minlength=len(code_counts)))

        def observe(t: int, group: int) -> None:
            rows, step = self.env.rows[group], self.env.groups[group].observe()
            rewards[t, rows], dones[t, rows], self.obs[rows] = step.reward, step.done, step.obs
            if rows.stop == self.num_envs:  # the last group: this step is complete
                all_rewards, all_dones = workers.gather_array(rewards[t]), workers.gather_array(dones[t])
                self.episodes.add(all_rewards, all_dones)
                rewards[t] = self.normalizer(all_rewards, all_dones)[self.own_envs]

        groups = range(self._env_groups)
        for t in range(cfg.num_steps):
            for group in groups:
                if t > 0:
                    observe(t - 1, group)  # the other groups go on stepping meanwhile
                act(t, group)
        for group in groups:
            observe(cfg.num_steps - 1, group)
        last_values = self.network(torch.from_numpy(self.obs).to(self.device)).value.cpu().numpy()
        advantages = generalized_advantages(rewards, values, dones, last_values, cfg.gamma, cfg.gae_lambda)
        returns = advantages + values
        batch = Minibatch(
            obs=self._obs.flatten(0, 1),
            actions=actions.flatten(),
            old_log_prob=log_probs.flatten(),
            old_value=torch.from_numpy(values).flatten().to(self.device),
            returns=torch.from_numpy(returns).flatten().to(self.device),
        )
        all_returns, all_values = workers.gather_array(returns), workers.gather_array(values)
        variance = float(all_returns.var())
        explained = 1 - float((all_returns - all_values).var()) / variance if variance > 0 else float("nan")
        usage = workers.mean(code_counts / code_counts.sum().clamp(min=1))
        perplexity = float(torch.special.entr(usage).sum().exp())
        return batch, explained, perplexity

    def _learn(self, batch: Minibatch) -> dict[str, float]:
        """Train ``num_epochs`` passes over the rollout in shuffled minibatches; returns losses averaged over them."""
        cfg = self.config
        size = self.num_samples // cfg.num_minibatches
        history = []
        for _ in range(cfg.num_epochs):
            order = torch.randperm(self.num_samples, generator=self.generator, device=self.device)
            for index in order.split(size):
                losses = self.updater.step(Minibatch(*(part[index] for part in batch)), self.skill_weight)
                if not math.isfinite(losses["loss"]):
                    raise InterpError(
                        f"the loss became {losses['loss']} at step {self.timesteps}. The last checkpoint is intact; "
                        "resume with a smaller --learning-rate or --precision fp32."
                    )
                history.append(losses)
        return {name: float(np.mean([losses[name] for losses in history])) for name in history[0]}

    def state_dict(self) -> dict[str, Any]:
        """The complete training state, in types that ``torch.load(weights_only=True)`` accepts.

        The same in every worker; all must ask for it together.
        """
        env_states, dice = self.workers.gather_list(self.env.get_state()), [self.generator.get_state()]
        return {
            "network": self.network.state_dict(),
            "optimizer": self.updater.optimizer.state_dict(),
            "optimizer_steps": self.updater.steps,
            "env": [torch.frombuffer(bytearray(state), dtype=torch.uint8) for state in env_states],
            "normalizer": self.normalizer.state_dict(),
            "episodes": self.episodes.state_dict(),
            "generator": torch.cat(self.workers.gather_list(dice)),
            "device": self.device.type,
            "updates": self.updates,
            "seconds": self.seconds,
            "skill_weight": self.skill_weight,
            "workers": self.workers.size,
            "config": asdict(self.config),
        }

    def load_state_dict(self, state: dict[str, Any], *, sealed: bool = True) -> None:
        """Continue exactly where :meth:`state_dict` was taken.

        A GPU's dice can't be rolled on by a CPU, nor a CPU's by a GPU: where ``state`` comes from another kind of
        device, everything else goes on, and the dice start anew from a seed (:attr:`new_dice`).

        Args:
            state: with its tensors on the CPU.
            sealed: it is known to be one of :meth:`state_dict`. Otherwise Procgen first tries it in a process of its
                own, which it would end if it met anything else.

        Raises:
            InterpError: it was taken with another number of workers, whose dice these could not go on rolling.
            ValueError, KeyError, TypeError, AttributeError: it is damaged or of another run. Nothing is changed.
        """
        workers = state.get("workers", 1)
        if workers != self.workers.size:
            how = f"with torchrun --nproc-per-node {workers}" if workers > 1 else "without torchrun"
            raise InterpError(f"this run has {workers} worker(s), not {self.workers.size}. Resume it {how}.")
        check_state(state, self.state_dict(), list(self.network.parameters()))
        config = self.config.from_dict(state.get("config", asdict(self.config)))
        if not all(changeable(f) for f in self.config.differences(config)):
            raise ValueError("it is of a run with other hyper-parameters")
        own_states = [part.numpy().tobytes() for part in state["env"][self.own_envs]]
        if not sealed and not can_restore(self.config.env, Levels.seen(self.config), own_states):
            raise ValueError("Procgen can't restore its environments")
        self.network.load_state_dict(state["network"])
        self.updater.optimizer.load_state_dict(state["optimizer"])
        self.updater.steps = state["optimizer_steps"]
        self.env.set_state(own_states)
        self.obs = self.env.observation
        self.normalizer.load_state_dict(state["normalizer"])
        self.episodes.load_state_dict(state["episodes"])
        self.updates, self.seconds, self.skill_weight = (state[n] for n in ("updates", "seconds", "skill_weight"))
        self.change(config)
        if _device_of(state) == self.device.type:
            self.new_dice = None
            self.generator.set_state(state["generator"].chunk(workers)[self.workers.rank].clone())
        else:
            self._roll_new_dice()

    def change(self, config: PPOConfig) -> None:
        """Go on with those hyper-parameters of ``config`` that can change while a run goes on."""
        self.config = self.updater.config = config
        for group in self.updater.optimizer.param_groups:
            group["lr"] = config.learning_rate

    def _roll_new_dice(self) -> None:
        """Seed the dice by run and update, so that they don't repeat those of the first updates."""
        self.new_dice = self.config.seed + self.updates
        self.generator.manual_seed(self._own_seed(self.new_dice))

    def summary(self) -> dict[str, Any]:
        """The few numbers a release keeps so that training can go on from its weights alone."""
        normalizer = self.normalizer.state_dict()
        del normalizer["returns"]
        summary = {"updates": self.updates, "seconds": round(self.seconds, 1), "reward_normalizer": normalizer}
        if self.episodes.returns:
            summary["last_episodes"] = self.episodes.summary()
        if isinstance(self.config, SPPOConfig):
            summary["skill_weight"] = self.skill_weight
        if self.workers.size > 1:
            summary["workers"] = self.workers.size
        return summary

    def load_summary(self, summary: dict[str, Any]) -> None:
        """Go on from a release: counters, λ and reward scale are restored, episodes and Adam's moments start anew."""
        self.updates, self.seconds = summary["updates"], summary["seconds"]
        self.skill_weight = summary.get("skill_weight", 0.0)
        scale = summary["reward_normalizer"]
        self.normalizer.load_state_dict({**scale, "returns": np.zeros(self.config.num_envs)})
        self._roll_new_dice()
        self.env.close()
        self.env = self._make_env(self._own_seed(self.config.seed + self.updates))  # nor the levels
        self.obs = self.env.observation


def _device_of(state: dict[str, Any]) -> str:
    """The kind of device a state was saved on; early states don't say it, but CUDA's dice have 16 bytes each."""
    of_cuda = len(state["generator"]) == 16 * state.get("workers", 1)
    return state.get("device", "cuda" if of_cuda else "cpu")
