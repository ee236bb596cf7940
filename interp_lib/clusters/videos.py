"""The outputs of notebook 03 that come from episodes of an SPPO run: skill videos and sequences of clusters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from ..agents.sppo.agents import PPO
from ..agents.sppo.play import Episode, play_episodes
from ..common.errors import InterpError
from ..common.outputs import Outputs
from ..envs.procgen import Levels, ProcgenVec
from .sentences import Sentence
from .sequences import sequence_verdict, typical_sequences
from .skills import find_stretches, frames_in, stretch_clips, success_rule, successful
from .states import clusters_of

Runs = Sequence[Path]

ANIMATION_FRAMES = 48  # six seconds


def save_sequences(
    episodes: Sequence[Episode], outputs: Outputs, runs: Runs, *, length: int = 3, ending: bool = False
) -> pd.DataFrame:
    """Save which cluster sequences successful episodes and the others go through, or end with; returns the table."""
    table = typical_sequences(episodes, length=length, ending=ending, top=5 if ending else 10)
    good, other = table.attrs.values()
    outputs.table(
        table,
        "sequences_at_the_end" if ending else "sequences",
        f"{'Last' if ending else 'Consecutive'} {length} clusters (repeats collapsed) of n = {good} successful "
        f"episodes ({success_rule(episodes)}) and {other} others, the agent's own actions on unseen levels; the "
        "sequences were chosen on as many other episodes. Counts, and shares of all such sequences with 95% intervals "
        "(episodes resampled); share, shuffled: with each episode's stretches in another order; "
        f"p-values corrected over the table. {sequence_verdict(table)}",
        runs,
    )
    return table


def save_skill_videos(
    agent: PPO,
    outputs: Outputs,
    runs: Runs,
    episodes: Sequence[Episode],
    *,
    max_frames: int = 480,
    descriptions: Mapping[int, str] | None = None,
    sentences: Mapping[int, Sentence] | None = None,
) -> pd.DataFrame:
    """Film every cluster that shows up in successful ``episodes`` (MP4, 512 × 512, 8 frames/s; a small WebP beside it).

    Returns:
        a row a cluster: stretches, frames, episodes, the shortfall against ``max_frames``, and what ``descriptions``
        and ``sentences`` say of it.

    Raises:
        InterpError: the agent has no clusters.
    """
    num_codes = clusters_of(agent, "film")
    episodes = list(episodes)
    chosen, bar = successful(episodes), success_rule(episodes)
    report = []
    for k in range(num_codes):
        stretches = find_stretches(episodes, k, max_frames=max_frames)
        frames, used = frames_in(stretches), len({s.episode for s in stretches})
        missing = max(max_frames - frames, 0)
        text, concepts = (str((of or {}).get(k, "")) for of in (descriptions, sentences))
        said = {"description": text, "concepts": concepts}
        report.append(
            {"cluster": k, "stretches": len(stretches), "frames": frames, "episodes": used, "missing": missing, **said}
        )
        if stretches:
            seen = f" ({text.rstrip('.')})" if text else ""
            short = f", {missing} fewer than asked for: it seldom lasts 5 steps in them" if missing else ""
            outputs.video(
                stretch_clips(episodes, stretches, k, text),
                f"skill_{k}",
                f"Cluster {k} of {agent.config.env}{seen}: {len(stretches)} stretches of 5 to "
                f"20 steps from {used} good episodes on unseen levels ({bar}; "
                f"{len(chosen)} of {len(episodes)} episodes qualify), {frames} frames at 8 a "
                f"second{short}.{' By concepts: ' * bool(concepts)}{concepts}",
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
    num_codes = clusters_of(agent, "film")
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
