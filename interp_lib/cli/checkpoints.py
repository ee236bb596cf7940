"""``interp checkpoints list | verify | release | import | push | pull``."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from ..common.errors import InterpError, printable
from ..envs.names import procgen_game
from .parts import EPISODES, add_command, add_group, say, seed


def add_checkpoints(commands: Any) -> None:
    """Add ``interp checkpoints``."""
    help = "list, verify, release, import, push and pull runs"
    actions = add_group(commands, "checkpoints", help, "interp checkpoints list")

    def add(name: str, help: str, example: str, run: Any) -> argparse.ArgumentParser:
        return add_command(actions, name, help, f"interp checkpoints {name}{example}", run)

    show = add("list", "released runs with what was measured", " --json", _run_list)
    show.add_argument("--json", action="store_true", help="print JSON")
    check = add("verify", "compare released runs with their checksums", "", _run_verify)
    example = " runs/sppo-ninja-s2021"
    release = add("release", "evaluate a run and copy it to the released ones", example, _run_release)
    release.add_argument("run_dir", metavar="RUN", help="a run folder")
    release.add_argument("--episodes", type=int, help=EPISODES)
    help = "turn a checkpoint released by the authors into a run folder; it is read as data, never executed"
    convert = add("import", help, " checkpoint.joblib runs/sppo-ninja-imported --env ninja", _run_import)
    convert.add_argument("file", metavar="FILE", help="joblib file: variable name → array")
    convert.add_argument("out", metavar="OUT", type=Path, help="run folder to write")
    convert.add_argument("--env", required=True, help="Procgen game it was trained on, which the file does not say")
    convert.add_argument("--seed", type=seed, help="training seed, where known")
    convert.add_argument("--timesteps", type=int, help="steps trained, where known")
    help = "bring released runs {} a model repository of the Hugging Face Hub, or {} a shared folder"
    example = " USER/NAME sppo-ninja-s2021"
    upload = add("push", help.format("to", "to"), example, _run_push)
    private = "make the repository a private one; push to none that is not"
    upload.add_argument("--private", action="store_true", help=private)
    download = add("pull", help.format("from", "from"), example, _run_pull)
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


def _run_release(args: argparse.Namespace) -> None:
    from ..pipeline.release import evaluate_and_release

    print((evaluate_and_release(args.run_dir, args.folder, args.episodes).path / "card.md").read_text(encoding="utf-8"))


def _run_import(args: argparse.Namespace) -> None:
    from ..runs.importing import import_checkpoint

    env = procgen_game(args.env)
    print(import_checkpoint(args.file, args.out, env=env, seed=args.seed, timesteps=args.timesteps))


def _run_push(args: argparse.Namespace) -> int:
    from ..runs.hub import push

    how = {"private": args.private, "revision": args.revision, "replace": args.replace}
    return 1 if push(args.repo, args.names, args.folder, **how, say=say) else 0


def _run_pull(args: argparse.Namespace) -> int:
    from ..runs.hub import pull

    how = {"revision": args.revision, "replace": args.replace}
    return 1 if pull(args.repo, args.names, args.folder, **how, say=say) else 0
