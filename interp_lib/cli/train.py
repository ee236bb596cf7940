"""``interp train``."""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import json
from pathlib import Path
from typing import Any

from ..common.errors import InterpError
from .parts import Parser, add_command, first_process, seed

# Where it acts, an example, which environments, how long where nothing is said, and whose hyper-parameters.
_PROCGEN = (
    "Procgen game",
    "ninja --timesteps 1000000",
    "a Procgen game, such as ninja",
    "the paper's 25,000,000",
    "the paper's",
)
_CONTINUOUS = (
    "continuous task",
    "hopper --timesteps 300000 --seed 0",
    "a continuous task, such as pendulum, or the original's number 0..6",
    "what the task's settings are for, such as 20,000 for pendulum",
    "the task's",
)
_OPTIONS: dict[str, dict[str, Any]] = {
    "device": {"default": "auto", "help": "auto, cpu, cuda or cuda:N (default: auto)"},
    "save_seconds": {
        "type": float,
        "default": 30.0,
        "help": "least time between two checkpoints; 0 saves after every update (default: 30)",
    },
    "keep_every": {
        "type": int,
        "metavar": "N",
        "help": "also keep the weights after every N steps, in RUN/steps/ (default: only the last)",
    },
    "compile": {
        "choices": ("auto", "yes", "no"),
        "default": "auto",
        "help": "compile updates, and capture them on a GPU; auto: where that is known to pay (default: auto)",
    },
    "env_threads": {
        "type": int,
        "metavar": "N",
        "help": "threads that step environments (default: none on a CPU; beside a GPU half of the cores, at most 8)",
    },
    "eval_every": {
        "type": int,
        "metavar": "N",
        "help": "evaluate with mean actions every N steps (evaluations.csv)",
    },
    "eval_episodes": {"type": int, "default": 5, "metavar": "N", "help": "an evaluation (default: 5)"},
    "video_every": {"type": int, "metavar": "N", "help": "film an episode every N steps (videos/*.mp4)"},
}

_COMPILE: dict[str, Any] = {"auto": "auto", "yes": True, "no": False}


def add_train(commands: Any) -> None:
    """Add ``interp train``."""
    example = "interp train sppo ninja --timesteps 1000000 --seed 0"
    parser = add_command(commands, "train", "train an agent and leave a run folder", example, None)
    algorithms = parser.add_subparsers(dest="algorithm", required=True, metavar="ALGORITHM", parser_class=Parser)
    from ..agents.registry import ALGORITHMS

    for record in ALGORITHMS.values():
        where, example, env, budget, whose = _PROCGEN if record.procgen else _CONTINUOUS
        what, example = f"train {record.title} on a {where}", f"interp train {record.name} {example}"
        sub = add_command(algorithms, record.name, what, example, _run_train)
        _train_options(sub, env, budget=budget, default_seed=record.seed)
        if not record.procgen:
            help = "a hyper-parameter, such as batch_size=128"
            sub.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help=help)
        for name in record.options:
            sub.add_argument("--" + name.replace("_", "-"), **_OPTIONS[name])
        _settings_options(sub, record.settings_class, whose, defaults=record.procgen)


def _settings_options(parser: argparse.ArgumentParser, settings: type[Any], whose: str, *, defaults: bool) -> None:
    """A flag for every field of a dataclass of settings; ``defaults``: say what each is where nothing is given."""
    group = parser.add_argument_group(f"hyper-parameters (default: {whose})")
    for field in dataclasses.fields(settings):
        if field.name not in ("env", "seed", "timesteps"):
            kind: type = {"int": int, "float": float}.get(str(field.type), str)
            taking: dict[str, Any] = {"type": kind, "metavar": kind.__name__.upper()}
            group.add_argument(
                "--" + field.name.replace("_", "-"),
                dest=f"option_{field.name}",
                **({"action": argparse.BooleanOptionalAction} if str(field.type) == "bool" else taking),
                help=field.metadata.get("help", "") + (f" (default: {field.default})" if defaults else ""),
            )


def _train_options(parser: argparse.ArgumentParser, env_help: str, *, budget: str, default_seed: int) -> None:
    parser.add_argument("env", nargs="?", help=env_help)
    parser.add_argument(
        "--environment", dest="env_option", metavar="ENV", help="the same, as the original project spells it"
    )
    parser.add_argument("--timesteps", type=int, help=f"steps in all (default: {budget})")
    parser.add_argument("--seed", type=seed, help=f"default: {default_seed}")
    parser.set_defaults(default_seed=default_seed)
    parser.add_argument("--run-dir", type=Path, help="default: runs/<algorithm>-<env>-s<seed>")
    parser.add_argument("--resume", action="store_true", help="continue the run that is there")
    parser.add_argument("--max-minutes", type=float, help="stop cleanly after this long; --resume continues")
    parser.add_argument("--threads", type=int, help="CPU threads for PyTorch (default: all cores)")
    parser.add_argument("--tensorboard", action="store_true", help="also write the curve to RUN/tensorboard")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def _run_train(args: argparse.Namespace) -> int:
    from ..agents.registry import ALGORITHMS

    name = args.env or args.env_option
    if name is None:
        raise InterpError(f"which environment? For example: interp train {args.algorithm} pendulum")
    record = ALGORITHMS[args.algorithm]
    env = record.full_name(name)
    options = dict(_assignment(text) for text in getattr(args, "set", ()))
    options |= {
        k.removeprefix("option_"): v for k, v in vars(args).items() if k.startswith("option_") and v is not None
    }
    if args.threads:
        import torch

        torch.set_num_threads(args.threads)
    from ..runs.training import train

    seed = args.default_seed if args.seed is None else args.seed
    if args.resume and args.run_dir is not None and args.run_dir.name != f"{args.algorithm}-{env}-s{seed}":
        _not_mistyped(args.run_dir)
    run_dir = train(
        args.algorithm,
        env,
        timesteps=args.timesteps,
        seed=args.seed if args.resume else seed,  # a run that goes on has its own
        run_dir=args.run_dir or Path("runs") / f"{args.algorithm}-{env}-s{seed}",
        options=options,
        resume=args.resume,
        max_minutes=args.max_minutes,
        **{name: getattr(args, name) for name in record.options} | {"compile": _COMPILE[args.compile]},
        tensorboard=args.tensorboard,
        progress=not args.quiet,
    )
    if first_process():
        print(f"saved {run_dir}")
    return 0


def _not_mistyped(run_dir: Path) -> None:
    """Refuse to start anew in a folder that isn't there where it seems that another one was meant to go on.

    Otherwise `--resume` goes on with what is there, and starts where nothing is: scripts say it every time.
    """
    if run_dir.exists():
        return
    there = [path.name for path in run_dir.parent.glob("*/") if (path / "config.json").exists()]
    near = difflib.get_close_matches(run_dir.name, there, n=1, cutoff=0.8)
    if near or not run_dir.parent.is_dir():
        meant = f"Did you mean {run_dir.parent / near[0]}?" if near else f"There is no folder {run_dir.parent} either."
        raise InterpError(f"no run folder {run_dir} to resume. {meant} To start a run, leave out --resume.")


def _assignment(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        raise InterpError(f"--set takes NAME=VALUE, not '{text}'.")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value
