"""The outputs of notebook 03 for any SPPO run: spaces, clusters and skill videos, saved with captions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from .embedding import (
    StateSet,
    cluster_quality,
    cluster_table,
    mean_images,
    representative_rows,
    sample_rows,
    tsne,
)
from .envs.procgen import ProcgenVec
from .errors import InterpError
from .evaluation import procgen_levels
from .outputs import Outputs
from .plots.clusters import cluster_gallery, draw_space
from .semantic.agents import PPO
from .semantic.play import Episode, play_episodes
from .skill_videos import find_stretches, stretch_clips, successful


def draw_spaces(
    states: StateSet, outputs: Outputs, runs: Sequence[Path], *, tsne_states: int, seed: int = 0
) -> pd.DataFrame:
    """Draw FDR space and t-SNE space of the same states, coloured by cluster; returns their quality, a row a space."""
    import matplotlib.pyplot as plt

    rows = sample_rows(states, tsne_states, seed=seed)
    code = states.code[rows]
    spaces = {"FDR": states.fdr[rows], "t-SNE": tsne(states.feature[rows], seed=seed)}
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
    return cluster_quality(states, rows, spaces)


def save_cluster_outputs(states: StateSet, outputs: Outputs, runs: Sequence[Path]) -> pd.DataFrame:
    """Save the cluster gallery and the cluster table; returns the table."""
    table = cluster_table(states)
    images = mean_images(states)
    frames = {k: states.frames(representative_rows(states, k)) for k in images}
    kept = int(states.kept.sum())
    outputs.figure(
        cluster_gallery(images, frames, table["share"].to_dict()),
        "cluster_gallery",
        f"Each cluster's mean observation (of up to 500 states) and the frames nearest to its centre in FDR space, one "
        f"a level, with its share of n = {kept:,} states. {states.meta['game']}, unseen levels.",
        runs,
    )
    outputs.table(
        table,
        "cluster_table",
        f"Clusters over n = {kept:,} states: share, mean dwell time, value estimate (in scaled reward, as the "
        "agent learns it), discounted return to go (γ 0.999, raw reward, to the end of episode or recording) and the "
        "three most frequent actions.",
        runs,
    )
    return table


def save_skill_videos(
    agent: PPO, outputs: Outputs, runs: Sequence[Path], num_episodes: int, max_frames: int, *, seed: int = 0
) -> pd.DataFrame:
    """Film every cluster that shows up in successful episodes (MP4, 512 × 512, 8 frames/s).

    Returns:
        a row a cluster: stretches, frames, episodes, and the shortfall against ``max_frames``.

    Raises:
        InterpError: the agent has no clusters.
    """
    if agent.algorithm != "sppo":
        raise InterpError(f"a {agent.algorithm} run has no clusters to film: only SPPO has codes. Choose an sppo run.")
    episodes = play_for_videos(agent, num_episodes, seed=seed)
    best = max(e.total for e in episodes)
    chosen = successful(episodes)
    report = []
    for k in range(agent.config.num_codes):
        stretches = find_stretches(episodes, k, max_frames=max_frames)
        frames = sum(s.stop - s.start for s in stretches)
        used = len({s.episode for s in stretches})
        report.append(
            {
                "cluster": k,
                "stretches": len(stretches),
                "frames": frames,
                "episodes": used,
                "missing": max(max_frames - frames, 0),
            }
        )
        if stretches:
            outputs.video(
                stretch_clips(episodes, stretches, k),
                f"skill_{k}",
                f"Cluster {k} of {agent.config.env}: {len(stretches)} stretches of 5 to 20 steps from {used} good "
                f"episodes on unseen levels (return above 80% of the best, {best:.1f}; {len(chosen)} of "
                f"{len(episodes)} episodes qualify), {frames} frames at 8 a second.",
                runs,
                fps=8,
            )
    return pd.DataFrame(report).set_index("cluster")


def play_for_videos(agent: PPO, num_episodes: int, *, seed: int = 0) -> list[Episode]:
    """Episodes on unseen levels with the agent's own, sampled actions."""
    env = ProcgenVec(
        agent.config.env, int(np.clip(num_episodes, 1, 32)), seed=seed, **procgen_levels(agent.config, "unseen")
    )
    try:
        return play_episodes(agent, env, num_episodes, seed=seed)
    finally:
        env.close()
