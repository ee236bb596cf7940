"""One HTML file with everything in it: hover over an agent's states and see them, without Python or a network."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..agents.sppo.agents import PPO
from ..agents.sppo.config import PAPER_TIMESTEPS
from ..common.errors import InterpError
from ..common.pages import ExplorerInfo, frame_geometry, render_page, sheets
from ..common.storage import write_text
from ..common.style import cluster_color, readable_ink
from ..common.tsne import tsne
from ..envs.actions import ACTION_EFFECTS, NUM_ACTIONS, effect_of
from ..envs.names import env_title
from .states import StateSet, episode_steps, sample_rows
from .study import ClusterStudy

MAX_BYTES = 8_000_000  # still a mail attachment
MOST_STATES = 4_000  # more would hide each other on a phone
TSNE_LEAST = 200  # below, t-SNE with its usual perplexity says little


def export_explorer(
    agent: PPO,
    states: StateSet,
    path: Path | str,
    *,
    descriptions: Mapping[int, str] | None = None,
    with_tsne: bool = True,
    max_bytes: int = MAX_BYTES,
    seed: int = 0,
) -> ExplorerInfo:
    """Write the states of ``agent`` as one self-contained HTML file.

    It holds as many random kept states as fit (at most 4,000), three clips of each cluster, statistics over all kept
    states, ``descriptions``, and what the game's concepts say of each cluster.

    Args:
        with_tsne: also offer the t-SNE space of the same states (seconds; left out below 200 states).
        max_bytes: most the file may take.

    Raises:
        InterpError: states of another agent, nothing kept, ``max_bytes`` too small, or the file can't be written.
    """
    study = ClusterStudy(agent, states).checked()
    if not states.kept.any():
        raise InterpError(f"{states.path} has no kept states to show. Collect more: interp embed RUN")
    clusters, tiles = _clusters(study, descriptions or {}, seed)
    clip_sheets = sheets(tiles)
    fixed = {"clusters": clusters, "clipSheets": clip_sheets, **frame_geometry(tiles)}
    room = max_bytes - sum(map(len, clip_sheets)) - 100_000  # the page itself and its text
    probe = sample_rows(states, 200, seed=seed)
    per_state = sum(map(len, sheets(states.frames(probe)))) / len(probe) + 120  # coordinates, facts, probabilities
    while True:
        if room < per_state:
            raise InterpError(f"{max_bytes:,} bytes are too few for an explorer of {states.meta['run']}.")
        rows = sample_rows(states, min(int(room / per_state), MOST_STATES), seed=seed)
        frames = sheets(states.frames(rows))
        if sum(map(len, frames)) + 120 * len(rows) <= room:
            break
        per_state *= 1.03  # these frames are harder to compress than those tried
    page = _render(study, rows, {**fixed, "sheets": frames}, with_tsne, seed)
    write_text(path, page)
    return ExplorerInfo(len(page.encode()), len(rows))


def _clusters(
    study: ClusterStudy, descriptions: Mapping[int, str], seed: int
) -> tuple[list[dict[str, Any]], np.ndarray]:
    """Each cluster's facts, and the tiles (n, 64, 64, 3) of its mean image and clips, which the facts point into."""
    states, steps = study.states, episode_steps(study.states)
    clusters: list[dict[str, Any]] = []
    tiles: list[np.ndarray] = []
    for k in range(states.num_codes):
        group = study.cluster(k)
        cluster: dict[str, Any] = {
            "k": k, "color": cluster_color(k), "ink": readable_ink(cluster_color(k)), "states": group.count,
            "share": group.share, "levels": group.levels, "description": descriptions.get(k, ""),
            "concepts": str(study.sentences.get(k, "")), "clips": [],
        }  # fmt: skip
        mean = study.mean_image(study.rows(k))
        if mean is not None and group.dwell is not None:
            cluster |= {
                "dwell": round(group.dwell, 1), "value": round(group.value, 2), "whole": group.whole,
                "wholeValue": round(group.whole_value, 2) if group.whole else None,
                "toGo": round(group.return_to_go, 2) if group.whole else None,
                "mean": len(tiles), "actions": [round(float(share), 4) for share in group.actions],
            }  # fmt: skip
            tiles.append(mean)
            for clip in study.cluster_clips(k, seed=seed):
                level, step = int(states.level[clip[0]]), int(steps[clip[0]])
                cluster["clips"].append({"first": len(tiles), "length": len(clip), "level": level, "step": step})
                tiles.extend(states.frames(clip))
        clusters.append(cluster)
    return clusters, np.stack(tiles)


def _render(study: ClusterStudy, rows: np.ndarray, fixed: Mapping[str, Any], with_tsne: bool, seed: int) -> str:
    states = study.states
    spaces = {"FDR": states.fdr[rows]}
    if with_tsne and len(rows) >= TSNE_LEAST:
        spaces["t-SNE"] = tsne(states.feature[rows], seed=seed)
    game = states.meta["game"]
    effects = list(ACTION_EFFECTS[game])
    index = np.array([effects.index(effect_of(game, action)) for action in range(NUM_ACTIONS)])
    probabilities = np.round(255 * study.effects[rows]).astype(np.uint8)
    data = {
        **fixed,
        "actionNames": effects,
        "spaces": {name: np.round(points, 3).T.tolist() for name, points in spaces.items()},
        "code": states.code[rows].tolist(),
        "level": states.level[rows].tolist(),
        "step": episode_steps(states)[rows].tolist(),
        "action": index[states.action[rows]].tolist(),
        "value": np.round(study.values[rows], 2).tolist(),
        "probabilities": base64.b64encode(probabilities.tobytes()).decode(),
    }
    return render_page(
        "clusters/page.html.j2",
        data=data,
        game=game,
        game_title=env_title(game),
        run=states.meta["run"],
        timesteps=states.meta["timesteps"],
        paper_timesteps=PAPER_TIMESTEPS,
        shown=len(rows),
        kept=study.count,
        unit=study.unit,
        random_action=states.meta["random_action"],
    )
