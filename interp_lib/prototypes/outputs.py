"""The outputs of notebook 04 for any ProtoSAC run: prototypes, decisions, usage and video, saved with captions."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ..agents.registry import ALGORITHMS
from ..common.errors import InterpError
from ..common.outputs import Outputs
from ..common.statistics import Interval
from ..common.storage import atomic_write
from ..envs.pictures import state_caption
from ..runs.folder import Run, find_runs, load_agent
from . import (
    EpisodeTrace,
    PrototypeStudy,
    clearest_step,
    compare_returns,
    even_steps,
    explain_decision,
    most_divided_step,
    nearest_states,
    picture_states,
    playback_fps,
    record_episodes,
    sharing_interval,
    state_map,
    usage_interval,
    with_frames,
)
from .explained_video import explained_frames
from .faithfulness import ablation_returns, placement_returns, purity, stability, top_k_returns
from .faithfulness_figure import plot_faithfulness
from .figures import (
    MOST_RIDGES,
    plot_decision,
    plot_gallery,
    plot_nearest,
    plot_state_map,
    plot_usage,
    prototype_colors,
)
from .leaders import save_leader_graph

if TYPE_CHECKING:
    from ..agents.protosac import ProtoSAC

Runs = Sequence[Path]


def save_returns(study: PrototypeStudy, outputs: Outputs, runs: Runs, baseline: Any | None = None) -> pd.DataFrame:
    """Save returns of the agent, of its prototypes before projection, of ``baseline`` (SAC) and of a random policy."""
    table = compare_returns(study.agent, study.traces, baseline).round(1) + 0.0  # no "-0.0"
    outputs.table(
        table,
        "returns",
        f"Mean return on {study.info.gym_id} with 95% bootstrap intervals over {len(study.traces)} episodes, the same "
        "seeds and each policy's mean action for all agents. Ahead: by how much ProtoSAC's return is higher, paired by "
        "episode.",
        runs,
    )
    return table


def save_gallery(study: PrototypeStudy, outputs: Outputs, runs: Runs, *, most: int | None = None) -> None:
    """Save the gallery: each prototype's state, its actions, how much it has to say, when, and what that is worth."""
    prototypes, (low, high) = study.agent.prototypes, study.bounds
    bars = " (bars: its central 90%)" if len(low) > MOST_RIDGES else ""
    figure = plot_gallery(
        study.pictures,
        prototypes.action_means,
        prototypes.action_stds,
        low,
        high,
        study.info.action_names,
        study.usage,
        facts=_facts(study),
        most=most,
    )
    outputs.figure(
        figure,
        "prototype_gallery",
        f"Prototypes of the {study.info.gym_id} agent, largest mean weight first. {study.pictures.note} Below each "
        "that ever leads, the critics' mean value where it leads and the median place in the episode; then its action "
        f"distribution after the squash, alone{bars}; black: the action of its mean{_bounds(study)}. Over "
        f"{_episodes(study)}.",
        runs,
    )


def save_nearest(study: PrototypeStudy, outputs: Outputs, runs: Runs, *, rows: int = 4, count: int = 4) -> None:
    """Save "this prototype looks like those states" for the prototypes with the largest mean weights."""
    shown = study.usage.order[:rows].tolist()
    nearest = nearest_states(study.agent, study.traces, count)
    states = picture_states(study.traces, [state for k in shown for state in nearest[k]])
    ends = np.cumsum([len(nearest[k]) for k in shown])
    outputs.figure(
        plot_nearest(study.pictures, nearest, np.split(states, ends[:-1]), shown, study.usage),
        "nearest_states",
        f"The prototypes with most weight, and for each the states of {_episodes(study)} that are nearest to it in "
        f"latent space, at least 10 steps apart; D is the squared latent distance. {study.pictures.note}",
        runs,
    )


def save_state_map(study: PrototypeStudy, outputs: Outputs, runs: Runs) -> None:
    """Save the map of visited states, coloured by leading prototype."""
    leading = np.concatenate([trace.leading for trace in study.traces])
    outputs.figure(
        plot_state_map(state_map(study.agent, study.traces), leading, study.usage),
        "state_map",
        f"States of {_episodes(study)}, coloured by the prototype with the largest weight there. Discs: prototypes; "
        "a label that would cover another is moved aside, with a line to its disc.",
        runs,
    )


def save_decision(study: PrototypeStudy, outputs: Outputs, runs: Runs, step: int, name: str, what: str = "") -> None:
    """Save one decision of the typical episode, explained; ``what`` says why this one."""
    trace, task = study.typical, study.info
    figure = plot_decision(
        explain_decision(study.agent, trace, step),
        with_frames(trace, [step]).frame(step),
        study.pictures,
        task.action_names,
        study.usage,
        caption=state_caption(task.name, trace.observations[step]),
        title=f"{task.gym_id}, episode of seed {trace.seed}, step {step}",
    )
    outputs.figure(
        figure,
        name,
        f"One decision explained{what}: the state, the prototypes with the largest weights, and how their Gaussians "
        f"make the action. {study.pictures.note}",
        runs,
    )


def save_two_decisions(study: PrototypeStudy, outputs: Outputs, runs: Runs) -> None:
    """Save the decision that one prototype dominates most, and the one that two prototypes share most evenly."""
    steps = clearest_step(study.typical), most_divided_step(study.typical)
    save_decision(study, outputs, runs, steps[0], "decision_clear", " (the clearest of its episode)")
    save_decision(study, outputs, runs, steps[1], "decision_divided", " (the most divided of its episode)")


def save_usage(study: PrototypeStudy, outputs: Outputs, runs: Runs) -> None:
    """Save weights over the typical episode and usage over all."""
    usage, weights = study.usage, [trace.weights for trace in study.traces]
    outputs.figure(
        plot_usage(study.typical, usage, study.info.action_names, *study.bounds),
        "prototype_usage",
        f"Left: weights and actions over the episode with the median return. Right: over {_episodes(study)}, each "
        "prototype's mean weight and the share of decisions in which it is the largest. A decision is shared by "
        f"{_interval(sharing_interval(weights))} prototypes on average; all decisions together use "
        f"{_interval(usage_interval(weights))} of {len(usage.led)} (exponentials of entropies; 95% bootstrap intervals "
        "over episodes).",
        runs,
    )


def save_episode_video(
    study: PrototypeStudy, outputs: Outputs, runs: Runs, *, most_frames: int = 200
) -> tuple[Path, Path]:
    """Save the typical episode as a video with its explanation, and its most divided decision as a still.

    MuJoCo is rendered in software, so its videos have at most 100 frames.

    Returns:
        paths of the MP4 and of the PNG.
    """
    trace = study.typical
    steps = even_steps(len(trace), min(most_frames, 100) if study.info.mujoco else most_frames)
    shown = with_frames(trace, steps)

    def frames(of: EpisodeTrace) -> Iterator[np.ndarray]:
        return explained_frames(of, study.pictures, study.info.action_names, *study.bounds, study.usage)

    video = outputs.video(
        frames(shown),
        "explained_episode",
        f"An episode of {study.info.gym_id} (seed {trace.seed}, return {trace.total:.0f}, "
        f"{_every(steps)}) with the three prototypes of largest weight at each step, and the action. "
        f"{study.pictures.note}",
        runs,
        fps=playback_fps(study.info.name, steps),
    )
    near = int(np.abs(np.array(steps) - most_divided_step(trace)).argmin())
    assert shown.frames is not None
    one = replace(shown, frames=shown.frames[near : near + 1], frame_steps=shown.frame_steps[near : near + 1])
    still = outputs.image(
        next(frames(one)),
        "explained_frame",
        f"One frame of the explained episode: its most divided decision, at step {steps[near]}.",
        runs,
    )
    return video, still


def save_prototype_table(study: PrototypeStudy, outputs: Outputs, runs: Runs) -> pd.DataFrame:
    """Save one row a prototype; returns the table."""
    outputs.table(
        study.table,
        "prototypes",
        f"The prototypes over {_episodes(study)}: mean weight, share of decisions led; over those the median squared "
        "latent distance, median position in the episode (0 first step, 1 last), mean critic value; the action alone "
        "with its central 90%; the state it was projected on, where that is at most 8 numbers.",
        runs,
    )
    return study.table


def save_decisions(study: PrototypeStudy, outputs: Outputs) -> Path:
    """Save every decision of every episode as ``decisions.npz``: numpy arrays with a row a decision.

    ``seed`` and ``step`` say which; ``action`` (N, a), ``reward``, ``weights`` and ``similarities`` (N, K).
    """
    traces = study.traces
    columns = {"action": "actions", "reward": "rewards", "weights": "weights", "similarities": "similarities"}
    arrays = {name: np.concatenate([getattr(trace, kept) for trace in traces]) for name, kept in columns.items()}
    arrays["seed"] = np.repeat([trace.seed for trace in traces], [len(trace) for trace in traces])
    arrays["step"] = np.concatenate([np.arange(len(trace)) for trace in traces])
    path = outputs.folder / outputs.notebook / "decisions.npz"
    with atomic_write(path) as file:
        np.savez_compressed(file, **arrays)
    return path


def save_faithfulness(
    study: PrototypeStudy, outputs: Outputs, runs: Runs, *, ablate: int = 8
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Save what happens when explanations are taken at their word: four tables and their picture.

    Args:
        ablate: how many prototypes are taken away, one at a time, largest mean weight first.

    Returns:
        returns with few prototypes, loss without each, returns with other states as prototypes, purity (see
        faithfulness).
    """
    agent, task, episodes = study.agent, study.info.name, len(study.traces)
    ks = [k for k in (1, 2, 3) if k <= agent.n_prototypes]
    seed = study.traces[0].seed
    top = top_k_returns(agent, task, episodes, ks=ks, seed=seed)
    ablation = ablation_returns(agent, task, episodes, prototypes=list(study.usage.order[:ablate]), seed=seed)
    placed = placement_returns(agent, study.traces, episodes, seed=seed)
    pure = purity(agent, study.traces)
    outputs.figure(
        plot_faithfulness(top, ablation, placed, pure, prototype_colors(study.usage), ALGORITHMS["protosac"].color),
        "faithfulness",
        f"Explanations of the {study.info.gym_id} agent taken at their word; grey: controls. Enough: only the k "
        "prototypes with the largest weights of each decision act, or k drawn at random for each decision. Needed: "
        f"return lost when one prototype is taken away, for the {len(ablation)} with the largest mean weights. These "
        "states: as many other visited states in the prototypes' places, their Gaussians refitted to the same policy. "
        "Pure: share of the variance of actions and critic values that a grouping of the states explains "
        f"({_episodes(study)}), with as many groups as prototypes. 95% intervals over episodes, the same seeds for "
        "all: bootstrap, for purity jackknife.",
        runs,
    )
    for table, name, caption in (
        (top, "top_k", "Return when only some prototypes of each decision act. 95% bootstrap"),
        (ablation, "ablation", "Return lost without one prototype, paired by episode. 95% bootstrap"),
        (placed, "placement", "Return with other states as prototypes, their Gaussians refitted. 95% bootstrap"),
        (pure, "purity", "Share of the variance of actions and values that a grouping explains. 95% jackknife"),
    ):
        outputs.table(table, f"faithfulness_{name}", f"{caption} intervals over {episodes} episodes.", runs)
    return top, ablation, placed, pure


def save_stability(
    study: PrototypeStudy, others: Sequence[Run], outputs: Outputs, runs: Runs, *, episodes: int = 5
) -> pd.DataFrame:
    """Save how near the prototype states of agents trained with other seeds are, beside random states.

    Args:
        others: ProtoSAC runs on the same task, with other seeds.
        episodes: recorded of each agent, for the states they visit.

    Raises:
        InterpError: no others, or one that was never projected.
    """
    agents = [study.agent, *(load_agent(run.path) for run in others)]
    task, first = study.info.name, study.traces[0].seed
    traces = [study.traces[:episodes], *(record_episodes(a, task, episodes, seed=first) for a in agents[1:])]
    table = stability(agents, traces)
    outputs.table(
        table,
        "stability",
        f"Mean distance of a prototype's state to the nearest prototype state of another seed's agent on "
        f"{study.info.gym_id}, and to the nearest of as many states which that agent visits, drawn at random or next "
        "to the centres of k-means on its observations; root mean square over observation entries, each in its "
        f"standard deviation over visited states. {len(agents)} training seeds, "
        "every ordered pair; 95% bootstrap intervals over prototypes, which do not cover the choice of seeds.",
        [*runs, *(run.path for run in others)],
    )
    return table


def save_prototype_outputs(agent: ProtoSAC, run: Run, outputs: Outputs, *, episodes: int, seed: int = 0) -> None:
    """Record episodes and save everything above: what ``interp prototypes RUN`` does.

    Raises:
        InterpError: no episodes, an agent without prototypes, or one whose prototypes were never projected.
    """
    if hasattr(agent, "prototypes") and agent.prototypes.observations is None:
        raise InterpError(
            f"{run.path} was never projected, so its prototypes are no states to be shown. Train it to its end, "
            "or call agent.project(observations) and agent.save_run."
        )
    study, runs = PrototypeStudy.record(agent, run.env, episodes, seed=seed), [run.path]
    if study.pictures.problem:
        print(study.pictures.problem, file=sys.stderr)
    save_returns(study, outputs, runs)
    for save in (save_gallery, save_nearest, save_state_map, save_two_decisions, save_usage):
        save(study, outputs, runs)
    save_faithfulness(study, outputs, runs)
    save_episode_video(study, outputs, runs)
    save_prototype_table(study, outputs, runs)
    save_decisions(study, outputs)
    # What needs more than this run and these episodes must not take the rest with it.
    try:
        others = find_runs(run.path.parent, algorithm="protosac", env=run.env)
        if others := [o for o in others if o.path.name != run.path.name and o.seed != run.config.get("seed")]:
            save_stability(study, others, outputs, runs)
    except InterpError as problem:
        print(f"No comparison with other seeds: {problem}", file=sys.stderr)
    try:
        save_leader_graph(study, outputs, runs, seed=seed)
    except InterpError as problem:
        print(f"No graph of leading prototypes: {problem} Ask for more episodes.", file=sys.stderr)


def _episodes(study: PrototypeStudy) -> str:
    return f"n = {len(study.usage.per_decision):,} decisions in {len(study.traces)} episodes"


def _facts(study: PrototypeStudy) -> list[str]:
    """What the critics expect where a prototype leads, and when that is; empty where it never does."""
    rows = (study.table.loc[f"P{k}"] for k in range(len(study.usage.led)))
    return [f"value {row['value']:.1f}, {row['when']:.0%} into the episode" if row["led"] > 0 else "" for row in rows]


def _bounds(study: PrototypeStudy) -> str:
    """The bounds of actions that are drawn from low to high, where they are the same for all dimensions."""
    low, high = study.bounds
    same = len(low) > 1 and np.ptp(low) == 0 and np.ptp(high) == 0
    return f" (low {low[0]:g}, high {high[0]:g})" if same else ""


def _interval(interval: Interval) -> str:
    return f"{interval.mean:.1f} [{interval.low:.1f}, {interval.high:.1f}]"


def _every(steps: Sequence[int]) -> str:
    stride = steps[1] - steps[0] if len(steps) > 1 else 1
    return "every step" if stride == 1 else f"one step in {stride}"
