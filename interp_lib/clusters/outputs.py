"""The outputs of notebook 03 for any SPPO run: spaces, clusters, policy graph and skill videos, saved with captions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from ..agents.learning_curve import read_progress
from ..agents.registry import ALGORITHMS
from ..agents.sppo.agents import PPO
from ..agents.sppo.config import SPPOConfig
from ..agents.sppo.play import Episode, play_episodes
from ..common.errors import InterpError
from ..common.graphs import END, LEAST_PROBABILITY, LEAST_VISITS, draw_transitions
from ..common.outputs import Outputs
from ..common.tsne import tsne
from ..envs.actions import ACTION_EFFECTS
from ..envs.games import GAMES
from ..envs.procgen import Levels, ProcgenVec, normalised
from ..runs.curves import draw_seeds, label_axes
from ..runs.folder import Run
from ..runs.published import published_seeds
from .evidence import code_separation
from .figures import cluster_gallery, draw_actions, draw_space
from .skills import find_stretches, frames_in, stretch_clips, successful
from .states import StateSet, sample_rows
from .study import action_table, cluster_table, mean_images, representative_rows
from .transitions import dwell_table, transition_table, typical_sequences

ANIMATION_FRAMES = 48  # six seconds


def draw_learning_curves(env: str, runs: Sequence[Run], outputs: Outputs) -> None:
    """PPO against SPPO in the paper's form: published seeds as mean ± standard deviation, the runs here beside them.

    Left up to where the runs here end, right the whole of what was published (nothing, for most games).
    """
    import matplotlib.pyplot as plt

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


def draw_spaces(
    states: StateSet, outputs: Outputs, runs: Sequence[Path], *, tsne_states: int, seed: int = 0
) -> pd.DataFrame:
    """Draw FDR space and t-SNE space of the same states, coloured by cluster.

    Returns:
        how separate the codes are in both spaces and in feature space (:func:`.evidence.code_separation`).
    """
    import matplotlib.pyplot as plt

    rows = sample_rows(states, tsne_states, seed=seed)
    code, features = states.code[rows], states.feature[rows]
    spaces = {"FDR": states.fdr[rows], "t-SNE": tsne(features, seed=seed)}
    figure, axes = plt.subplots(1, 2, figsize=(10, 4.8))
    draw_space(axes[0], spaces["FDR"], code, f"FDR space (n = {len(rows):,} states)", axis="z")
    draw_space(axes[1], spaces["t-SNE"], code, "t-SNE of the features, same states", axis="t-SNE")
    game = states.meta["game"]
    outputs.figure(
        figure,
        "fdr_and_tsne_space",
        f"States of {game} on unseen levels in the two spaces, coloured by cluster. Left: the learned 2-D coordinates "
        f"z. Right: t-SNE (perplexity 30, PCA start) of the 256-D features of the same states. "
        f"n = {len(rows):,} states; numbers mark the median of each cluster with at least 1% of them.",
        runs,
    )
    return code_separation(states, rows, {**spaces, "features (256-D)": features})


def save_cluster_outputs(
    agent: PPO,
    states: StateSet,
    outputs: Outputs,
    runs: Sequence[Path],
    descriptions: Mapping[int, str] | None = None,
) -> pd.DataFrame:
    """Save the cluster gallery, what the policy does in each cluster, and the cluster table; returns the table."""
    import matplotlib.pyplot as plt

    game, kept = states.meta["game"], int(states.kept.sum())
    table = cluster_table(agent, states, descriptions)
    images = mean_images(states)
    frames = {k: states.frames(representative_rows(states, k)) for k in images}
    empty = [str(k) for k in table.index if not table["states"][k]]
    unused = f" Never used: cluster {', '.join(empty)}." if empty else ""
    outputs.figure(
        cluster_gallery(images, frames, table["share"].to_dict(), descriptions),
        "cluster_gallery",
        f"Each cluster's mean observation (of up to 500 states, contrast stretched) and the frames nearest to its "
        f"centre in FDR space, one a level, with its share of n = {kept:,} states. {game}, unseen levels.{unused}",
        runs,
    )
    outputs.table(
        table,
        "cluster_table",
        f"Clusters over n = {kept:,} states: share; mean dwell time with 95% interval (environments resampled); value "
        "estimate (in scaled reward, as the agent learns it) and discounted return to go (γ 0.999, raw reward, to the "
        "end of episode or recording), each with its standard deviation; the three likeliest actions under the "
        f"policy; and the description, where somebody has written one.{unused}",
        runs,
    )
    actions = action_table(agent, states)
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


def save_transitions(states: StateSet, outputs: Outputs, runs: Sequence[Path]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Save the graph of clusters and its two tables; returns them: transitions, dwell times."""
    import matplotlib.pyplot as plt

    transitions, dwell = transition_table(states), dwell_table(states)
    images = mean_images(states, per_cluster=200)
    centres = {k: np.median(states.fdr[states.kept & (states.code == k)], axis=0) for k in images}
    shares = {k: float((states.code[states.kept] == k).mean()) for k in images}
    figure, ax = plt.subplots(figsize=(8, 7.6))
    draw_transitions(ax, transitions, centres, shares, images, dwell["mean dwell (steps)"].to_dict())
    weak, moves = int((transitions["probability"] < LEAST_PROBABILITY).sum()), int(transitions["count"].sum())
    rare = [str(k) for k in centres if dwell["visits"][k] < LEAST_VISITS]
    left_out = f" No arrows from {', '.join(rare)}: visited fewer than {LEAST_VISITS} times." if rare else ""
    to_end = transitions["probability"][transitions.index.get_level_values("next") == END]
    ends = "" if to_end.empty else f" The episode ends after at most {to_end.max():.0%} of a cluster's stretches."
    outputs.figure(
        figure,
        "cluster_transitions",
        f"Policy of {states.meta['game']} as a graph: each cluster with its mean image (contrast stretched), placed by "
        "its median in FDR space (moved apart where too close), its share of the states as area, and its mean dwell "
        f"time. Arrows: which cluster follows, of n = {moves:,} stretches; {weak} transitions below "
        f"{LEAST_PROBABILITY:.0%} are not drawn.{left_out}{ends} Unseen levels, "
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


def save_sequences(
    episodes: Sequence[Episode], outputs: Outputs, runs: Sequence[Path], *, length: int = 3, ending: bool = False
) -> pd.DataFrame:
    """Save which cluster sequences successful episodes and the others go through, or end with; returns the table."""
    table = typical_sequences(episodes, length=length, ending=ending, top=5 if ending else 10)
    good, other = table.attrs.values()
    best = max(e.total for e in episodes)
    outputs.table(
        table,
        "sequences_at_the_end" if ending else "sequences",
        f"{'Last' if ending else 'Consecutive'} {length} clusters (repeats collapsed) of {good} successful episodes "
        f"(return above 80% of the best, {best:.1f}) and {other} others, the agent's own actions on unseen levels: "
        "counts, and shares of all such sequences with 95% intervals (episodes resampled).",
        runs,
    )
    return table


def save_skill_videos(
    agent: PPO,
    outputs: Outputs,
    runs: Sequence[Path],
    episodes: Sequence[Episode],
    *,
    max_frames: int = 480,
    descriptions: Mapping[int, str] | None = None,
) -> pd.DataFrame:
    """Film every cluster that shows up in successful ``episodes`` (MP4, 512 × 512, 8 frames/s; a small WebP beside it).

    Returns:
        a row a cluster: stretches, frames, episodes, and the shortfall against ``max_frames``.

    Raises:
        InterpError: the agent has no clusters.
    """
    num_codes = _must_have_clusters(agent)
    episodes = list(episodes)
    best = max(e.total for e in episodes)
    chosen = successful(episodes)
    report = []
    for k in range(num_codes):
        stretches = find_stretches(episodes, k, max_frames=max_frames)
        frames, used = frames_in(stretches), len({s.episode for s in stretches})
        missing = max(max_frames - frames, 0)
        report.append(
            {"cluster": k, "stretches": len(stretches), "frames": frames, "episodes": used, "missing": missing}
        )
        if stretches:
            text = (descriptions or {}).get(k, "")
            seen = f" ({text.rstrip('.')})" if text else ""
            short = f", {missing} fewer than asked for: it seldom lasts 5 steps in them" if missing else ""
            outputs.video(
                stretch_clips(episodes, stretches, k, text),
                f"skill_{k}",
                f"Cluster {k} of {agent.config.env}{seen}: {len(stretches)} stretches of 5 to "
                f"20 steps from {used} good episodes on unseen levels (return above 80% of the best, {best:.1f}; "
                f"{len(chosen)} of {len(episodes)} episodes qualify), {frames} frames at 8 a second{short}.",
                runs,
                fps=8,
                animation=ANIMATION_FRAMES,
            )
    return pd.DataFrame(report).set_index("cluster")


def play_for_videos(
    agent: PPO, num_episodes: int = 128, *, max_frames: int = 480, max_steps: int = 60_000, seed: int = 0
) -> list[Episode]:
    """Episodes on unseen levels with the agent's own, sampled actions, for videos and sequences.

    ``num_episodes`` of them, then more rounds as long as a cluster has fewer than ``max_frames`` frames for its video
    and fewer than ``max_steps`` steps have been taken. (The original plays for ever where a cluster never shows up in a
    good episode.) Every round is played to the end, so it may take somewhat more steps.

    Raises:
        InterpError: the agent has no clusters, or a number is not positive.
    """
    num_codes = _must_have_clusters(agent)
    if max_frames < 1:
        raise InterpError(f"the number of frames must be positive, not {max_frames}.")
    episodes: list[Episode] = []
    while True:
        wanted = num_episodes if not episodes else max(num_episodes // 2, 1)
        env = ProcgenVec(
            agent.config.env,
            int(np.clip(wanted, 1, 32)),
            Levels.unseen(agent.config),
            seed=seed + len(episodes),
        )
        try:
            episodes += play_episodes(agent, env, wanted, seed=seed + len(episodes))
        finally:
            env.close()
        short = any(
            frames_in(find_stretches(episodes, k, max_frames=max_frames)) < max_frames for k in range(num_codes)
        )
        if not short or sum(len(e.actions) for e in episodes) >= max_steps:
            return episodes


def _must_have_clusters(agent: PPO) -> int:
    if agent.algorithm != "sppo":
        raise InterpError(f"a {agent.algorithm} run has no clusters to film: only SPPO has codes. Choose an sppo run.")
    assert isinstance(agent.config, SPPOConfig)
    return agent.config.num_codes
