"""The outputs of notebook 03 for any SPPO run, saved with captions; those that come from episodes: videos.py."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from ..agents.learning_curve import read_progress
from ..agents.registry import ALGORITHMS
from ..agents.sppo.agents import PPO
from ..common.errors import InterpError
from ..common.graphs import END, LEAST_PROBABILITY, LEAST_VISITS, draw_transitions
from ..common.outputs import Outputs
from ..envs.actions import ACTION_EFFECTS
from ..envs.games import GAMES
from ..envs.procgen import normalised
from ..runs.curves import draw_seeds, label_axes
from ..runs.folder import Run, read_run
from ..runs.published import published_seeds
from .alignment import LEAST_LEVELS, LEAST_SHARE, Alignment
from .counterfactual import Counterfactual
from .counterfactual_outputs import save_counterfactual
from .evidence import code_separation, code_usage, temporal_coherence, two_spaces
from .figures import cluster_gallery, draw_actions, draw_space, plot_alignment, plot_groupings, plot_medoids
from .groupings import CODES, RIVAL, SAMPLE, Groupings
from .intervention import code_effect
from .sentences import facts_table, read_back, reading_verdict
from .stability_outputs import save_retraining, save_tsne_stability
from .study import QUANTILES, ClusterStudy

Runs = Sequence[Path]
ALIGNED = 6_000  # states that concepts are aligned over by default: 20 s to see them through an untrained network

EVIDENCE = {
    "code_usage": "Codes in use: those that occur, and perplexity with its 95% interval.",
    "space_quality": "Silhouette of the codes in each space (1: clusters far apart, 0: touching) with its 95% "
    "interval, and for maps their trustworthiness: whether neighbours in the map are neighbours in feature space "
    "(1: all). Of more than 6,400 states as many are drawn.",
    "temporal_coherence": "Share of steps after which the cluster is the same, over all states and by cluster, and the "
    "same expected with the states of each episode shuffled; 95% intervals.",
    "code_effect": "What other codes than a state's own do to the policy at the states: shuffled (as often as they "
    "occur), random (all alike) or always one; KL(policy ‖ changed policy) in nats and over the policy's mean entropy, "
    "share of states with another most probable action, of Procgen's 15 and by effect, and mean absolute change of the "
    "value in standard deviations; last, what the whole feature of another state does. 95% intervals (environments "
    "resampled).",
    "changed_returns": "Returns of whole episodes on unseen levels, sampled actions, with the agent's own codes and "
    "others; differences are paired by level; 95% intervals over episodes, p by sign flips, corrected (Holm).",
}


def draw_learning_curves(env: str, runs: Sequence[Run], outputs: Outputs) -> None:
    """PPO against SPPO in the paper's form: published seeds as mean ± standard deviation, the runs here beside them.

    Left up to where the runs here end, right the whole of what was published (nothing, for most games).
    """
    curves = [(run, read_progress(run.path).set_index("total_timesteps")["eprewmean"]) for run in runs]
    published = {a: published_seeds(a, env) for a in ALGORITHMS if len(published_seeds(a, env).columns)}
    last = max(curve.index.max() for _, curve in curves)
    ends = [last, *({seeds.index.max() for seeds in published.values()})]
    figure, axes = plt.subplots(1, len(ends), figsize=(5.2 * len(ends), 3.9), sharey=True, squeeze=False)
    for ax, end in zip(axes[0], ends, strict=True):
        for algorithm, seeds in published.items():
            part = seeds[seeds.index <= end * 1.02]
            label = f"{ALGORITHMS[algorithm].title}, published ({seeds.shape[1]} seeds)"
            if len(part):  # a fresh run may end before the first published point
                draw_seeds(ax, part, method=algorithm, label=label, linewidth=1.4)
        for run, curve in curves:
            label = f"{run.record.title} here, seed {run.seed} ({run.timesteps:,} steps)"
            draw_seeds(ax, curve.to_frame(), method=run.algorithm, label=label, linewidth=3.2)
        label_axes(ax, "up to the end of the runs here" if end == last else "all that was published")
        ax.get_legend().set_visible(ax is axes[0, -1])
    mode = runs[0].config["hyperparameters"]["distribution_mode"]
    low, high = GAMES[env].score_range(mode)
    score = (lambda r: normalised(r, env, mode), lambda x: low + x * (high - low))
    axes[0, -1].secondary_yaxis("right", functions=score).set_ylabel("normalised score")
    seeds = " and ".join(f"n = {s.shape[1]} {ALGORITHMS[a].title}" for a, s in published.items())
    outputs.figure(
        figure,
        "learning_curves",
        f"Mean return of the last 100 training episodes on {env}, smoothed (moving average 0.9). Thick: the runs here, "
        f"one seed each. "
        + (f"Thin: published seeds ({seeds}), mean ± one standard deviation over seeds. " if published else "")
        + f"Normalised score: 0 at {low:g} (blind), 1 at {high:g} (best possible or reached).",
        [run.path for run in runs],
    )


def save_spaces(
    study: ClusterStudy, rows: np.ndarray, spaces: Mapping[str, np.ndarray], outputs: Outputs, runs: Runs
) -> None:
    """Save FDR space and t-SNE space of the states ``rows``, coloured by cluster; ``spaces`` as of two_spaces."""
    states, code = study.states, study.states.code[rows]
    figure, axes = plt.subplots(1, 2, figsize=(10, 4.8))
    draw_space(axes[0], spaces[states.map], code, f"{states.map} space (n = {len(rows):,} states)", axis="z")
    draw_space(axes[1], spaces["t-SNE"], code, "t-SNE of the features, same states", axis="t-SNE")
    game = states.meta["game"]
    outputs.figure(
        figure,
        "fdr_and_tsne_space",
        f"States of {game} on unseen levels in the two spaces, coloured by cluster. Left: "
        f"{'the learned 2-D coordinates z' if states.map == 'FDR' else 'the first two principal components of h'}. "
        "Right: t-SNE (perplexity 30, PCA start) of the 256-D features of the same states. "
        f"n = {len(rows):,} states; numbers mark the median of each cluster with at least 1% of them."
        f"{_islands(study)}",
        runs,
    )


def _islands(study: ClusterStudy) -> str:
    parts = [f"{k} ({n})" for k, n in study.islands.items() if n > 1]
    found = (
        f"Clusters in several islands of FDR space: {', '.join(parts)}" if parts else "No cluster is several islands"
    )
    return f" {found} (parts of the smallest area with 80% of its density, each with at least 10% of it)."


def _said(study: ClusterStudy) -> str:
    return (
        " By concepts: the game's own account of the states; shares in the cluster and elsewhere, on half of the "
        "levels."
        if study.sentences
        else ""
    )


def _scale(study: ClusterStudy) -> str:
    scale = study.agent.reward_scale
    return (
        "" if scale is None else f" (the agent learns it divided by {scale:.2f} and cut at 10, so at {10 * scale:.1f})"
    )


def save_evidence(table: pd.DataFrame, name: str, outputs: Outputs, runs: Runs) -> pd.DataFrame:
    """Save a table of :mod:`.evidence` under its name in :data:`EVIDENCE`; returns it."""
    outputs.table(table, name, EVIDENCE[name], runs)
    return table


def save_cluster_outputs(
    study: ClusterStudy, outputs: Outputs, runs: Runs, descriptions: Mapping[int, str] | None = None
) -> pd.DataFrame:
    """Save the cluster gallery, what the policy does in each cluster, and the cluster table; returns the table."""
    states, game, kept = study.states, study.states.meta["game"], study.count
    table = study.described(descriptions)
    frames = {k: states.frames(study.typical_rows(k)) for k in study.used}
    titles = ["mean − all", "medoid", *(f"{q:.0%} quantile" for q in QUANTILES)]
    empty = [str(k) for k in table.index if k not in study.used]
    unused = f" Never used: cluster {', '.join(empty)}." if empty else ""
    outputs.figure(
        cluster_gallery(
            study.mean_images(), frames, table["share"].to_dict(), descriptions, study.sentences, titles=titles
        ),
        "cluster_gallery",
        f"Each cluster with its share of n = {kept:,} states: its mean observation (of up to 500 states) minus that of "
        "all states, on grey and enlarged; its medoid among the features h; and the states at quantiles of the "
        f"distance from it, from other levels where there are. {game}, unseen levels.{_said(study)}{unused}"
        f"{_islands(study)}",
        runs,
    )
    outputs.table(
        table,
        "cluster_table",
        f"Clusters over n = {kept:,} states: share; islands in the map; mean dwell time; the agent's value estimate; "
        f"value and discounted return to go (γ 0.999) over the {int(table['states, whole episodes'].sum()):,} states "
        f"of the {int(states.done.sum())} episodes that ended in the recording (the short ones, and with "
        f"{states.meta['random_action']:.0%} random actions, which the value does not reckon with); all in "
        f"{study.unit}{_scale(study)}; the three likeliest actions under the policy; and the description, where "
        f"somebody has written one.{_said(study)} 95% intervals resample environments.{unused}",
        runs,
    )
    actions = study.actions
    figure, ax = plt.subplots(figsize=(3.4 + 0.46 * actions.shape[1], 3.8))
    merged = {e: f"{e} ({len(of)})" for e, of in ACTION_EFFECTS[game].items() if len(of) > 1}
    draw_actions(ax, actions.rename(columns=merged), table["states"].to_dict())
    ax.set_title(f"What the policy does in each cluster of {game}")
    outputs.figure(
        figure,
        "cluster_actions",
        f"Mean probability of each action under the policy, in each cluster, over n = {kept:,} states. Actions are "
        f"named by what they do in {game}; of Procgen's 15, those with the same effect are added up (in "
        "brackets how many: a policy that ignores what it sees would favour them).",
        runs,
    )
    outputs.table(actions, "cluster_action_shares", "The same probabilities, in full precision.", runs)
    return table


def save_medoids(study: ClusterStudy, outputs: Outputs, runs: Runs) -> dict[int, int]:
    """Save a state for each cluster of an SPPO agent, as a gallery of prototypes; returns its row by cluster."""
    medoids, game = study.medoids(), study.states.meta["game"]
    figure = plot_medoids(
        {k: study.states.frames([row])[0] for k, row in medoids.items()},
        study.table["states"].to_dict(),
        study.table["value"].to_dict(),
        study.actions,
        f"A state for each cluster of SPPO on {game}, n = {study.count:,} states, values in {study.unit}",
    )
    outputs.figure(
        figure,
        "cluster_medoids",
        f"Clusters of the SPPO agent on {game} shown as prototypes: the medoid of each in feature space "
        "(the state with the smallest sum of distances to up to 500 others of its cluster) and the likeliest "
        f"actions there: mean probability under the policy. n = {study.count:,} states on unseen levels.",
        runs,
    )
    return medoids


def save_transitions(study: ClusterStudy, outputs: Outputs, runs: Runs) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Save the graph of clusters and its two tables; returns them: transitions, dwell times."""
    states, transitions, dwell = study.states, study.transitions, study.dwell
    medoids = study.medoids()
    centres = {k: states.fdr[row] for k, row in medoids.items()}
    images = {k: states.frames([row])[0] for k, row in medoids.items()}
    shares, stays = study.table["share"].to_dict(), dwell["mean dwell (steps)"].to_dict()
    figure, ax = plt.subplots(figsize=(8, 7.6))
    draw_transitions(ax, transitions, centres, shares, images, stays)
    weak, moves = int((transitions["probability"] < LEAST_PROBABILITY).sum()), int(transitions["count"].sum())
    rare = [str(k) for k in centres if dwell["visits"][k] < LEAST_VISITS]
    left_out = f" No arrows from {', '.join(rare)}: visited fewer than {LEAST_VISITS} times." if rare else ""
    to_end = transitions["probability"][transitions.index.get_level_values("next") == END]
    ends = "" if to_end.empty else f" The episode ends after at most {to_end.max():.0%} of a cluster's stretches."
    outputs.figure(
        figure,
        "cluster_transitions",
        f"Policy of {states.meta['game']} as a graph: each cluster with its medoid in feature space, where that lies "
        f"in {states.map} space (moved apart where too close), its share of the states as area, and its mean dwell "
        f"time. Arrows: which cluster follows, of n = {moves:,} stretches; {weak} transitions below "
        f"{LEAST_PROBABILITY:.0%} are not drawn.{left_out}{ends}{_islands(study)} Unseen levels, "
        f"{states.meta['random_action']:.0%} random actions.",
        runs,
    )
    outputs.table(
        transitions,
        "cluster_transitions_table",
        "P(next cluster | cluster) over stretches, with counts and 95% intervals (environments resampled); next = −1: "
        "the episode ended.",
        runs,
    )
    outputs.table(
        dwell,
        "cluster_dwell",
        "Dwell time in each cluster over complete stretches, and how often the episode ends in it; 95% intervals "
        "(environments resampled).",
        runs,
    )
    return transitions, dwell


def save_groupings(groupings: Groupings, outputs: Outputs, runs: Runs) -> None:
    """Save codes beside other groupings: the figure, the table, how groupings agree, and what differs."""
    table, states, sample = groupings.table, groupings.study.states, min(SAMPLE, groupings.study.count)
    how = (
        f"n = {groupings.study.count:,} states of {states.meta['game']} (silhouette: {sample:,} of them), 95% "
        f"jackknife intervals over {states.meta['num_envs']} environments."
    )
    outputs.figure(
        plot_groupings(table, groupings.agreement),
        "groupings",
        "Groupings of the same states: silhouette among the features h; steps that keep the group, beyond what the "
        "states of an episode in any order would give; variance of the policy's probabilities and of values explained; "
        "adjusted Rand index with the first. For PPO: its own features, policy and values. Hollow: PPO by itself, and "
        f"states drawn from a Gaussian with the mean and covariance of h, which has no groups. {how}",
        runs,
    )
    outputs.table(table, "groupings_table", f"The same, with dwell times (steps) and the share of noise. {how}", runs)
    outputs.table(
        groupings.agreement, "grouping_agreement", f"Adjusted Rand index and NMI of every two groupings. {how}", runs
    )
    if CODES in table.index:
        outputs.table(
            groupings.differences,
            "grouping_differences",
            f"Codes minus k-means on h, and minus codes of Gaussian states; p corrected over the rows (Holm). {how}",
            runs,
        )


def save_alignment(alignment: Alignment, outputs: Outputs, runs: Runs) -> None:
    """Save concepts × groupings: the figure, and tables of what groups tell and of how codes differ."""
    states, of = alignment.states, alignment.table
    how = (
        f"n = {len(alignment.rows):,} states of {states.meta['game']} on {alignment.levels} levels; classes of a "
        f"concept are its values, quarters of a circle or thirds by quantiles, and what the frame doesn't show; those "
        f"of fewer than {LEAST_SHARE:.0%} of the states or {LEAST_LEVELS} levels aren't judged. 95% intervals "
        "resample levels; those of information leave out one at a time."
    )
    outputs.figure(
        plot_alignment(of, alignment.differences.loc[RIVAL], alignment.hidden),
        "concept_alignment",
        "What groups of states tell of the game's own concepts. Left: balanced accuracy of the concept's class from "
        "the group alone on held-out levels, from 0 (chance) to 1; middle: mutual information less its bias; right: "
        "codes minus k-means on h, filled where p < 5% (Holm over concepts). Pixels: a linear probe, which sees more "
        f"than a group. Shuffled: codes of other levels, in runs as long. °: a place in the level, which a frame "
        f"gives away by its background and walls, if at all. {how}",
        runs,
    )
    outputs.table(
        of, "concept_alignment_table", f"The same with intervals, not rescaled: chance is a column. {how}", runs
    )
    outputs.table(
        alignment.differences,
        "concept_differences",
        f"Balanced accuracy by codes minus that by other groupings; p corrected over concepts (Holm). {how}",
        runs,
    )


def save_sentences(study: ClusterStudy, outputs: Outputs, runs: Runs) -> pd.DataFrame:
    """Save which facts were chosen to tell clusters apart, and whether a reader can; returns the latter table.

    Raises:
        InterpError: the states hold no concepts, or are of too few levels.
    """
    read = read_back(study.states, study.sentences)
    outputs.table(
        facts_table(study.sentences),
        "cluster_facts",
        f"Statements that half of the levels of {study.states.meta['game']} chose for each cluster, shares of states "
        "they are true of there, the difference on a quarter of the levels (95% interval, levels resampled), and "
        f"whether that confirmed them, so that they are said. n = {study.count:,} states.",
        runs,
    )
    outputs.table(
        read,
        "sentences_read",
        "Share of states that a reader puts in the right cluster, on the last quarter of the levels (95% intervals, "
        f"levels resampled): from each cluster's facts and share alone; and what that is to be compared with. "
        f"{reading_verdict(read)}",
        runs,
    )
    return read


def save_embedding(
    study: ClusterStudy,
    outputs: Outputs,
    runs: Runs,
    *,
    tsne_states: int,
    descriptions: Mapping[int, str] | None = None,
    ppo: PPO | None = None,
) -> dict[str, str]:
    """Save all that notebook 03 shows of states; returns why a table is left out, by its name: too few states, or PPO.

    ``ppo`` is that of :class:`.Groupings`.
    """
    states, problems = study.states, {}
    rows, spaces = two_spaces(states, tsne_states)
    save_spaces(study, rows, spaces, outputs, runs)
    groupings = Groupings(study, ppo)
    tests: dict[str, Callable[[], object]] = {
        "code_usage": lambda: save_evidence(code_usage(states), "code_usage", outputs, runs),
        "space_quality": lambda: save_evidence(code_separation(states, rows, spaces), "space_quality", outputs, runs),
        "temporal_coherence": lambda: save_evidence(temporal_coherence(states), "temporal_coherence", outputs, runs),
        "code_effect": lambda: save_evidence(code_effect(study), "code_effect", outputs, runs),
        "counterfactual": lambda: save_counterfactual(Counterfactual(study), outputs, runs),
        "map_stability": lambda: save_tsne_stability(states, outputs, runs),
        "retraining": lambda: save_retraining(study, read_run(runs[0]), outputs),
        "sentences": lambda: save_sentences(study, outputs, runs),
        "alignment": lambda: save_alignment(Alignment(groupings, ALIGNED), outputs, runs),
    }
    for name, save in tests.items():
        try:
            save()
        except InterpError as problem:
            problems[name] = str(problem)
    save_cluster_outputs(study, outputs, runs, descriptions)
    save_transitions(study, outputs, runs)
    save_groupings(groupings, outputs, runs)
    return problems
