"""The training loop of PPO and SPPO: rollouts, updates, and a state that resumes to the bit."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...common.acceleration import Capture, Checked, Compile, captured, cuda_graph
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

_PREPARING_PAYS = 1_000_000  # steps: three minutes and more at what was measured before anything was compiled


class Trainer:
    """Owns everything that changes during training; the network is shared with the agent.

    Args:
        network: on its device already.
        config: PPOConfig trains PPO, SPPOConfig trains SPPO.
        env_groups: groups of environments that step while the network acts for another; None: two beside a GPU, which
            then never waits for all of them, and one on a CPU, which has no core to spare.
        env_threads: C++ stepping threads of all groups; None: half of the cores beside a GPU, eight at most, else none.

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
        self._on_gpu = self.device.type == "cuda"
        self._env_groups = env_groups or (2 if self._on_gpu and config.num_envs % 2 == 0 else 1)
        half = max((os.cpu_count() or 1) // 2, 1)
        self._env_threads = (min(half, 8) if self._on_gpu else 0) if env_threads is None else env_threads
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
        # From page-locked memory a GPU copies by itself.
        self.obs = torch.empty((self.num_envs, *OBSERVATION_SHAPE), dtype=torch.uint8, pin_memory=self._on_gpu).numpy()
        self.obs[:] = self.env.observation
        self.updater = Updater(network, config, self.workers)
        self.normalizer = RewardNormalizer(config.num_envs)
        self.episodes = EpisodeStatistics(config.num_envs)
        self.generator = torch.Generator(self.device).manual_seed(self._own_seed(config.seed))
        self.updates, self.seconds, self.skill_weight = 0, 0.0, 0.0
        self.new_dice: int | None = None  # the seed they start from where a state's could not roll on
        shape = (config.num_steps, self.num_envs)
        self._obs = torch.empty(*shape, *OBSERVATION_SHAPE, dtype=torch.uint8, device=self.device)
        self._acceleration: Any = None
        self._capture: Capture | None = None
        self._acting: dict[int, Callable[[Tensor, Tensor], tuple[Tensor, ...]]] = {}

    def _own_seed(self, seed: int) -> int:
        return (seed + 10_000 * self.workers.rank) % MOST_SEEDS  # workers draw levels and actions of their own

    def _make_env(self, seed: int) -> ProcgenGroups:
        threads = self._env_threads and max(self._env_threads // self._env_groups, 1)
        how = {"groups": self._env_groups, "num_threads": threads}
        return ProcgenGroups(self.config.env, self.num_envs, Levels.seen(self.config), seed=seed, **how)

    def regroup(self, groups: int | None = None, threads: int | None = None) -> None:
        """Step the environments in so many groups, by so many threads (None: as before); they go on where they are."""
        states = self.env.get_state()
        self.env.close()
        self._env_groups = groups or self._env_groups
        self._env_threads = self._env_threads if threads is None else threads
        self.env = self._make_env(self.config.seed)
        self.env.set_state(states)
        self._acting.clear()

    def accelerate(self, compile: Compile, steps: int, capture: Capture | None = None) -> None:
        """Prepare for ``steps`` environment steps: capture acting, compile learning, choose groups of environments.

        Each is checked when it is first used, and left out where it does not give the same (common/acceleration.py).

        Args:
            compile: False: nothing of it. True: all of it. ``"auto"``: on a GPU; compiling and choosing groups, which
                take about a minute, for a million steps or more. Several workers only capture.
            capture: how acting is captured; None: as a CUDA graph on a GPU, else not.
        """
        pays = compile is True or (compile == "auto" and self._on_gpu and steps >= _PREPARING_PAYS)
        asked = (compile, pays, capture, self.network.encoder.bf16)
        if asked == self._acceleration:
            return
        self._acceleration = asked
        self._capture = capture or (cuda_graph if compile and self._on_gpu else None)
        self._acting.clear()
        self.updater.accelerate(compile=pays and self.workers.size == 1)
        if pays and self._on_gpu and self.workers.size == 1:
            self.regroup(self.fastest_groups())

    def fastest_groups(self, candidates: Sequence[int] = (1, 2, 4)) -> int:
        """In how many groups of environments a rollout is collected fastest, each tried once; nothing else changes."""
        before, seconds = self.state_dict(), {}
        for groups in candidates:
            if self.num_envs % groups == 0:
                self.regroup(groups)
                self._collect()  # captures
                started = time.perf_counter()
                self._collect()
                seconds[groups] = time.perf_counter() - started
                self.load_state_dict(before)
        return min(seconds, key=lambda groups: seconds[groups])

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
        # The dice of all steps: acting draws none, and how environments are grouped changes nothing.
        noise = torch.empty((*shape, self.network.policy.out_features), device=self.device)
        noise.exponential_(generator=self.generator)
        acted = np.empty((4, *shape), np.float32)  # action, log-probability, value and code
        rewards, dones = (np.empty(shape, dtype) for dtype in (np.float32, bool))

        def act(t: int, group: int) -> None:
            rows = self.env.rows[group]
            self._obs[t, rows].copy_(torch.from_numpy(self.obs[rows]), non_blocking=True)
            columns = self._act(group)(self._obs[t, rows], noise[t, rows])
            acted[:, t, rows] = torch.stack([column.float() for column in columns]).cpu().numpy()  # waits for the copy
            self.env.groups[group].act(acted[0, t, rows])

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
        actions, log_probs, values, codes = acted
        advantages = generalized_advantages(rewards, values, dones, last_values, cfg.gamma, cfg.gae_lambda)
        returns = advantages + values
        batch = Minibatch(
            obs=self._obs.flatten(0, 1),
            actions=torch.from_numpy(actions).flatten().to(self.device, torch.int64),
            old_log_prob=torch.from_numpy(log_probs).flatten().to(self.device),
            old_value=torch.from_numpy(values).flatten().to(self.device),
            returns=torch.from_numpy(returns).flatten().to(self.device),
        )
        all_returns, all_values = workers.gather_array(returns), workers.gather_array(values)
        variance = float(all_returns.var())
        explained = 1 - float((all_returns - all_values).var()) / variance if variance > 0 else float("nan")
        counts = np.bincount(codes.astype(int).ravel(), minlength=getattr(cfg, "num_codes", 1))
        usage = workers.mean(torch.from_numpy(counts / counts.sum()))
        perplexity = float(torch.special.entr(usage).sum().exp())
        return batch, explained, perplexity

    def _act(self, group: int) -> Callable[[Tensor, Tensor], tuple[Tensor, ...]]:
        """How actions are chosen for a group of environments: each has its own capture, which has its own memory."""
        if group not in self._acting:
            acting: Callable[..., Any] = self.choose_actions
            if self._capture is not None:
                make, exact = captured(acting, self._capture), self.network.encoder.exactly(acting)
                acting = Checked(acting, make, "acting could not be captured and", reference=exact)
            self._acting[group] = acting
        return self._acting[group]

    @torch.no_grad()
    def choose_actions(self, obs: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Sampled actions (n,), their log-probabilities, values and codes of observations (n, 64, 64, 3).

        Args:
            noise: (n, actions) of the exponential distribution. The first of exponential clocks of rates p to ring is
                i with probability p_i, which is how ``torch.multinomial`` draws as well.
        """
        out = self.network(obs)
        log_policy = torch.log_softmax(out.logits, dim=-1)
        action = (log_policy.exp() / noise).argmax(1, keepdim=True)
        code = torch.zeros_like(action[:, 0]) if out.code is None else out.code
        return action[:, 0], log_policy.gather(1, action)[:, 0], out.value, code

    def _learn(self, batch: Minibatch) -> dict[str, float]:
        """Train ``num_epochs`` passes over the rollout in shuffled minibatches; returns losses averaged over them."""
        cfg = self.config
        size = self.num_samples // cfg.num_minibatches
        weight = torch.tensor(self.skill_weight, device=self.device)
        names: list[str] = []
        history = []
        for _ in range(cfg.num_epochs):
            order = torch.randperm(self.num_samples, generator=self.generator, device=self.device)
            for index in order.split(size):
                losses = self.updater.step(Minibatch(*(part[index] for part in batch)), weight)
                names = list(losses)
                history.append(torch.stack(list(losses.values())))
        # One copy from the device for all of them: to look at each would be to wait for it.
        values = self.workers.mean(torch.stack(history)).cpu().double()
        means = dict(zip(names, values.mean(0).tolist(), strict=True))
        if not math.isfinite(means["loss"]):
            raise InterpError(
                f"the loss became {means['loss']} after step {self.timesteps}. The last checkpoint is intact; "
                "resume with a smaller --learning-rate or --precision fp32."
            )
        return means

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
        self.updater.load_state_dict(state["optimizer"], state["optimizer_steps"])
        self.env.set_state(own_states)
        self.obs[:] = self.env.observation
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
        self.obs[:] = self.env.observation


def _device_of(state: dict[str, Any]) -> str:
    """The kind of device a state was saved on; early states don't say it, but CUDA's dice have 16 bytes each."""
    of_cuda = len(state["generator"]) == 16 * state.get("workers", 1)
    return state.get("device", "cuda" if of_cuda else "cpu")
