"""``interp campaign plan | run | status``, ``interp reproduce`` and ``interp doctor``."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import Any

from ..common.errors import InterpError
from .parts import add_command, add_group, say


def add_campaign(commands: Any) -> None:
    """Add ``interp campaign``."""
    example = "interp campaign run --max-minutes 120 --jobs 2"
    actions = add_group(commands, "campaign", "train and release a table of runs, slice by slice", example)
    show, left = _show_campaign, partial(_show_campaign, only_left=True)
    plan = add_command(actions, "plan", "what is left to do, in order", "interp campaign plan", left)
    status = add_command(actions, "status", "how far every run is", "interp campaign status", show)
    work = add_command(actions, "run", "go on with the campaign", example, _run_campaign)
    for sub in (plan, status, work):
        sub.add_argument("--file", type=Path, default=Path("campaign.csv"), help="the table (default: campaign.csv)")
        sub.add_argument("--runs", type=Path, default=Path("runs"), help="resumable runs (default: runs)")
        sub.add_argument("--folder", type=Path, default=Path("checkpoints"), help="default: checkpoints")
    work.add_argument("--max-minutes", type=float, help="stop cleanly after this long (default: when all is done)")
    work.add_argument("--slice-minutes", type=float, default=30.0, help="longest time for one run (default: 30)")
    work.add_argument("--jobs", type=int, default=1, help="runs at the same time (default: 1)")
    work.add_argument("--threads", type=int, default=1, help="CPU threads of each run (default: 1)")
    work.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    work.add_argument("--episodes", type=int, help="evaluated a side for a release")


def _show_campaign(args: argparse.Namespace, *, only_left: bool = False) -> None:
    from ..pipeline.campaign import read_campaign, render_standings, standings

    found = standings(read_campaign(args.file), args.runs, args.folder)
    print(render_standings(found, only_left=only_left))


def _run_campaign(args: argparse.Namespace) -> None:
    from ..pipeline.campaign import Campaign, read_campaign

    named = ("jobs", "slice_minutes", "max_minutes", "threads", "device", "episodes")
    options = {name: getattr(args, name) for name in named}
    failed = Campaign(read_campaign(args.file), args.runs, args.folder, say=say, **options).run()
    if failed:
        raise InterpError("; ".join(f"{name} failed: {line}" for name, line in failed.items()))


def add_reproduce(commands: Any) -> None:
    """Add ``interp reproduce``."""
    example = "interp reproduce --profile quick --source pretrained --only 03 --env ninja"
    help = "run the notebooks and regenerate every figure and video"
    option = add_command(commands, "reproduce", help, example, _run_reproduce).add_argument
    option("--profile", choices=("quick", "paper"), default="quick", help="minutes, or the papers' budgets")
    option("--source", choices=("pretrained", "fresh"), default="pretrained", help="released runs, or train first")
    option("--only", help="notebooks by their numbers, such as 03 or 03,04")
    option("--env", help="environment of the notebooks that take one; all: every one, each in a folder of its name")
    option("--figures", type=Path, default=Path("figures"), help="output folder (default: figures)")
    option("--notebooks", type=Path, default=Path("notebooks"), help="default: notebooks")
    option("--jobs", type=int, metavar="N", help="at the same time (default: the cores, or 100 on a cluster)")
    option("--executor", metavar="NAME", help="a Snakemake executor plugin, such as slurm (default: none)")
    option("--dry-run", action="store_true", help="say what would run and why, and run nothing")
    option("--check", action="store_true", help="make the quick profile again elsewhere and compare every output")
    option("snakemake", nargs="*", metavar="-- OPTION", help="options for Snakemake, after two dashes")


def _run_reproduce(args: argparse.Namespace) -> int:
    from ..pipeline.reproduce import check, reproduce, reproduce_everywhere

    places = {"figures": args.figures, "notebooks": args.notebooks, "jobs": args.jobs}
    if args.check:
        return check(**places)
    work = reproduce_everywhere if args.env == "all" else partial(reproduce, env=args.env)
    chosen = {name: getattr(args, name) for name in ("profile", "source", "only", "executor", "dry_run")}
    return work(**places, **chosen, options=args.snakemake)


def add_doctor(commands: Any) -> None:
    """Add ``interp doctor``."""
    add_command(commands, "doctor", "check Procgen, MuJoCo, Box2D, video, CUDA and disk", "interp doctor", _run_doctor)


def _run_doctor(args: argparse.Namespace) -> int:
    from ..pipeline.doctor import healthy, render_report, run_checks

    checks = run_checks()
    print(render_report(checks))
    return 0 if healthy(checks) else 1
