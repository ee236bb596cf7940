"""The outputs of notebook 04 for any ProtoSAC run: prototypes, decisions, usage and video, saved with captions."""

from __future__ import annotations

import sys
from collections.abc import Sequence
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
from ..runs.folder import Run, find_runs, load_agent
from .decision_figure import plot_decision
from .decisions import clearest_step, most_divided_step
from .explained_video import explained_frames
from .faithfulness import EFFECT, Controls, purity, stability
from .faithfulness_figure import plot_faithfulness
from .figures import MOST_RIDGES, plot_gallery, plot_likeness, plot_nearest, plot_state_map, plot_usage
from .leaders import save_leader_graph
from .likeness import DUPLICATE_ACTION, DUPLICATE_DISTANCE, LEAST_NEAR, MOST_SHARING, NEAR, likeness_table
from .readability import LEAST_SCALED, SWEPT, baselines_table, settings_of_ours
from .readability_figure import draw_front
from .study import PrototypeStudy, compare_returns
from .traces import even_steps, playback_fps, with_frames

if TYPE_CHECKING:
    from ..agents.protosac import ProtoSAC

Runs = Sequence[Path]
_DUPLICATES = (
    f"nearer than {DUPLICATE_DISTANCE:g} standard deviations, actions over {DUPLICATE_ACTION:.0%} of the range apart"
)


def save_returns(study: PrototypeStudy, outputs: Outputs, runs: Runs, baseline: Any | None = None) -> pd.DataFrame:
    """Save returns of the agent, of its prototypes before projection, of ``baseline`` (SAC) and of a random policy."""
    table = compare_returns(study, baseline).round(1) + 0.0  # no "-0.0"
    outputs.table(
        table,
        "returns",
        f"Mean return on {study.info.gym_id} with 95% bootstrap intervals over {len(study.traces)} episodes, the same "
        "seeds and each policy's mean action for all agents. Ahead: by how much ProtoSAC's return is higher, paired by "
        "episode.",
        runs,
    )
    return table


def save_gallery(study: PrototypeStudy, outputs: Outputs, runs: Runs, *, most: int | None = 16) -> None:
    """Save the gallery: each prototype's state, its actions, how much it has to say, when, and what that is worth."""
    low, high = study.bounds
    bars = " (bars: its central 90%)" if len(low) > MOST_RIDGES else ""
    same = len(low) > 1 and np.ptp(low) == 0 and np.ptp(high) == 0  # and so they are drawn from low to high
    bounds = f" (low {low[0]:g}, high {high[0]:g})" if same else ""
    alike = f" ≈: looks like that one, acts differently ({_DUPLICATES})." if study.likeness.duplicates else ""
    outputs.figure(
        plot_gallery(study, most=most),
        "prototype_gallery",
        f"Prototypes of the {study.info.gym_id} agent, largest mean weight first. {study.pictures.note} Below each "
        "that ever leads, the critics' mean value where it leads and the median place in the episode; then its action "
        f"distribution after the squash, alone{bars}; black: the action of its mean{bounds}.{alike} Over {study.size}.",
        runs,
    )


def save_nearest(study: PrototypeStudy, outputs: Outputs, runs: Runs, *, rows: int = 4, count: int = 4) -> None:
    """Save "this prototype looks like those states" for the prototypes with the largest mean weights."""
    outputs.figure(
        plot_nearest(study, rows=rows, count=count),
        "nearest_states",
        f"The prototypes with most weight, and for each the states of {study.size} that are nearest to it in "
        f"the agent's space, at least 10 steps apart; D is the squared distance there. {study.pictures.note}",
        runs,
    )


def save_likeness(study: PrototypeStudy, outputs: Outputs, runs: Runs) -> pd.DataFrame:
    """Save how alike states and the prototypes that lead there look, beside two controls; returns the table."""
    table, image = likeness_table(study), study.info.image
    outputs.figure(
        plot_likeness(table, ALGORITHMS["protosac"].color),
        "likeness",
        f"How near the prototype that leads is to the state, {study.size}; grey: leaders shuffled over the decisions, "
        "and prototypes chosen uniformly. Distances are of "
        f"{'blurred, downsampled frames' if image else 'standardised observations'}; the ratio is the median distance "
        "to the leader over that of two random states of different episodes. Dashed: the bar for “this state looks "
        "like that”. 95% bootstrap intervals over episodes.",
        runs,
    )
    outputs.table(
        table,
        "likeness_table",
        f"Share of decisions whose leader is the nearest prototype, and among the {NEAR} nearest; median distance to "
        "the leader in standard deviations (root mean square over entries), and over that of two random states; "
        f"prototypes that share a decision; pairs that look the same and act differently ({_DUPLICATES}). "
        f"{study.size}, 95% bootstrap intervals over episodes.",
        runs,
    )
    return table


def save_state_map(study: PrototypeStudy, outputs: Outputs, runs: Runs) -> None:
    """Save the map of visited states, coloured by leading prototype."""
    outputs.figure(
        plot_state_map(study),
        "state_map",
        f"States of {study.size}, coloured by the prototype with the largest weight there. Discs: prototypes; "
        "a label that would cover another is moved aside, with a line to its disc.",
        runs,
    )


def save_decision(study: PrototypeStudy, outputs: Outputs, runs: Runs, step: int, name: str, what: str = "") -> None:
    """Save one decision of the typical episode, explained; ``what`` says why this one."""
    trace = study.typical
    figure = plot_decision(
        study,
        study.decision(trace, step),
        with_frames(trace, [step]).frame(step),
        caption=trace.caption(step),
        title=f"{study.info.gym_id}, episode of seed {trace.seed}, step {step}",
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
    outputs.figure(
        plot_usage(study),
        "prototype_usage",
        f"Left: weights and actions over the episode with the median return. Right: over {study.size}, each "
        "prototype's mean weight and the share of decisions in which it is the largest. A decision is shared by "
        f"{_interval(study.sharing)} prototypes on average; all decisions together use {_interval(study.in_use)} of "
        f"{study.agent.n_prototypes} (exponentials of entropies; 95% bootstrap intervals over episodes).",
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
    stride = steps[1] - steps[0] if len(steps) > 1 else 1
    which = "every step" if stride == 1 else f"one step in {stride}"
    video = outputs.video(
        explained_frames(study, shown),
        "explained_episode",
        f"An episode of {study.info.gym_id} (seed {trace.seed}, return {trace.total:.0f}, {which}) with the three "
        f"prototypes of largest weight at each step, and the action. {study.pictures.note}",
        runs,
        fps=playback_fps(study.info.name, steps),
    )
    near = int(np.abs(np.array(steps) - most_divided_step(trace)).argmin())
    assert shown.frames is not None
    one = replace(shown, frames=shown.frames[near : near + 1], frame_steps=shown.frame_steps[near : near + 1])
    still = outputs.image(
        next(explained_frames(study, one)),
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
        f"The prototypes over {study.size}: mean weight, share of decisions led; over those the median squared "
        "distance in the agent's space, median position in the episode (0 first step, 1 last), mean critic value; the "
        "action alone with its central 90%; the state it was projected on, where that is at most 8 numbers.",
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
    arrays["seed"] = np.array([trace.seed for trace in traces])[study.episode]
    arrays["step"] = np.concatenate([np.arange(len(trace)) for trace in traces])
    path = outputs.folder / outputs.notebook / "decisions.npz"
    with atomic_write(path) as file:
        np.savez_compressed(file, **arrays)
    return path


def save_faithfulness(
    study: PrototypeStudy, outputs: Outputs, runs: Runs, *, ablate: int = 8, episodes: int | None = None
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Save what happens when explanations are taken at their word: three tables and their picture.

    Args:
        ablate: how many prototypes are taken away, one at a time, largest mean weight first.
        episodes: of each control; None: as many as were recorded.

    Returns:
        what is lost when few or other prototypes act, and without each; purity (see faithfulness).
    """
    control = Controls(study, episodes or len(study.traces))
    placed, divergence = control.placement()
    controls = control.losses(control.top_k([k for k in (1, 2, 3) if k <= study.agent.n_prototypes]) | placed)
    controls["divergence"] = pd.Series(divergence)
    ablation = control.losses(control.ablation(study.usage.order[:ablate].tolist())).rename_axis("prototype")
    pure = purity(study)
    how = (
        f"in % of the range from random actions (0%) to the agent (100%), {control.episodes} episodes of the same "
        "seeds, paired. 95% bootstrap intervals over episodes; p-values from sign-flip permutation tests, "
        "corrected within {} (Holm). Needed: p < 0.05 and a loss of at "
        f"least {EFFECT:g}%; not needed: the interval ends below {EFFECT:g}%."
    )
    outputs.figure(
        plot_faithfulness(controls, ablation, pure, study.colors, ALGORITHMS["protosac"].color),
        "faithfulness",
        f"Explanations of the {study.info.gym_id} agent taken at their word; grey: controls. Enough: only the k "
        "prototypes with the largest weights of each decision act, or k drawn at random for each decision. Needed: "
        "one prototype is taken away. These states: other visited states take the prototypes' places, their Gaussians "
        f"refitted to the same policy. Return lost {how.format('the ablations, and within all others')} Shaded: "
        f"below {EFFECT:g}%. "
        "Pure: share of the variance of actions and critic values that a grouping of the states explains "
        f"({study.size}), with as many groups as prototypes; 95% jackknife intervals over episodes.",
        runs,
    )
    for table, name, caption in (
        (controls, "controls", "Return lost when only some prototypes act, or other states stand in their places, "
                               + how.format("this table")),
        (ablation, "ablation", f"Return lost without one prototype, {how.format('this table')}"),
        (pure, "purity", "Share of the variance of actions and values that a grouping explains. 95% jackknife "
                         f"intervals over {len(study.traces)} episodes."),
    ):  # fmt: skip
        outputs.table(table, f"faithfulness_{name}", caption, runs)
    return controls, ablation, pure


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
    first, studies = study.traces[0].seed, [PrototypeStudy(study.agent, study.traces[:episodes])]
    for run in others:
        studies.append(PrototypeStudy.record(load_agent(run.path), study.info.name, episodes, seed=first))
    table = stability(studies)
    outputs.table(
        table,
        "stability",
        f"Mean distance of a prototype's state to the nearest prototype state of another seed's agent on "
        f"{study.info.gym_id}, and to the nearest of as many states which that agent visits, drawn at random or next "
        "to the centres of k-means on its observations; root mean square over observation entries, each in its "
        f"standard deviation over visited states. {len(studies)} training seeds, "
        "every ordered pair; 95% bootstrap intervals over prototypes, which do not cover the choice of seeds.",
        [*runs, *(run.path for run in others)],
    )
    return table


def save_front(rows: pd.DataFrame, outputs: Outputs) -> None:
    """Save what return costs what likeness; ``rows`` are those of readability.read_rows."""
    ours = settings_of_ours(rows)
    outputs.figure(
        draw_front(rows),
        "readability_front",
        "Return against readability, an agent (one training seed) a mark: likeness above, prototypes that share a "
        "decision below, both better to the right. Scaled return: 0 is a random policy, 1 (line) SAC of the same seed. "
        f"Dashed: the bars, {LEAST_SCALED:.0%} of SAC, {LEAST_NEAR:.0%}, {MOST_SHARING:g} prototypes. Grey steps: the "
        f"front of the {len(ours)} ProtoSAC agents ({(ours['agent'] == SWEPT).sum()} of other settings, coloured by K, "
        "beside those released). 95% bootstrap intervals over "
        f"n = {_episodes(rows)} episodes each, on the same seeds.",
        sorted(set(rows["run"])),
    )


def save_baselines(rows: pd.DataFrame, outputs: Outputs) -> pd.DataFrame:
    """Save return and likeness of SAC, SAC made readable afterwards, and ProtoSAC; returns the table."""
    table = baselines_table(rows)
    outputs.table(
        table,
        "readability_baselines",
        "SAC, SAC distilled into prototypes after training (encoder frozen, as PW-Net does), k-medoids of SAC's states "
        "with its actions, ProtoSAC with an encoder, and ProtoSAC, a training seed each: return, the same on the scale "
        "from random (0) to SAC (1); share of decisions whose leader is the nearest prototype, and among the "
        f"{NEAR} nearest; distance to the leader over that of two random states; prototypes that share a decision. "
        f"95% bootstrap intervals over n = {_episodes(rows)} episodes.",
        sorted(set(rows.loc[rows["agent"] != SWEPT, "run"])),
    )
    return table


def _episodes(rows: pd.DataFrame) -> str:
    least, most = rows["episodes"].min(), rows["episodes"].max()
    return f"{least}" if least == most else f"{least} to {most}"


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
    for save in (save_gallery, save_nearest, save_state_map, save_likeness, save_two_decisions, save_usage):
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


def _interval(interval: Interval) -> str:
    return f"{interval.mean:.1f} [{interval.low:.1f}, {interval.high:.1f}]"
