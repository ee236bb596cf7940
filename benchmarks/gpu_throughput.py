"""What a GPU makes of training: each part eager and prepared (captured, compiled), beside what was counted it allows.

    python benchmarks/gpu_throughput.py [--device cuda] [--runs 1 2 4 8] [--minutes 3] [--tiny]

Environments alone; collecting, in 1, 2 and 4 groups of environments; learning; one run and several at once, by MPS
where it is there; updates of SAC and ProtoSAC. Bounds are counted from this machine: arithmetic and memory traffic of
the network (each activation written once and read once, if all else is fused) at the rates that a matrix product and a
copy reach here, stepping at the speed of the environments alone, and operations times what launching one takes.

Run it when nothing else runs. What no time is left for is skipped, and says so. ``--tiny`` measures nothing worth
knowing, in seconds, on a CPU. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from interp_lib import SAC, SPPO, ProtoSAC
from interp_lib.agents.protosac.settings import prototype_settings, task_settings
from interp_lib.common.acceleration import Checked
from interp_lib.envs.continuous import make_task_vec
from interp_lib.envs.procgen import OBSERVATION_SHAPE, ProcgenVec
from interp_lib.pipeline.sharing import shared_gpu

WAYS = {"eager": False, "prepared": "auto"}
EVER = 10**9  # steps: enough that all preparing pays
TASK = "halfcheetah"
FULL = {"steps": {}, "copied": 2**29, "matrix": 8192, "env_steps": 300, "updates": 200, "fill": 1000}
TINY = {
    "steps": {"num_envs": 8, "num_steps": 8, "num_minibatches": 2, "num_epochs": 1},
    **{"copied": 2**20, "matrix": 128, "env_steps": 3, "updates": 2, "fill": 260},
}


class Bench:
    """The settings, the clock, and the table as it grows."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.device = torch.device(args.device)
        self.size: dict[str, Any] = TINY if args.tiny else FULL
        self.game, self.runs, self.cores = args.game, args.runs, os.cpu_count() or 1
        self.report: dict[str, Any] = {"device": str(self.device), "cores": self.cores, "tiny": args.tiny}
        self._end = time.monotonic() + 60 * args.minutes

    def has(self, seconds: float, what: str) -> bool:
        """Whether there is time for a part that takes so long; says so if not."""
        enough = self._end - time.monotonic() >= seconds or self.report["tiny"]
        if not enough:
            print(f"{what}: skipped, no time is left", flush=True)
        return enough

    def row(self, key: str, value: float, unit: str, bound: float | None = None) -> None:
        """Print a line and keep its numbers."""
        self.report[key] = round(value, 2)
        line = f"{key.replace('_', ' '):<44}{value:>14,.1f} {unit:<11}"
        if bound is not None:
            self.report[f"{key}_bound"] = round(bound, 2)
            line += f"bound {bound:>12,.1f}  {value / bound:>6.1%}"
        print(line, flush=True)

    def seconds(self, call: Callable[[], Any], repeat: int = 3) -> float:
        """Median duration of ``call``, the device's part included; once before to warm up."""
        times = []
        for i in range(repeat + 1):
            self.wait()
            start = time.perf_counter()
            call()
            self.wait()
            times += [time.perf_counter() - start] if i else []
        return statistics.median(times)

    def wait(self) -> None:
        """Until the device has done all it was told."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def make_trainer(game: str, device: str, size: dict[str, Any]) -> Any:
    """An SPPO trainer in the middle of training, in training's precision."""
    agent = SPPO(game, device=device, **size["steps"])
    agent._set_training_precision(on=True)
    trainer = agent._make_trainer()
    trainer.skill_weight = 0.5
    return trainer


def measure_machine(bench: Bench) -> dict[str, float]:
    """Steps/s of the environments, bytes/s of a copy, FLOP/s of a product in bf16 and launches/s."""
    size, device = bench.size, bench.device
    env = ProcgenVec(bench.game, 64 * bench.cores, num_threads=bench.cores)
    actions = np.zeros(env.num_envs, np.int32)
    stepping = bench.seconds(lambda: [env.step(actions) for _ in range(size["env_steps"])], 1)
    env.close()
    x, y = torch.empty(2, size["copied"], dtype=torch.uint8, device=device)
    product = torch.randn(size["matrix"], size["matrix"], device=device, dtype=torch.bfloat16)
    small = torch.zeros(1, device=device)
    rates = {
        "environments": size["env_steps"] * env.num_envs / stepping,
        "bytes": 2 * size["copied"] / bench.seconds(lambda: x.copy_(y)),
        "flop": 2 * size["matrix"] ** 3 / bench.seconds(lambda: product @ product),
        "launches": 1000 / bench.seconds(lambda: [small.add_(1) for _ in range(1000)]),
    }
    bench.row("environments_alone", rates["environments"], "steps/s")
    bench.row("memory_GB", rates["bytes"] / 1e9, "GB/s")
    bench.row("products_TFLOP", rates["flop"] / 1e12, "TFLOP/s")
    bench.row("launches_thousand", rates["launches"] / 1e3, "k/s")
    return rates


def counted_bounds(network: torch.nn.Module, epochs: int, rates: dict[str, float]) -> dict[str, float]:
    """Seconds a step that a network pass and learning take at least, by arithmetic or memory, whichever is slower."""
    moved: list[int] = []
    layers = [m for m in network.modules() if isinstance(m, torch.nn.Conv2d | torch.nn.Linear)]
    hooks = [m.register_forward_hook(lambda m, x, y: moved.append(2 * (x[0].numel() + y.numel()))) for m in layers]
    device = next(network.parameters()).device
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.zeros((1, *OBSERVATION_SHAPE), dtype=torch.uint8, device=device))
    for hook in hooks:
        hook.remove()
    forward = max(counter.get_total_flops() / rates["flop"], sum(moved) / rates["bytes"])
    return {"acting": forward, "learning": 3 * epochs * forward}  # backward: by inputs and by weights


def measure_parts(bench: Bench, rates: dict[str, float]) -> dict[str, float]:
    """Collecting and learning of one run → their bounds in steps/s."""
    trainer = make_trainer(bench.game, str(bench.device), bench.size)
    steps, least = trainer.config.steps_per_update, counted_bounds(trainer.network, trainer.config.num_epochs, rates)
    collecting, learning = 1 / rates["environments"] + least["acting"], least["learning"]
    batch = trainer._collect()[0]
    for way, compile in WAYS.items():
        if compile and not bench.has(75, "prepared collecting and learning of one run"):
            continue
        started = time.perf_counter()
        trainer.accelerate(compile, EVER)
        for groups in (1, 2, 4):
            trainer.regroup(groups, bench.cores if bench.device.type == "cuda" else 0)
            duration = bench.seconds(trainer._collect, 1)
            bench.row(f"collecting_{way}_{groups}_groups", steps / duration, "steps/s", 1 / collecting)
        bench.row(f"learning_{way}", steps / bench.seconds(lambda: trainer._learn(batch), 2), "steps/s", 1 / learning)
        bench.report[f"acting_{way}_is_fast"] = all(_is_fast(acting) for acting in trainer._acting.values())
        bench.report[f"learning_{way}_is_fast"] = _is_fast(trainer.updater.gradients)
        bench.report[f"{way}_took_s"] = round(time.perf_counter() - started, 1)
    trainer.env.close()
    return {"one": 1 / (collecting + learning), "device": 1 / (least["acting"] + learning)}


def _is_fast(function: Any) -> bool:
    return isinstance(function, Checked) and function.fast


def serve(pipe: Any, game: str, device: str, size: dict[str, Any]) -> None:
    """What the process of a run does: prepare, take threads, update, until the end."""
    torch.set_num_threads(1)
    trainer = make_trainer(game, device, size)
    pipe.send(None)
    while (asked := pipe.recv()) is not None:
        what, value = asked
        start = time.perf_counter()
        if what == "prepare":
            trainer.accelerate(value, EVER)
            trainer.update()
        elif what == "threads":
            trainer.regroup(None, value)
            trainer.update()
        else:
            for _ in range(value):
                trainer.update()
        pipe.send(time.perf_counter() - start)


def measure_runs(bench: Bench, bounds: dict[str, float], rates: dict[str, float]) -> None:
    """Steps/s in all of several runs at once, each a process; those that aren't asked wait."""
    if not bench.has(45, "runs at once"):
        return
    context, most = multiprocessing.get_context("spawn"), max(bench.runs)
    pipes, processes = [], []
    for _ in range(most):
        pipe, other = context.Pipe()
        process = context.Process(target=serve, args=(other, bench.game, str(bench.device), bench.size), daemon=True)
        process.start()
        pipes.append(pipe)
        processes.append(process)
    for pipe in pipes:
        pipe.recv()

    def ask(count: int, *what: Any) -> float:
        for pipe in pipes[:count]:
            pipe.send(what)
        return max(pipe.recv() for pipe in pipes[:count])

    updates = 1 if bench.report["tiny"] else 2
    steps = updates * SPPO(bench.game, device="cpu", **bench.size["steps"]).config.steps_per_update
    for way, compile in WAYS.items():
        if compile and not bench.has(40, f"{way} runs at once"):
            break
        ask(most, "prepare", compile)
        for count in bench.runs if compile else sorted({bench.runs[0], most}):
            if bench.has(12, f"{count} {way} runs at once"):
                ask(count, "threads", max(bench.cores // count, 1) if bench.device.type == "cuda" else 0)
                bound = min(count * bounds["one"], bounds["device"], rates["environments"])
                bench.row(f"runs_{count}_{way}", count * steps / ask(count, "update", updates), "steps/s", bound)
    for pipe, process in zip(pipes, processes, strict=True):
        pipe.send(None)
        process.join()


class Operations(TorchDispatchMode):
    """Counts operations on tensors, views left out: about what is launched."""

    count = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += not function.is_view
        return function(*args, **kwargs or {})


def measure_sac(bench: Bench, rates: dict[str, float]) -> None:
    """Updates/s of SAC and ProtoSAC; the bound of an eager one is what launching its operations takes."""
    settings = task_settings(TASK)
    own = prototype_settings(settings) | {"projection_interval": 0, "final_projection": False}
    for cls in (SAC, ProtoSAC):
        for way, compile in WAYS.items():
            if not bench.has(5, f"{cls.algorithm} {way}"):
                continue
            agent = cls(
                "MlpPolicy", make_task_vec(TASK, seed=0), device=str(bench.device), compile=compile, seed=0,
                learning_starts=bench.size["fill"], buffer_size=10_000, batch_size=settings.batch_size,
                policy_kwargs={"net_arch": list(settings.net_arch)}, **(own if cls is ProtoSAC else {}),
            )  # fmt: skip
            agent.learn(bench.size["fill"] + 1, log_interval=None)
            rate = bench.size["updates"] / bench.seconds(
                lambda a=agent: a.train(bench.size["updates"], settings.batch_size)
            )
            operations = Operations()
            if way == "eager":
                with operations:
                    agent.train(1, settings.batch_size)
                bench.report[f"{cls.algorithm}_operations"] = operations.count
            bound = rates["launches"] / operations.count if operations.count else None
            bench.row(f"{cls.algorithm}_updates_{way}", rate, "updates/s", bound)
            bench.report[f"{cls.algorithm}_{way}_is_fast"] = all(_is_fast(each) for each in agent._gradients or [None])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", help="cuda, cuda:N or cpu (default: cuda)")
    parser.add_argument("--game", default="fruitbot")
    parser.add_argument("--runs", type=int, nargs="+", default=[1, 2, 4, 8], help="at once (default: 1 2 4 8)")
    parser.add_argument("--minutes", type=float, default=3.0, help="what needs longer is skipped (default: 3)")
    parser.add_argument("--tiny", action="store_true", help="tiny sizes, to see that it runs")
    args = parser.parse_args()
    with shared_gpu(args.device, max(args.runs)) as environment:
        os.environ.update(environment)
        bench = Bench(args)
        if bench.device.type == "cuda":
            bench.report["gpu"] = torch.cuda.get_device_name(bench.device)
        print(f"{bench.report.get('gpu', 'CPU')}, {bench.cores} cores, PyTorch {torch.__version__}\n")
        rates = measure_machine(bench)
        measure_sac(bench, rates)
        bounds = measure_parts(bench, rates)
        measure_runs(bench, bounds, rates)
    print(json.dumps(bench.report))


if __name__ == "__main__":
    main()
