"""Skills: what the agent does while it stays in one cluster (paper, section 5.3)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from ..agents.sppo.play import Episode, replay_frames
from ..common.style import cluster_color
from ..envs.procgen import best_score

LEAST_GOOD = 5  # episodes: of fewer, a video would show one level or two


@dataclass(frozen=True)
class Stretch:
    """Consecutive steps ``start .. stop − 1`` of one episode in the same cluster."""

    episode: int
    start: int
    stop: int


def successful(episodes: Sequence[Episode]) -> list[int]:
    """Indices of the episodes with a return above 80% of the game's best score, as the reference films them.

    Where fewer than :data:`LEAST_GOOD` are, those above 80% of the best return here; :func:`success_rule` says which.
    """
    bar, _ = _bar(episodes)
    return [i for i, e in enumerate(episodes) if e.total > bar]


def success_rule(episodes: Sequence[Episode]) -> str:
    """What an episode's return has to be to count as :func:`successful`, in words."""
    return _bar(episodes)[1]


def _bar(episodes: Sequence[Episode]) -> tuple[float, str]:
    if not episodes:
        return np.inf, "no episodes"
    best = best_score(episodes[0].game, episodes[0].levels.distribution_mode)
    above = sum(e.total > 0.8 * best for e in episodes)
    if above >= LEAST_GOOD:
        return 0.8 * best, f"return above 80% of the game's best score, {best:g}"
    most = max(e.total for e in episodes)
    return min(0.8 * most, np.nextafter(most, -np.inf)), (
        f"return above 80% of the best one here, {most:.1f}, as {above or 'none'} of {len(episodes)} came above 80% of "
        f"the game's best score, {best:g}"
    )


def find_stretches(
    episodes: list[Episode], cluster: int, *, shortest: int = 5, longest: int = 20, max_frames: int = 480
) -> list[Stretch]:
    """Stretches of ``cluster`` in successful episodes, until ``max_frames`` frames are together.

    Those longer than ``longest`` are cut there; episodes take turns, so that a video shows many levels.
    """
    by_episode = []
    for index in successful(episodes):
        code = episodes[index].codes
        assert code is not None  # of an SPPO agent
        bounds = [0, *(np.flatnonzero(np.diff(code)) + 1).tolist(), len(code)]
        found = [Stretch(index, a, min(b, a + longest)) for a, b in pairwise(bounds) if code[a] == cluster]
        by_episode.append([s for s in found if s.stop - s.start >= shortest])
    chosen: list[Stretch] = []
    frames = 0
    for turn in range(max(map(len, by_episode), default=0)):
        for stretches in by_episode:
            if turn < len(stretches) and frames < max_frames:
                chosen.append(stretches[turn])
                frames += stretches[turn].stop - stretches[turn].start
    return chosen


def frames_in(stretches: list[Stretch]) -> int:
    """How many frames ``stretches`` have together."""
    return sum(s.stop - s.start for s in stretches)


def stretch_clips(
    episodes: list[Episode], stretches: list[Stretch], cluster: int, description: str = ""
) -> Iterator[np.ndarray]:
    """Render stretches in human view with a label → clips, uint8 (T, 512, 512, 3); each episode is replayed once."""
    by_episode: dict[int, list[Stretch]] = {}
    for stretch in stretches:
        by_episode.setdefault(stretch.episode, []).append(stretch)
    for index, wanted in by_episode.items():
        episode = episodes[index]
        steps = {t for stretch in wanted for t in range(stretch.start, stretch.stop)}
        frames = dict(replay_frames(episode, steps))
        for stretch in sorted(wanted, key=lambda s: s.start):
            label = f"cluster {cluster}   episode {index}   level {episode.level}   step"
            yield np.stack(
                [
                    label_frame(frames[t], f"{label} {t}", cluster_color(cluster), below=description)
                    for t in range(stretch.start, stretch.stop)
                ]
            )


def label_frame(frame: np.ndarray, text: str, color: str, *, below: str = "", bar: int = 28) -> np.ndarray:
    """A copy of ``frame`` (uint8 (H, W, 3)) with a strip of ``color`` and ``text`` along its top edge.

    Args:
        below: a second, smaller line, such as the description of a cluster; cut where the frame ends.
        bar: height of the first line in pixels.
    """
    from PIL import Image, ImageDraw, ImageFont

    image = Image.fromarray(frame)
    draw = ImageDraw.Draw(image, "RGBA")
    height = bar + (22 if below else 0)
    draw.rectangle((0, 0, image.width, height), fill=(255, 255, 255, 225))
    draw.rectangle((0, 0, 12, height), fill=color)
    draw.text((20, bar / 2), text, fill=(31, 35, 40), font=ImageFont.load_default(size=15), anchor="lm")
    if below:
        font = ImageFont.load_default(size=13)
        while font.getlength(below) > image.width - 28 and len(below) > 1:
            below = below.rstrip("…")[:-1].rstrip() + "…"
        draw.text((20, bar + 9), below, fill=(31, 35, 40), font=font, anchor="lm")
    return np.asarray(image)
