"""Steps per second of this PPO, this SPPO and a plain PPO loop, alternating in one run on the same game and batch.

The plain loop is what one would write first, after CleanRL's ppo_procgen.py: eager float32, NCHW float observations,
one thread pool, no chunking. All three learn from minibatches of the paper's size (2,048 of 64 environments), which
the cost of the FDR loss depends on; a shorter rollout than the paper's 256 steps keeps the run short. Ratios are the
median of those of the same round, so that a machine that slows down for a while slows both.

    python benchmarks/sppo_throughput.py [--game fruitbot] [--rounds 3] [--num-steps 64] [--threads N] [--against DIR]

``--against`` names another checkout, of an earlier revision, whose PPO and SPPO take turns with these, so that a change
is compared within one run. Run it when nothing else runs. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import statistics
import sys
import time
from collections import deque
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

import interp_lib
from interp_lib import PPO, SPPO
from interp_lib.agents.sppo.kernels import fdr_loss
from interp_lib.agents.sppo.losses import vq_loss
from interp_lib.common.compute import has_fast_bf16, keep_large_allocations
from interp_lib.envs.actions import NUM_ACTIONS
from interp_lib.envs.procgen import ProcgenVec

NUM_ENVS, MINIBATCH, EPOCHS = 64, 2048, 3


class PlainNetwork(nn.Module):
    """IMPALA CNN with policy and value heads as commonly written."""

    def __init__(self) -> None:
        super().__init__()
        layers, channels = [], 3
        for out in (16, 32, 32):
            layers += [nn.Conv2d(channels, out, 3, padding=1), nn.MaxPool2d(3, 2, 1), PlainBlock(out), PlainBlock(out)]
            channels = out
        self.trunk = nn.Sequential(*layers, nn.ReLU(), nn.Flatten(), nn.Linear(2048, 256), nn.ReLU())
        self.actor, self.critic = nn.Linear(256, NUM_ACTIONS), nn.Linear(256, 1)

    def forward(self, obs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        hidden = self.trunk(obs.permute(0, 3, 1, 2) / 255.0)
        return self.actor(hidden), self.critic(hidden).flatten()


class PlainBlock(nn.Module):
    """A residual block."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = (nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.conv2(F.relu(self.conv1(F.relu(x))))


class PlainPPO:
    """The plain loop: one update a call."""

    def __init__(self, game: str, num_steps: int) -> None:
        self.env = ProcgenVec(game, NUM_ENVS)
        self.num_steps = num_steps
        self.network = PlainNetwork()
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=5e-4, eps=1e-5)
        self.obs = torch.tensor(self.env.observation, dtype=torch.float32)

    def update(self) -> None:
        shape = (self.num_steps, NUM_ENVS)
        obs = torch.zeros(*shape, 64, 64, 3)
        actions, log_probs, values, rewards, dones = (torch.zeros(shape) for _ in range(5))
        for t in range(self.num_steps):
            obs[t] = self.obs
            with torch.no_grad():
                logits, values[t] = self.network(self.obs)
            policy = torch.distributions.Categorical(logits=logits)
            action = policy.sample()
            actions[t], log_probs[t] = action, policy.log_prob(action)
            step = self.env.step(action.numpy())
            rewards[t], dones[t] = torch.tensor(step.reward), torch.tensor(step.done, dtype=torch.float32)
            self.obs = torch.tensor(step.obs, dtype=torch.float32)
        with torch.no_grad():
            next_value = self.network(self.obs)[1]
        advantages, last = torch.zeros(shape), torch.zeros(NUM_ENVS)
        for t in reversed(range(self.num_steps)):
            alive = 1.0 - dones[t]
            last = rewards[t] + 0.999 * next_value * alive - values[t] + 0.999 * 0.95 * alive * last
            advantages[t], next_value = last, values[t]
        flat = [x.flatten(0, 1) for x in (obs, actions, log_probs, values, advantages)]
        for _ in range(EPOCHS):
            for index in torch.randperm(len(flat[0])).split(MINIBATCH):
                self._learn(*(x[index] for x in flat))

    def _learn(self, obs, actions, old_log_prob, old_value, advantage) -> None:
        logits, value = self.network(obs)
        policy = torch.distributions.Categorical(logits=logits)
        ratio = (policy.log_prob(actions) - old_log_prob).exp()
        returns = advantage + old_value
        advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
        surrogate = torch.max(-advantage * ratio, -advantage * ratio.clamp(0.8, 1.2)).mean()
        clipped = old_value + (value - old_value).clamp(-0.2, 0.2)
        value_loss = 0.5 * torch.max((value - returns) ** 2, (clipped - returns) ** 2).mean()
        loss = surrogate + 0.5 * value_loss - 0.01 * policy.entropy().mean()
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), 0.5)
        self.optimizer.step()


def ours(cls: type[PPO], game: str, num_steps: int):
    """A trainer of this library's PPO or SPPO, with training's precision switched on."""
    agent = cls(game, num_steps=num_steps, num_minibatches=NUM_ENVS * num_steps // MINIBATCH)
    agent._set_training_precision(on=True)
    trainer = agent._make_trainer()
    trainer.skill_weight = 0.5  # as in the middle of training; the skill term costs the same at any weight
    return trainer


def seconds(call, repeat: int = 3) -> float:
    """Median duration of ``call`` in seconds."""
    times = []
    for _ in range(repeat):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def stage_times(trainer, game: str) -> dict[str, float]:
    """Milliseconds a step spent in each stage, each measured alone; ``convolutions`` is what bounds the update."""
    network, rng = trainer.network, np.random.default_rng(0)
    env = ProcgenVec(game, NUM_ENVS)
    actions = rng.integers(0, NUM_ACTIONS, (64, NUM_ENVS))
    obs = trainer._obs.flatten(0, 1)[:MINIBATCH]
    features = torch.randn(MINIBATCH, 256, requires_grad=True)

    def inference() -> None:
        with torch.no_grad():
            network(obs[:NUM_ENVS])

    def convolutions() -> None:
        network.encoder(obs).square().mean().backward()

    def skill_losses() -> None:
        z, _, vector = network.semantic(features)
        (500 * fdr_loss(features, z) + vq_loss(z, vector)).backward()

    per_step = {
        "env": seconds(lambda: [env.step(a) for a in actions]) / actions.size,
        "inference": seconds(inference, 20) / NUM_ENVS,
        "convolutions_of_the_update": EPOCHS * seconds(convolutions) / MINIBATCH,
        "skill_losses_of_the_update": EPOCHS * seconds(skill_losses) / MINIBATCH,
    }
    return {name: round(1e3 * value, 4) for name, value in per_step.items()}


LOOPS = {
    "sppo": lambda args: ours(SPPO, args.game, args.num_steps),
    "ppo": lambda args: ours(PPO, args.game, args.num_steps),
    "plain": lambda args: PlainPPO(args.game, args.num_steps),
}


class Loop:
    """One of the loops in a process of its own, idle until asked: nobody trains in memory that another left behind."""

    def __init__(self, name: str, args: argparse.Namespace, checkout: str | None = None) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, other = context.Pipe()
        self._process = context.Process(target=serve, args=(other, name, args))
        before = list(sys.path)
        sys.path[:0] = [checkout] if checkout else []  # which the new process takes over
        self._process.start()
        sys.path[:] = before
        if checkout and not (where := self.ask("where")).startswith(os.path.join(checkout, "")):
            raise SystemExit(f"{checkout} holds no interp_lib: {where} was imported.")

    def ask(self, what: str) -> Any:
        """``where`` the library is; seconds of an ``update``; ``peak``: GiB; ``stages``: :func:`stage_times`."""
        self._pipe.send(what)
        return self._pipe.recv()


def serve(pipe: Any, name: str, args: argparse.Namespace) -> None:
    """What the process of a loop does: answer until the end."""
    torch.set_num_threads(args.threads)
    keep_large_allocations()
    loop = LOOPS[name](args)
    while True:
        what, answer = pipe.recv(), None
        if what == "update":
            start = time.perf_counter()
            loop.update()
            answer = time.perf_counter() - start
        elif what == "where":
            answer = interp_lib.__file__
        elif what == "peak":
            answer = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        elif what == "stages":
            answer = stage_times(loop, args.game)
        pipe.send(answer)
        if what == "end":
            return


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--game", default="fruitbot")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--num-steps", type=int, default=64, help="a multiple of 32")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--against", metavar="DIR", help="another checkout to compare with")
    args = parser.parse_args()
    steps = NUM_ENVS * args.num_steps
    loops = {name: Loop(name, args) for name in LOOPS}
    earlier = ("sppo", "ppo") if args.against else ()
    loops |= {f"{name} before": Loop(name, args, os.path.realpath(args.against)) for name in earlier}
    times: dict[str, list[float]] = {name: [] for name in loops}
    for round_number in range(args.rounds + 1):  # the first warms up and doesn't count
        order = deque(loops)
        order.rotate(-round_number)
        for name in order:
            duration = loops[name].ask("update")
            if round_number:
                times[name].append(duration)
                print(f"round {round_number}: {name:<12}{steps / duration:8.1f} steps/s", flush=True)
    peak = loops["sppo"].ask("peak")
    stages = loops["sppo"].ask("stages")
    for loop in loops.values():
        loop.ask("end")
    median = {name: statistics.median(values) for name, values in times.items()}

    def ratio(first: str, second: str) -> float:
        return round(statistics.median(a / b for a, b in zip(times[first], times[second], strict=True)), 3)

    precision = "bf16" if has_fast_bf16(torch.device("cpu")) else "fp32"
    print(f"\n{args.threads} threads, convolutions in {precision}, {steps} steps an update")
    for name, value in median.items():
        low, high = steps / max(times[name]), steps / min(times[name])
        print(f"{name:<12}{steps / value:8.1f} steps/s   (range {low:.1f} to {high:.1f})")
    print("\nstage of SPPO alone, ms a step:", stages)
    bound = stages["env"] + stages["inference"] + stages["convolutions_of_the_update"]
    print(f"bound set by stepping alone {1e3 / stages['env']:.0f}, with convolutions {1e3 / bound:.1f} steps/s")
    print(
        json.dumps(
            {
                "sppo_steps_per_s": round(steps / median["sppo"], 1),
                "ppo_steps_per_s": round(steps / median["ppo"], 1),
                "plain_steps_per_s": round(steps / median["plain"], 1),
                "sppo_over_ppo_time": ratio("sppo", "ppo"),
                "ppo_over_plain": ratio("plain", "ppo"),
                **{f"{name}_over_before": ratio(f"{name} before", name) for name in earlier},
                "peak_rss_gb": round(peak, 2),
                "stages_ms": stages,
            }
        )
    )


if __name__ == "__main__":
    main()
