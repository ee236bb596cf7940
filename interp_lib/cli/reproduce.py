"""``interp reproduce``."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import Any

from .parts import add_command


def add_reproduce(commands: Any) -> None:
    """Add ``interp reproduce``."""
    example = "interp reproduce --profile quick --source pretrained --only 03 --env ninja"
    parser = add_command(
        commands, "reproduce", "run the notebooks and regenerate every figure and video", example, _run_reproduce
    )
    parser.add_argument(
        "--profile", choices=("quick", "paper"), default="quick", help="minutes, or the papers' budgets"
    )
    parser.add_argument(
        "--source", choices=("pretrained", "fresh"), default="pretrained", help="released runs, or train first"
    )
    parser.add_argument("--only", help="notebooks by their numbers, such as 03 or 03,04")
    parser.add_argument(
        "--env", help="environment of the notebooks that take one; all: every one, each in a folder of its name"
    )
    parser.add_argument("--figures", type=Path, default=Path("figures"), help="output folder (default: figures)")
    parser.add_argument("--notebooks", type=Path, default=Path("notebooks"), help="default: notebooks")
    parser.add_argument(
        "--jobs", type=int, metavar="N", help="at the same time (default: the cores, or 100 on a cluster)"
    )
    parser.add_argument("--executor", metavar="NAME", help="a Snakemake executor plugin, such as slurm (default: none)")
    parser.add_argument("--dry-run", action="store_true", help="say what would run and why, and run nothing")
    parser.add_argument(
        "--check", action="store_true", help="make the quick profile again elsewhere and compare every output"
    )
    parser.add_argument("snakemake", nargs="*", metavar="-- OPTION", help="options for Snakemake, after two dashes")


def _run_reproduce(args: argparse.Namespace) -> int:
    from ..pipeline.reproduce import check, reproduce, reproduce_everywhere

    if args.check:
        return check(figures=args.figures, notebooks=args.notebooks, jobs=args.jobs)
    work = reproduce_everywhere if args.env == "all" else partial(reproduce, env=args.env)
    return work(
        profile=args.profile,
        source=args.source,
        only=args.only,
        figures=args.figures,
        notebooks=args.notebooks,
        jobs=args.jobs,
        executor=args.executor,
        dry_run=args.dry_run,
        options=args.snakemake,
    )
