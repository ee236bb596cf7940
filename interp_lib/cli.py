"""The ``interp`` command: parses, calls one function of the library, prints. Heavy imports wait until needed."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from . import __version__
from .envs.names import continuous_task, procgen_game
from .errors import InterpError

EXIT_ERROR = 2
EXIT_INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status: 0, 2 for an error the user can mend, 130 after Ctrl-C."""
    args = build_parser().parse_args(arguments)
    try:
        return args.run(args) or 0
    except InterpError as error:
        if _first_process():
            print(f"interp: {error}", file=sys.stderr)
        return EXIT_ERROR
    except KeyboardInterrupt as interrupt:
        print(f"interp: {interrupt.args[0] if interrupt.args else 'interrupted.'}", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:  # the reader of our output, such as `head`, has seen enough
        sys.stderr.close()
        return 0


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line and status 2, as for every other error."""
        print(f"interp: {message}. See: {self.prog} --help", file=sys.stderr)
        raise SystemExit(EXIT_ERROR)


def build_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    parser = _Parser(prog="interp", description="What does a deep RL agent see? Train, evaluate, explain, reproduce.")
    parser.add_argument("--version", action="version", version=f"interp {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=_Parser)
    for add in (_train, _evaluate, _embed, _videos, _browse, _prototypes, _campaign, _reproduce, _checkpoints, _doctor):
        add(commands)
    return parser


def _command(commands: Any, name: str, help: str, example: str, run: Any) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        name,
        help=help,
        description=help[0].upper() + help[1:] + ".",
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    return parser


# -- train --------------------------------------------------------------------------------------------------------


def _train(commands: Any) -> None:
    example = "interp train sppo ninja --timesteps 1000000 --seed 0"
    parser = _command(commands, "train", "train an agent and leave a run folder", example, None)
    algorithms = parser.add_subparsers(dest="algorithm", required=True, metavar="ALGORITHM", parser_class=_Parser)
    from .semantic.config import PPOConfig, SPPOConfig

    for name, config in (("ppo", PPOConfig), ("sppo", SPPOConfig)):
        sub = _command(
            algorithms,
            name,
            f"train {name.upper()} on a Procgen game",
            f"interp train {name} ninja --timesteps 1000000",
            _run_train,
        )
        _train_options(sub, "a Procgen game, such as ninja", timesteps=25_000_000, seed=2021)
        sub.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
        sub.add_argument(
            "--save-seconds",
            type=float,
            default=30.0,
            help="least time between two checkpoints; 0 saves after every update (default: 30)",
        )
        group = sub.add_argument_group("hyper-parameters (default: the paper's)")
        for field in dataclasses.fields(config):
            if field.name not in ("env", "seed"):
                group.add_argument(
                    "--" + field.name.replace("_", "-"),
                    dest=f"option_{field.name}",
                    type=type(field.default),
                    metavar=type(field.default).__name__.upper(),
                    help=f"{field.metadata['help']} (default: {field.default})",
                )
    for name, title in (("sac", "SAC"), ("protosac", "ProtoSAC")):
        sub = _command(
            algorithms,
            name,
            f"train {title} on a continuous task",
            f"interp train {name} hopper --timesteps 300000 --seed 0",
            _run_train,
        )
        _train_options(
            sub, "a continuous task, such as pendulum, or the original's number 0..6", timesteps=300_000, seed=0
        )
        sub.add_argument(
            "--set", action="append", default=[], metavar="NAME=VALUE", help="a hyper-parameter, such as batch_size=128"
        )
        sub.add_argument(
            "--eval-every", type=int, metavar="N", help="evaluate with mean actions every N steps (evaluations.csv)"
        )
        sub.add_argument("--eval-episodes", type=int, default=5, metavar="N", help="an evaluation (default: 5)")
        sub.add_argument("--video-every", type=int, metavar="N", help="film an episode every N steps (videos/*.mp4)")


def _train_options(parser: argparse.ArgumentParser, env_help: str, *, timesteps: int, seed: int) -> None:
    parser.add_argument("env", nargs="?", help=env_help)
    parser.add_argument(
        "--environment", dest="env_option", metavar="ENV", help="the same, as the original project spells it"
    )
    parser.add_argument("--timesteps", type=int, default=timesteps, help=f"steps in all (default: {timesteps:,})")
    parser.add_argument("--seed", type=int, default=seed, help=f"default: {seed}")
    parser.add_argument("--run-dir", type=Path, help="default: runs/<algorithm>-<env>-s<seed>")
    parser.add_argument("--resume", action="store_true", help="continue the run that is there")
    parser.add_argument("--max-minutes", type=float, help="stop cleanly after this long; --resume continues")
    parser.add_argument("--threads", type=int, help="CPU threads for PyTorch (default: all cores)")
    parser.add_argument("--tensorboard", action="store_true", help="also write the curve to RUN/tensorboard")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


_WHILE_TRAINING = ("eval_every", "eval_episodes", "video_every")


def _run_train(args: argparse.Namespace) -> int:
    from .runs import SEMANTIC_ALGORITHMS

    name = args.env or args.env_option
    if name is None:
        raise InterpError(f"which environment? For example: interp train {args.algorithm} pendulum")
    semantic = args.algorithm in SEMANTIC_ALGORITHMS
    env = procgen_game(name) if semantic else continuous_task(name)
    if semantic:
        options = {
            k.removeprefix("option_"): v for k, v in vars(args).items() if k.startswith("option_") and v is not None
        }
    else:
        options = dict(_assignment(text) for text in args.set)
    if args.threads:
        import torch

        torch.set_num_threads(args.threads)
    from .training import train

    run_dir = train(
        args.algorithm,
        env,
        timesteps=args.timesteps,
        seed=args.seed,
        run_dir=args.run_dir or Path("runs") / f"{args.algorithm}-{env}-s{args.seed}",
        options=options,
        resume=args.resume,
        max_minutes=args.max_minutes,
        **{k: getattr(args, k) for k in (("save_seconds",) if semantic else _WHILE_TRAINING)},
        tensorboard=args.tensorboard,
        device=getattr(args, "device", "auto"),
        progress=not args.quiet,
    )
    if _first_process():
        print(f"saved {run_dir}")
    return 0


def _first_process() -> bool:
    """Whether this is the process that speaks: under torchrun all of them get the same errors and results."""
    return os.environ.get("RANK", "0") == "0"


def _assignment(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        raise InterpError(f"--set takes NAME=VALUE, not '{text}'.")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


# -- look at a run ------------------------------------------------------------------------------------------------


def _evaluate(commands: Any) -> None:
    example = "interp evaluate checkpoints/sppo-fruitbot-s2021 --episodes 500"
    parser = _command(commands, "evaluate", "measure returns with 95%% intervals", example, _run_evaluate)
    parser.add_argument("run_dir", metavar="RUN", help="a run folder")
    parser.add_argument("--episodes", type=int, help="a side (default: 500 for Procgen, 50 for continuous tasks)")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--deterministic", action="store_true", default=None, help="most probable or mean action")
    how.add_argument("--stochastic", dest="deterministic", action="store_false", help="sample actions")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print JSON")


def _run_evaluate(args: argparse.Namespace) -> int:
    from .evaluation import default_episodes, evaluate_run, result_entry
    from .runs import SIDE_TITLES, read_run

    run = read_run(args.run_dir)
    episodes = default_episodes(run) if args.episodes is None else args.episodes
    results = {
        side: result_entry(returns, how)
        for side, (returns, how) in evaluate_run(
            run, episodes, deterministic=args.deterministic, seed=args.seed
        ).items()
    }
    if args.json:
        print(json.dumps({"run": run.name, "timesteps": run.timesteps, "results": results}, indent=2))
    else:
        print(f"{run.name}, {run.timesteps:,} steps")
        for side, r in results.items():
            print(
                f"  {SIDE_TITLES[side]}: return {r['mean']:.2f}, 95% interval {r['low']:.2f} to {r['high']:.2f}, "
                f"{r['episodes']} episodes, {r['actions']} actions"
            )
    return 0


def _run_outputs(args: argparse.Namespace) -> tuple[Any, Any]:
    """The run of a command, and the place for its outputs."""
    from .outputs import Outputs
    from .runs import read_run
    from .style import use_style

    run = read_run(args.run_dir)
    use_style()
    return run, Outputs(args.out, run.name)


def _looking_at(commands: Any, name: str, help: str, run: Any, example_run: str) -> argparse.ArgumentParser:
    parser = _command(commands, name, help, f"interp {name} {example_run}", run)
    parser.add_argument("run_dir", metavar="RUN", help="a run folder")
    parser.add_argument(
        "--out", "--save-dir", type=Path, default=Path("figures"), help="outputs go to OUT/<run> (default: figures)"
    )
    parser.add_argument("--seed", type=int, default=0)
    return parser


def _embed(commands: Any) -> None:
    parser = _looking_at(
        commands,
        "embed",
        "collect states of an SPPO run and draw its FDR and t-SNE spaces, clusters and policy graph",
        _run_embed,
        "checkpoints/sppo-fruitbot-s2021",
    )
    parser.add_argument("--steps", type=int, default=500, help="steps of 64 environments (default: 500)")
    parser.add_argument("--tsne-states", type=int, default=5000, help="states in the t-SNE space (default: 5000)")


def _run_embed(args: argparse.Namespace) -> int:
    from .descriptions import read_descriptions
    from .embedding import collect_states
    from .explore import draw_spaces, save_cluster_outputs, save_transitions
    from .runs import load_agent

    run, outputs = _run_outputs(args)
    path = outputs.folder / run.name / "states.h5"
    agent = load_agent(run.path)
    states = collect_states(agent, path, steps=args.steps, seed=args.seed, reuse=True)
    descriptions = read_descriptions(run.path, states.num_codes)
    draw_spaces(states, outputs, [run.path], tsne_states=args.tsne_states)
    save_cluster_outputs(states, outputs, [run.path], descriptions)
    save_transitions(states, outputs, [run.path])
    print(f"saved {len(states):,} states and their pictures in {outputs.folder / run.name}")
    return 0


def _videos(commands: Any) -> None:
    parser = _looking_at(
        commands,
        "videos",
        "film what an SPPO agent does in each cluster",
        _run_videos,
        "checkpoints/sppo-fruitbot-s2021",
    )
    parser.add_argument("--episodes", type=int, default=128, help="episodes to choose from (default: 128)")
    parser.add_argument("--frames", type=int, default=480, help="most frames a cluster (default: 480)")
    parser.add_argument(
        "--max-steps", type=int, default=60_000, help="play no more than this for rare clusters (default: 60,000)"
    )


def _run_videos(args: argparse.Namespace) -> int:
    from .descriptions import read_descriptions
    from .explore import play_for_videos, save_skill_videos
    from .runs import load_agent

    run, outputs = _run_outputs(args)
    agent = load_agent(run.path)
    episodes = play_for_videos(agent, args.episodes, max_frames=args.frames, max_steps=args.max_steps, seed=args.seed)
    descriptions = read_descriptions(run.path, agent.config.num_codes)
    report = save_skill_videos(agent, outputs, [run.path], episodes, max_frames=args.frames, descriptions=descriptions)
    print(report.to_string())
    print(f"saved videos in {outputs.folder / run.name}")
    return 0


def _browse(commands: Any) -> None:
    parser = _command(
        commands,
        "browse",
        "browse the clusters of an SPPO run or the prototypes of a ProtoSAC run in JupyterLab, or as one HTML file",
        "interp browse checkpoints/sppo-fruitbot-s2021",
        _run_browse,
    )
    parser.add_argument("run_dir", metavar="RUN", help="a run folder")
    parser.add_argument(
        "--states",
        type=Path,
        metavar="FILE",
        help="SPPO: states to show (default: figures/<run>/states.h5, collected now if need be)",
    )
    parser.add_argument(
        "--export",
        type=Path,
        metavar="FILE.html",
        help="write a page that needs no Python and no network, and stop",
    )
    parser.add_argument("--port", type=int, help="JupyterLab's port (default: the first free one from 8888)")
    parser.add_argument("--no-open", action="store_true", help="start JupyterLab without opening a browser window")


def _run_browse(args: argparse.Namespace) -> int:
    from .browsing import states_of
    from .embedding import load_states
    from .runs import load_agent, read_run

    run = read_run(args.run_dir)
    folder = Path("figures") / run.name
    if run.algorithm == "protosac":
        return _browse_prototypes(args, run, folder)
    agent = load_agent(run.path)
    states = load_states(args.states, agent) if args.states else states_of(agent, folder / "states.h5")
    if args.export:
        from .descriptions import read_descriptions
        from .static_explorer import export_explorer

        descriptions = read_descriptions(run.path, states.num_codes)
        info = export_explorer(agent, states, args.export, descriptions=descriptions)
        print(f"saved {info.states:,} states in {args.export} ({info.bytes / 1e6:.1f} MB)")
        return 0
    from .widgets.launch import open_lab, write_notebook

    notebook = write_notebook(run.path, states.path, folder / "browse.ipynb")
    print(f"opening {notebook}; Ctrl-C ends it", flush=True)
    open_lab(notebook, port=args.port, open_browser=not args.no_open)


def _browse_prototypes(args: argparse.Namespace, run: Any, folder: Path) -> int:
    if args.states:
        raise InterpError(
            f"--states is for the clusters of SPPO runs, and {run.path} holds a protosac run. Leave it out to browse "
            "the prototypes, or save them as pictures: interp prototypes RUN"
        )
    if args.export:
        from .explain import record_episodes
        from .runs import load_agent
        from .static_prototype_explorer import export_prototype_explorer

        agent = load_agent(run.path)
        info = export_prototype_explorer(agent, record_episodes(agent, run.env, 10), args.export, run=run.name)
        print(f"saved {info.states:,} steps of an episode in {args.export} ({info.bytes / 1e6:.1f} MB)")
        return 0
    from .widgets.launch import open_lab, write_prototype_notebook

    notebook = write_prototype_notebook(run.path, run.env, folder / "browse.ipynb")
    print(f"opening {notebook}; Ctrl-C ends it", flush=True)
    open_lab(notebook, port=args.port, open_browser=not args.no_open)


def _prototypes(commands: Any) -> None:
    parser = _looking_at(
        commands,
        "prototypes",
        "show the prototypes of a ProtoSAC run",
        _run_prototypes,
        "checkpoints/protosac-pendulum-s0",
    )
    parser.add_argument("--episodes", type=int, default=50, help="evaluation episodes (default: 50)")


def _run_prototypes(args: argparse.Namespace) -> int:
    from .runs import load_agent

    run, outputs = _run_outputs(args)
    if run.algorithm != "protosac":
        raise InterpError(f"{run.path} holds a {run.algorithm} run, which has no prototypes. Choose a protosac run.")
    from .prototype_outputs import save_prototype_outputs

    save_prototype_outputs(load_agent(run.path), run, outputs, episodes=args.episodes, seed=args.seed)
    print(f"saved prototypes in {outputs.folder / run.name}")
    return 0


# -- campaign ------------------------------------------------------------------------------------------------------


def _campaign(commands: Any) -> None:
    parser = _command(
        commands,
        "campaign",
        "train and release a table of runs, slice by slice",
        "interp campaign run --max-minutes 120 --jobs 2",
        None,
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION", parser_class=_Parser)
    plan = _command(
        actions, "plan", "what is left to do, in order", "interp campaign plan", lambda args: _show_campaign(args, True)
    )
    status = _command(
        actions, "status", "how far every run is", "interp campaign status", lambda args: _show_campaign(args, False)
    )
    work = _command(
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
    from .campaign import read_campaign, render_standings, standings

    found = standings(read_campaign(args.file), args.runs, args.folder)
    print(render_standings(found, only_left=only_left))
    return 0


def _run_campaign(args: argparse.Namespace) -> int:
    from .campaign import Campaign, read_campaign

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


# -- reproduce, checkpoints, doctor ---------------------------------------------------------------------------------


def _reproduce(commands: Any) -> None:
    example = "interp reproduce --profile quick --source pretrained --only 03 --env ninja"
    parser = _command(
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
    from .pipeline.reproduce import check, reproduce, reproduce_everywhere

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


def _checkpoints(commands: Any) -> None:
    parser = _command(
        commands,
        "checkpoints",
        "list, verify, release, import, push and pull runs",
        "interp checkpoints list",
        None,
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION", parser_class=_Parser)
    show = _command(
        actions, "list", "released runs with what was measured", "interp checkpoints list --json", _run_list
    )
    show.add_argument("--json", action="store_true", help="print JSON")
    check = _command(
        actions, "verify", "compare released runs with their checksums", "interp checkpoints verify", _run_verify
    )
    release = _command(
        actions,
        "release",
        "evaluate a run and copy it to the released ones",
        "interp checkpoints release runs/sppo-ninja-s2021",
        _run_release,
    )
    release.add_argument("run_dir", metavar="RUN", help="a run folder")
    release.add_argument("--episodes", type=int, help="a side (default: 500 for Procgen, 50 for continuous tasks)")
    convert = _command(
        actions,
        "import",
        "turn a checkpoint released by the authors into a run folder; it is read as data, never executed",
        "interp checkpoints import checkpoint.joblib runs/sppo-ninja-imported --env ninja",
        _run_import,
    )
    convert.add_argument("file", metavar="FILE", help="joblib file: variable name → array")
    convert.add_argument("out", metavar="OUT", type=Path, help="run folder to write")
    convert.add_argument("--env", required=True, help="Procgen game it was trained on, which the file does not say")
    convert.add_argument("--seed", type=int, help="training seed, where known")
    convert.add_argument("--timesteps", type=int, help="steps trained, where known")
    upload = _command(
        actions,
        "push",
        "bring released runs to a model repository of the Hugging Face Hub, or to a shared folder",
        "interp checkpoints push USER/NAME sppo-ninja-s2021",
        _run_push,
    )
    upload.add_argument(
        "--private", action="store_true", help="make the repository a private one; push to none that is not"
    )
    download = _command(
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
    from .release import list_runs, render_list

    rows = list_runs(args.folder)
    print(json.dumps(rows, indent=2) if args.json else render_list(rows))
    return 0


def _run_verify(args: argparse.Namespace) -> int:
    from .runs import find_runs, verify_run

    runs = find_runs(args.folder)
    if not runs:
        raise InterpError(f"no runs in {args.folder}.")
    problems = [problem for run in runs for problem in verify_run(run)]
    for problem in problems:
        print(problem)
    print(f"{len(runs)} runs, {len(problems)} problems")
    return 1 if problems else 0


def _run_release(args: argparse.Namespace) -> int:
    from .release import evaluate_and_release

    print((evaluate_and_release(args.run_dir, args.folder, args.episodes).path / "card.md").read_text())
    return 0


def _run_import(args: argparse.Namespace) -> int:
    from .semantic.importing import import_checkpoint

    env = procgen_game(args.env)
    print(import_checkpoint(args.file, args.out, env=env, seed=args.seed, timesteps=args.timesteps))
    return 0


def _run_push(args: argparse.Namespace) -> int:
    from .hub import push

    return 1 if push(args.repo, args.names, args.folder, private=args.private, **_transfer(args)) else 0


def _run_pull(args: argparse.Namespace) -> int:
    from .hub import pull

    return 1 if pull(args.repo, args.names, args.folder, **_transfer(args)) else 0


def _transfer(args: argparse.Namespace) -> dict[str, Any]:
    """What push and pull have in common."""
    return dict(revision=args.revision, replace=args.replace, say=lambda line: print(line, flush=True))


def _doctor(commands: Any) -> None:
    _command(commands, "doctor", "check Procgen, MuJoCo, Box2D, video, CUDA and disk", "interp doctor", _run_doctor)


def _run_doctor(args: argparse.Namespace) -> int:
    from .doctor import healthy, render_report, run_checks

    checks = run_checks()
    print(render_report(checks))
    return 0 if healthy(checks) else 1


if __name__ == "__main__":
    raise SystemExit(main())
