"""One HTML file with an episode of a ProtoSAC agent in it: which prototypes decide, at every step, without Python."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..common.errors import InterpError
from ..common.pages import ExplorerInfo, frame_geometry, render_page, sheets
from ..common.storage import write_text
from ..common.style import readable_ink
from .episode_frames import EpisodeFrames
from .likeness import summary
from .study import PrototypeStudy
from .traces import EpisodeTrace, check_agent, even_steps, playback_fps

if TYPE_CHECKING:
    from ..agents.protosac import ProtoSAC

MAX_BYTES = 6_000_000
MOST_STEPS = 250  # more would be narrower than a pixel of a phone's slider
FEWEST_STEPS = 10  # fewer are no episode any more


def export_prototype_explorer(
    agent: ProtoSAC,
    episodes: Sequence[EpisodeTrace],
    path: Path | str,
    *,
    run: str = "",
    most_steps: int = MOST_STEPS,
    max_bytes: int = MAX_BYTES,
) -> ExplorerInfo:
    """Write the prototypes of ``agent`` and one of its episodes as one self-contained HTML file.

    The episode is the one with the median return, evenly thinned out to ``most_steps`` of its steps, and further where
    the file would become too large. How often prototypes lead is counted over all decisions of all ``episodes``.

    Args:
        episodes: recorded with ``agent`` on one task, with or without frames.
        run: its name, for the page.
        most_steps: most steps the page holds.
        max_bytes: most the file may take.

    Returns:
        The size of the file, and how many steps it holds.

    Raises:
        InterpError: no episodes, episodes of another agent or an agent without prototypes, ``most_steps`` or
            ``max_bytes`` too small, or the file can't be written.
    """
    _check(agent, episodes, most_steps)
    study = PrototypeStudy(agent, list(episodes))
    trace, pictures = study.typical, sheets(study.pictures.frames)
    steps = even_steps(len(trace), most_steps)
    camera = EpisodeFrames([trace])
    frames = np.stack([camera.frame(0, step) for step in steps])
    camera.close()
    while True:
        page = _render(study, steps, pictures, sheets(frames), camera.note, run)
        size = len(page.encode())
        if size <= max_bytes:
            write_text(path, page)
            return ExplorerInfo(size, len(steps))
        if len(steps) < 2 * FEWEST_STEPS:
            raise InterpError(f"{max_bytes:,} bytes are too few for an explorer of {run or 'this agent'}.")
        steps, frames = steps[::2], frames[::2]


def _check(agent: Any, episodes: Sequence[EpisodeTrace], most_steps: int) -> None:
    if not episodes:
        raise InterpError("there are no decisions to show. Record at least one episode.")
    if most_steps < 1:
        raise InterpError(f"a page needs at least one step, not {most_steps}.")
    check_agent(agent, episodes[0].task)
    for trace in episodes:
        again = agent.explain(trace.observations[:1]).weights[0]
        if again.shape != trace.weights[0].shape or not np.allclose(again, trace.weights[0], atol=1e-3):
            raise InterpError("these episodes were recorded with other weights. Record them with this agent.")


def _render(
    study: PrototypeStudy, steps: list[int], pictures: list[str], frames: list[str], note: str, run: str
) -> str:
    trace, agent, usage, (low, high) = study.typical, study.agent, study.usage, study.bounds
    data = {
        **frame_geometry(study.pictures.frames),
        "frames": frames,
        "pictures": pictures,
        "prototypes": [_prototype(study, k) for k in range(agent.n_prototypes)],
        "order": np.lexsort((-usage.mean_weight, -usage.led)).tolist(),
        "actionNames": list(study.info.action_names),
        "low": _rounded(low),
        "high": _rounded(high),
        "episode": _episode(study, steps),
        "fps": playback_fps(study.info.name, steps),
    }
    return render_page(
        "prototypes/page.html.j2",
        data=data,
        task=study.info.gym_id,
        run=run,
        timesteps=agent.num_timesteps,
        prototypes=agent.n_prototypes,
        used=int((usage.led > 0).sum()),
        blend=agent.mixture == "blend",
        shared=float(usage.per_decision.mean()),
        decisions=len(usage.per_decision),
        episodes=len(study.traces),
        seed=trace.seed,
        length=len(trace),
        stride=steps[1] - steps[0] if len(steps) > 1 else 1,
        shown=len(steps),
        total=trace.total,
        likeness=summary(study.likeness),
        frames_note=note,
        pictures_note=study.pictures.note,
    )


def _prototype(study: PrototypeStudy, k: int) -> dict[str, Any]:
    """A prototype's colour, usage and action alone, with the central 90% of its Gaussian."""
    row, color, (low, high) = study.table.loc[f"P{k}"], study.colors[k], study.action_intervals
    leads = row["led"] > 0  # JSON knows no NaN
    return {
        "color": color,
        "ink": readable_ink(color),
        "caption": study.pictures.captions[k],
        "led": round(float(row["led"]), 5),
        "meanWeight": round(float(row["mean_weight"]), 5),
        "action": _rounded(study.agent.prototypes.actions[k]),
        "low": _rounded(low[k]),
        "high": _rounded(high[k]),
        "when": round(float(row["when"]), 3) if leads else None,
        "value": round(float(row["value"]), 2) if leads else None,
    }


def _episode(study: PrototypeStudy, kept: list[int]) -> dict[str, Any]:
    """What there is to say about the kept steps of the episode that is shown."""
    trace, values = study.typical, study.values[study.typical_episode]
    return {
        "step": kept,
        "weights": _rounded(trace.weights[kept]),
        "actions": _rounded(trace.actions[kept]),
        "soFar": _rounded(np.cumsum(trace.rewards)[kept], 1),
        "value": _rounded(values[kept], 2),
        "caption": [trace.caption(step) for step in kept],
    }


def _rounded(values: np.ndarray, digits: int = 4) -> list[Any]:
    return np.round(np.asarray(values, dtype=np.float64), digits).tolist()
