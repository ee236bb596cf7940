"""Gradient steps per second of this ProtoSAC and of Stable-Baselines3's SAC, alternating in one run on the same task.

Both have the settings of interp_lib's table for the task (hidden layers of 256 and 256, batches of 256), the same
threads and a replay buffer filled alike. Short blocks alternate, so that other load on the machine meets both; the
ratio is the median of those of neighbouring blocks. ``training`` counts environment steps of ``learn``: one step, one
prediction and one gradient step each.

    python benchmarks/protosac_throughput.py [--tasks halfcheetah pendulum] [--rounds 40] [--block 10] [--threads 1]

One thread by default: networks this small gain little from more, and threads that wait for a busy core measure the
waiting.

The last line is JSON; ``protosac_over_sb3_sac`` is the smallest ratio of gradient steps/s.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable

import torch
from stable_baselines3 import SAC as SB3SAC

from interp_lib.agents.protosac import ProtoSAC, task_settings
from interp_lib.agents.protosac.settings import prototype_settings
from interp_lib.common.compute import has_cpp_compiler, prefers_onednn
from interp_lib.envs.continuous import make_task_vec
from interp_lib.envs.names import continuous_task

_FILL = 2_000  # random steps in the replay buffer before anything is measured


def make_agents(task: str, compile: bool) -> dict[str, SB3SAC]:
    """The two agents, their replay buffers filled by random actions."""
    settings = task_settings(task)
    shared = dict(
        learning_rate=settings.learning_rate,
        buffer_size=20_000,
        learning_starts=_FILL,
        batch_size=settings.batch_size,
        gamma=settings.gamma,
        tau=settings.tau,
        ent_coef=settings.ent_coef,
        policy_kwargs={"net_arch": list(settings.net_arch)},
        seed=0,
        device="cpu",
    )
    # A projection takes tens of milliseconds every few thousand steps: too rare for blocks this short.
    prototypes = prototype_settings(settings) | {
        "projection_interval": 0,
        "final_projection": False,
        "compile": compile,
    }
    agents = {
        "protosac": ProtoSAC("MlpPolicy", make_task_vec(task, seed=0), **prototypes, **shared),
        "sb3_sac": SB3SAC("MlpPolicy", make_task_vec(task, seed=0), **shared),
    }
    for agent in agents.values():
        agent.learn(_FILL, log_interval=None)
    return agents


def learn_from_replay(agent: SB3SAC, count: int) -> None:
    """``count`` calls of ``train``, as ``learn`` makes them."""
    for _ in range(count):
        agent.train(gradient_steps=1, batch_size=agent.batch_size)


def learn_online(agent: SB3SAC, count: int) -> None:
    """``count`` environment steps with a gradient step each."""
    agent.learn(count, log_interval=None, reset_num_timesteps=False)


def measure(
    agents: dict[str, SB3SAC], work: Callable[[SB3SAC, int], None], rounds: int, block: int
) -> tuple[dict[str, float], float, tuple[float, float]]:
    """Median steps/s of each agent, the median ratio of neighbouring blocks, and its quartiles."""
    times: dict[str, list[float]] = {name: [] for name in agents}
    for agent in agents.values():
        work(agent, block)  # warms up (and compiles) and doesn't count
    for round_number in range(rounds):
        # Whoever goes second finds the other's data in the caches, so take turns.
        for name in list(agents)[:: 1 if round_number % 2 else -1]:
            start = time.perf_counter()
            work(agents[name], block)
            times[name].append(time.perf_counter() - start)
    ratios = [sb3 / ours for ours, sb3 in zip(times["protosac"], times["sb3_sac"], strict=True)]
    low, ratio, high = statistics.quantiles(ratios, n=4)
    return {name: block / statistics.median(values) for name, values in times.items()}, ratio, (low, high)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", type=continuous_task, default=["halfcheetah", "pendulum"])
    parser.add_argument("--rounds", type=int, default=40, help="blocks of each agent (default: 40)")
    parser.add_argument("--block", type=int, default=10, help="steps a block (default: 10)")
    parser.add_argument("--threads", type=int, default=1, help="of PyTorch, for both (default: 1)")
    parser.add_argument(
        "--compile", choices=["auto", "yes", "no"], default="auto",
        help="ProtoSAC's update; auto: as in a run of 100,000 steps or more",
    )  # fmt: skip
    args = parser.parse_args()
    torch.set_num_threads(args.threads)

    report: dict[str, float] = {}
    compiling = args.compile == "yes" or (args.compile == "auto" and has_cpp_compiler() and not prefers_onednn())
    product = "oneDNN" if prefers_onednn() else "PyTorch's default"
    print(f"{args.threads} threads, hidden-layer products by {product}, {args.rounds} blocks of {args.block} steps, "
          f"ProtoSAC {'compiled' if compiling else 'not compiled'}\n")  # fmt: skip
    print(f"{'task':<14}{'what':<16}{'ProtoSAC':>10}{'SB3 SAC':>10}{'ratio':>8}   quartiles")
    for task in args.tasks:
        agents = make_agents(task, compiling)
        for what, work in (("gradient steps", learn_from_replay), ("training", learn_online)):
            rates, ratio, (low, high) = measure(agents, work, args.rounds, args.block)
            key = f"{task}_{what.replace(' ', '_')}"
            report |= {f"{key}_{name}_per_s": round(rate, 1) for name, rate in rates.items()}
            report[f"{key}_ratio"] = round(ratio, 3)
            line = f"{task:<14}{what:<16}{rates['protosac']:>8.1f}/s{rates['sb3_sac']:>8.1f}/s{ratio:>8.3f}"
            print(f"{line}   {low:.3f} to {high:.3f}", flush=True)
    smallest = min(report[f"{task}_gradient_steps_ratio"] for task in args.tasks)
    print(json.dumps({"protosac_over_sb3_sac": smallest, "threads": args.threads, "compiled": compiling, **report}))


if __name__ == "__main__":
    main()
