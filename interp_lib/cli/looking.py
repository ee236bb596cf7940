"""The commands that look at one run: ``interp evaluate | embed | videos | browse | prototypes``."""

from __future__ import annotations

import argparse
import contextlib
import json
from pathlib import Path
from typing import Any

from ..common.errors import InterpError
from .parts import EPISODES, add_command, say, seed


def add_evaluate(commands: Any) -> None:
    """Add ``interp evaluate``."""
    example = "interp evaluate checkpoints/sppo-fruitbot-s2021 --episodes 500"
    parser = add_command(commands, "evaluate", "measure returns with 95% intervals", example, _run_evaluate)
    parser.add_argument("run_dir", metavar="RUN", help="a run folder")
    parser.add_argument("--episodes", type=int, help=EPISODES)
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--deterministic", action="store_true", default=None, help="most probable or mean action")
    how.add_argument("--stochastic", dest="deterministic", action="store_false", help="sample actions")
    parser.add_argument("--seed", type=seed, default=0)
    parser.add_argument("--json", action="store_true", help="print JSON")


def _run_evaluate(args: argparse.Namespace) -> None:
    from ..evaluation.returns import default_episodes, evaluate_run, result_entry
    from ..runs.card import SIDE_TITLES
    from ..runs.folder import read_run

    run = read_run(args.run_dir)
    episodes = default_episodes(run) if args.episodes is None else args.episodes
    measured = evaluate_run(run, episodes, deterministic=args.deterministic, seed=args.seed)
    results = {side: result_entry(returns, how) for side, (returns, how) in measured.items()}
    if args.json:
        print(json.dumps({"run": run.name, "timesteps": run.timesteps, "results": results}, indent=2))
        return
    print(f"{run.name}, {run.timesteps:,} steps")
    for side, r in results.items():
        print(
            f"  {SIDE_TITLES[side]}: return {r['mean']:.2f}, 95% interval {r['low']:.2f} to {r['high']:.2f}, "
            f"{r['episodes']} episodes, {r['actions']} actions"
        )


def add_embed(commands: Any) -> None:
    """Add ``interp embed``."""
    help = "collect states of an SPPO or PPO run, draw its spaces, clusters and policy graph, and test what they say"
    parser = _looking_at(commands, "embed", help, _run_embed, "checkpoints/sppo-fruitbot-s2021")
    parser.add_argument("--steps", type=int, default=500, help="steps of 64 environments (default: 500)")
    parser.add_argument("--tsne-states", type=int, default=5000, help="states in the t-SNE space (default: 5000)")


def _run_embed(args: argparse.Namespace) -> None:
    from ..clusters.collect import open_states
    from ..clusters.descriptions import read_descriptions
    from ..clusters.outputs import save_embedding
    from ..clusters.study import ClusterStudy
    from ..pipeline.workbench import states_file
    from ..runs.folder import find_runs, load_agent

    run, outputs = _run_outputs(args, "clusters", also="ppo")
    agent, descriptions, ppo = load_agent(run.path), None, None
    if run.record.explains:
        descriptions = read_descriptions(run.path, agent.config.num_codes)  # before it takes minutes
        beside = find_runs(run.path.parent, algorithm="ppo", env=run.env)
        ppo = load_agent(max(beside, key=lambda other: other.timesteps).path) if beside else None
    states = open_states(agent, states_file(outputs.folder, run.name), steps=args.steps, seed=args.seed)
    study = ClusterStudy(agent, states)
    how: dict[str, Any] = {"tsne_states": args.tsne_states, "descriptions": descriptions, "ppo": ppo}
    problems = save_embedding(study, outputs, [run.path], **how)
    for name, problem in problems.items():
        say(f"left out {name}: {problem}")
    print(f"saved {len(states):,} states and their pictures in {outputs.folder / run.name}")


def add_videos(commands: Any) -> None:
    """Add ``interp videos``."""
    help = "film what an SPPO agent does in each cluster"
    parser = _looking_at(commands, "videos", help, _run_videos, "checkpoints/sppo-fruitbot-s2021")
    parser.add_argument("--episodes", type=int, default=128, help="episodes to choose from (default: 128)")
    parser.add_argument("--frames", type=int, default=480, help="most frames a cluster (default: 480)")
    more = "play no more than this for rare clusters (default: 60,000)"
    parser.add_argument("--max-steps", type=int, default=60_000, help=more)


def _run_videos(args: argparse.Namespace) -> None:
    from ..clusters.descriptions import read_descriptions
    from ..clusters.sentences import write_sentences
    from ..clusters.states import load_states
    from ..clusters.videos import play_for_videos, save_skill_videos
    from ..pipeline.workbench import states_file
    from ..runs.folder import load_agent

    run, outputs = _run_outputs(args, "clusters")
    agent = load_agent(run.path)
    descriptions = read_descriptions(run.path, agent.config.num_codes)
    episodes = play_for_videos(agent, args.episodes, max_frames=args.frames, max_steps=args.max_steps, seed=args.seed)
    how: dict[str, Any] = {"max_frames": args.frames, "descriptions": descriptions}
    with contextlib.suppress(InterpError):  # sentences need states; those of interp embed, if they are there
        how["sentences"] = write_sentences(load_states(states_file(outputs.folder, run.name), agent))
    report = save_skill_videos(agent, outputs, [run.path], episodes, **how)
    print(report.to_string())
    print(f"saved videos in {outputs.folder / run.name}")


def add_browse(commands: Any) -> None:
    """Add ``interp browse``."""
    help = "browse the clusters of an SPPO run or the prototypes of a ProtoSAC run in JupyterLab, or as one HTML file"
    parser = add_command(commands, "browse", help, "interp browse checkpoints/sppo-fruitbot-s2021", _run_browse)
    parser.add_argument("run_dir", metavar="RUN", help="a run folder")
    states = "SPPO: states to show (default: figures/<run>/states.h5, collected now if need be)"
    parser.add_argument("--states", type=Path, metavar="FILE", help=states)
    page = "write a page that needs no Python and no network, and stop"
    parser.add_argument("--export", type=Path, metavar="FILE.html", help=page)
    parser.add_argument("--port", type=int, help="JupyterLab's port (default: the first free one from 8888)")
    parser.add_argument("--no-open", action="store_true", help="start JupyterLab without opening a browser window")


def _run_browse(args: argparse.Namespace) -> None:
    from ..runs.folder import load_agent, read_run
    from .lab import open_lab, write_notebook, write_prototype_notebook

    run = read_run(args.run_dir)
    folder, states = Path("figures") / run.name, None
    clusters = run.record.explains != "prototypes"
    agent: Any = load_agent(run.path) if clusters or (args.export and not args.states) else None
    if clusters:
        from ..clusters.collect import open_states
        from ..clusters.states import clusters_of, load_states
        from ..pipeline.workbench import states_file

        clusters_of(agent, "browse")
        if args.states:
            states = load_states(args.states, agent)
        else:
            states = open_states(agent, states_file("figures", run.name), any_settings=True)
    elif args.states:
        raise InterpError(
            f"--states is for the clusters of SPPO runs, and {run.path} holds a protosac run. Leave it out to browse "
            "the prototypes, or save them as pictures: interp prototypes RUN"
        )
    if args.export:
        from ..pipeline.jobs import write_explorer

        info, what = (
            write_explorer(agent, run, args.export, states),
            "steps of an episode" if states is None else "states",
        )
        print(f"saved {info.states:,} {what} in {args.export} ({info.bytes / 1e6:.1f} MB)")
        return
    place = folder / "browse.ipynb"
    if states is not None:
        notebook = write_notebook(run.path, states.path, place)
    else:
        notebook = write_prototype_notebook(run.path, run.env, place)
    say(f"opening {notebook}; Ctrl-C ends it")
    open_lab(notebook, port=args.port, open_browser=not args.no_open)


def add_prototypes(commands: Any) -> None:
    """Add ``interp prototypes``."""
    help = "show the prototypes of a ProtoSAC run"
    parser = _looking_at(commands, "prototypes", help, _run_prototypes, "checkpoints/protosac-pendulum-s100")
    parser.add_argument("--episodes", type=int, default=50, help="evaluation episodes (default: 50)")


def _run_prototypes(args: argparse.Namespace) -> None:
    from ..runs.folder import load_agent

    run, outputs = _run_outputs(args, "prototypes")
    from ..prototypes.outputs import save_prototype_outputs

    save_prototype_outputs(load_agent(run.path), run, outputs, episodes=args.episodes, seed=args.seed)
    print(f"saved prototypes in {outputs.folder / run.name}")


def _looking_at(commands: Any, name: str, help: str, run: Any, example_run: str) -> argparse.ArgumentParser:
    parser = add_command(commands, name, help, f"interp {name} {example_run}", run)
    parser.add_argument("run_dir", metavar="RUN", help="a run folder")
    out = "outputs go to OUT/<run> (default: figures)"
    parser.add_argument("--out", "--save-dir", type=Path, default=Path("figures"), help=out)
    parser.add_argument("--seed", type=seed, default=0)
    return parser


def _run_outputs(args: argparse.Namespace, explains: str, *, also: str = "") -> tuple[Any, Any]:
    """The run of a command, and the place for its outputs.

    Raises:
        InterpError: the algorithm of the run does not explain itself by ``explains``, and is not ``also``.
    """
    from ..agents.registry import ALGORITHMS
    from ..common.outputs import Outputs
    from ..common.style import use_style
    from ..runs.folder import read_run

    run = read_run(args.run_dir)
    if run.record.explains != explains and run.algorithm != also:
        whose = next(record for record in ALGORITHMS.values() if record.explains == explains)
        raise InterpError(
            f"{run.path} holds a {run.algorithm} run, which has no {explains}. Choose a run of {whose.title}."
        )
    use_style()
    return run, Outputs(args.out, run.name)
