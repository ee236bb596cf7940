"""``interp campaign plan | run | status``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..common.errors import InterpError
from .parts import Parser, add_command


def add_campaign(commands: Any) -> None:
    """Add ``interp campaign``."""
    parser = add_command(
        commands,
        "campaign",
        "train and release a table of runs, slice by slice",
        "interp campaign run --max-minutes 120 --jobs 2",
        None,
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION", parser_class=Parser)
    plan = add_command(
        actions, "plan", "what is left to do, in order", "interp campaign plan", lambda args: _show_campaign(args, True)
    )
    status = add_command(
        actions, "status", "how far every run is", "interp campaign status", lambda args: _show_campaign(args, False)
    )
    work = add_command(
        actions, "run", "go on with the campaign", "interp campaign run --max-minutes 120 --jobs 2", _run_campaign
    )
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


def _show_campaign(args: argparse.Namespace, only_left: bool) -> int:
    from ..pipeline.campaign import read_campaign, render_standings, standings

    found = standings(read_campaign(args.file), args.runs, args.folder)
    print(render_standings(found, only_left=only_left))
    return 0


def _run_campaign(args: argparse.Namespace) -> int:
    from ..pipeline.campaign import Campaign, read_campaign

    failed = Campaign(
        read_campaign(args.file),
        args.runs,
        args.folder,
        jobs=args.jobs,
        slice_minutes=args.slice_minutes,
        max_minutes=args.max_minutes,
        threads=args.threads,
        device=args.device,
        episodes=args.episodes,
        say=lambda line: print(line, flush=True),
    ).run()
    if failed:
        raise InterpError("; ".join(f"{name} failed: {line}" for name, line in failed.items()))
    return 0
