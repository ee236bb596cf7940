"""``interp checkpoints list | verify | release | import | push | pull``."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from ..common.errors import InterpError, printable
from ..envs.names import procgen_game
from .parts import Parser, add_command, seed


def add_checkpoints(commands: Any) -> None:
    """Add ``interp checkpoints``."""
    parser = add_command(
        commands,
        "checkpoints",
        "list, verify, release, import, push and pull runs",
        "interp checkpoints list",
        None,
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION", parser_class=Parser)
    show = add_command(
        actions, "list", "released runs with what was measured", "interp checkpoints list --json", _run_list
    )
    show.add_argument("--json", action="store_true", help="print JSON")
    check = add_command(
        actions, "verify", "compare released runs with their checksums", "interp checkpoints verify", _run_verify
    )
    release = add_command(
        actions,
        "release",
        "evaluate a run and copy it to the released ones",
        "interp checkpoints release runs/sppo-ninja-s2021",
        _run_release,
    )
    release.add_argument("run_dir", metavar="RUN", help="a run folder")
    release.add_argument("--episodes", type=int, help="a side (default: 500 for Procgen, 50 for continuous tasks)")
    convert = add_command(
        actions,
        "import",
        "turn a checkpoint released by the authors into a run folder; it is read as data, never executed",
        "interp checkpoints import checkpoint.joblib runs/sppo-ninja-imported --env ninja",
        _run_import,
    )
    convert.add_argument("file", metavar="FILE", help="joblib file: variable name → array")
    convert.add_argument("out", metavar="OUT", type=Path, help="run folder to write")
    convert.add_argument("--env", required=True, help="Procgen game it was trained on, which the file does not say")
    convert.add_argument("--seed", type=seed, help="training seed, where known")
    convert.add_argument("--timesteps", type=int, help="steps trained, where known")
    upload = add_command(
        actions,
        "push",
        "bring released runs to a model repository of the Hugging Face Hub, or to a shared folder",
        "interp checkpoints push USER/NAME sppo-ninja-s2021",
        _run_push,
    )
    upload.add_argument(
        "--private", action="store_true", help="make the repository a private one; push to none that is not"
    )
    download = add_command(
        actions,
        "pull",
        "bring released runs from a model repository of the Hugging Face Hub, or from a shared folder",
        "interp checkpoints pull USER/NAME sppo-ninja-s2021",
        _run_pull,
    )
    for sub in (upload, download):
        sub.add_argument("repo", metavar="REPO", help="USER/NAME, or a folder that exists")
        sub.add_argument("names", metavar="RUN", nargs="*", help="runs by name (default: all)")
        sub.add_argument("--revision", metavar="R", help="branch; to pull, also a tag or commit (default: main)")
        sub.add_argument("--replace", action="store_true", help="also where a different run of the same name is")
    for sub in (show, check, release, upload, download):
        sub.add_argument("--folder", type=Path, default=Path("checkpoints"), help="default: checkpoints")


def _run_list(args: argparse.Namespace) -> int:
    from ..pipeline.release import list_runs, render_list

    rows = list_runs(args.folder)
    print(json.dumps(rows, indent=2) if args.json else render_list(rows))
    return 1 if any("damaged" in row for row in rows) else 0


def _run_verify(args: argparse.Namespace) -> int:
    from ..runs.checks import verify_run
    from ..runs.folder import survey_runs

    runs, damaged = survey_runs(args.folder)
    if not runs and not damaged:
        raise InterpError(f"no runs in {args.folder}.")
    problems = [*damaged.values(), *(problem for run in runs for problem in verify_run(run))]
    for problem in problems:
        print(printable(problem))
    print(f"{len(runs) + len(damaged)} runs, {len(problems)} problems")
    return 1 if problems else 0


def _run_release(args: argparse.Namespace) -> int:
    from ..pipeline.release import evaluate_and_release

    print((evaluate_and_release(args.run_dir, args.folder, args.episodes).path / "card.md").read_text(encoding="utf-8"))
    return 0


def _run_import(args: argparse.Namespace) -> int:
    from ..runs.importing import import_checkpoint

    env = procgen_game(args.env)
    print(import_checkpoint(args.file, args.out, env=env, seed=args.seed, timesteps=args.timesteps))
    return 0


def _run_push(args: argparse.Namespace) -> int:
    from ..runs.hub import push

    return 1 if push(args.repo, args.names, args.folder, private=args.private, **_transfer(args)) else 0


def _run_pull(args: argparse.Namespace) -> int:
    from ..runs.hub import pull

    return 1 if pull(args.repo, args.names, args.folder, **_transfer(args)) else 0


def _transfer(args: argparse.Namespace) -> dict[str, Any]:
    """What push and pull have in common."""
    return dict(revision=args.revision, replace=args.replace, say=lambda line: print(line, flush=True))
