"""Measure what readability costs into checkpoints/readability.csv: baselines, and ProtoSAC with other settings.

A row is kept as soon as it is measured, and made anew only if its agent's weights or the number of episodes have
changed: whatever stops it (Ctrl-C as well), the same command carries on.

    python tools/readability.py baselines --tasks pendulum lunarlander
    python tools/readability.py sweep pendulum --steps 20000 --seed 0 --set n_prototypes=32,64 --set temperature=0.1,0.3
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from interp_lib.common.errors import InterpError
from interp_lib.common.processes import ending_orderly
from interp_lib.common.statistics import readable
from interp_lib.envs.names import continuous_task
from interp_lib.prototypes.readability import BASELINES, KEY, MEASURES
from interp_lib.prototypes.readability_jobs import Job, baseline_jobs, make_rows, sweep_jobs

ROOT = Path(__file__).resolve().parent.parent


def parser() -> argparse.ArgumentParser:
    """The command line."""
    whole = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = whole.add_subparsers(dest="command", required=True)
    baselines = commands.add_parser(
        "baselines", help=f"released agents, and what is made of SAC: {', '.join(BASELINES)}"
    )
    baselines.add_argument("--tasks", nargs="+", default=["pendulum", "lunarlander", "halfcheetah"])
    baselines.add_argument("--seeds", nargs="+", type=int, help="training seeds (default: all released pairs)")
    baselines.add_argument("--prototypes", type=int, metavar="K", help="of those made of SAC (default: as ProtoSAC's)")
    baselines.add_argument("--states", type=int, default=20_000, help="of SAC, to be imitated (default: 20,000)")
    sweep = commands.add_parser("sweep", help="train ProtoSAC with each combination of settings into runs/readability/")
    sweep.add_argument("task")
    sweep.add_argument("--steps", type=int, required=True, help="of each training run")
    sweep.add_argument("--seed", type=int, default=0, help="training seed; 0 to 9 are for tuning (default: 0)")
    sweep.add_argument("--set", action="append", default=[], metavar="NAME=VALUES", help="such as temperature=0.1,0.3")
    sweep.add_argument("--runs-dir", type=Path, default=ROOT / "runs" / "readability")
    for command in (baselines, sweep):
        command.add_argument("--episodes", type=int, default=30, help="measured of each agent (default: 30)")
        command.add_argument(
            "--checkpoints", nargs="+", type=Path, default=[ROOT / "checkpoints"], help="released runs"
        )
        command.add_argument(
            "--out", type=Path, help="the CSV (default: readability.csv in the first of --checkpoints)"
        )
    return whole


def jobs_of(args: argparse.Namespace) -> list[Job]:
    """What a command asks for."""
    if args.command == "baselines":
        return baseline_jobs(
            args.checkpoints, list(map(continuous_task, args.tasks)), episodes=args.episodes, states=args.states,
            seeds=args.seeds, prototypes=args.prototypes,
        )  # fmt: skip
    values = {}
    for text in args.set:
        name, _, given = text.partition("=")
        if not name or not given or name in values:
            raise InterpError(f"--set takes NAME=VALUE,VALUE,… once for each name, not {text!r}.")
        values[name] = given.split(",")
    return sweep_jobs(
        continuous_task(args.task), args.steps, args.seed, values, folders=args.checkpoints, runs_dir=args.runs_dir,
        episodes=args.episodes,
    )  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the rows and print them; 2 for an error the user can mend, 130 after Ctrl-C."""
    args = parser().parse_args(arguments)
    torch.set_num_threads(1)  # networks this small gain nothing from more
    out = args.out or args.checkpoints[0] / "readability.csv"
    with ending_orderly(last=arguments is None) as ending:
        try:
            jobs = jobs_of(args)
            rows = make_rows(out, jobs)
        except InterpError as error:
            print(f"readability: {error}", file=sys.stderr)
            return 2
        except KeyboardInterrupt as interrupt:
            what = interrupt.args[0] if interrupt.args else "interrupted; what was measured is kept."
            print(f"readability: {what}", file=sys.stderr)
            return ending.status
    own = rows.merge(rows.__class__([{name: getattr(job, name) for name in KEY} for job in jobs]), on=list(KEY))
    print(
        readable(own[[*KEY, "K", *(n for m in MEASURES for n in (m, f"{m} low", f"{m} high"))]]).to_string(index=False)
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
