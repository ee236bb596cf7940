"""Skills: what the agent does while it stays in one cluster (paper, section 5.3), and in which order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd

from ..agents.sppo.play import Episode, replay_frames
from ..common.statistics import NOTHING, columns, ratio_interval
from ..common.style import cluster_color

ARROW = " → "


@dataclass(frozen=True)
class Stretch:
    """Consecutive steps ``start .. stop − 1`` of one episode in the same cluster."""

    episode: int
    start: int
    stop: int


def successful(episodes: list[Episode], fraction: float = 0.8) -> list[int]:
    """Indices of the episodes with a return above ``fraction`` of the best one's."""
    if not episodes:
        return []
    best = max(e.total for e in episodes)
    return [i for i, e in enumerate(episodes) if e.total > fraction * best or e.total == best]


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


def typical_sequences(
    episodes: Sequence[Episode], *, length: int = 3, top: int = 10, ending: bool = False
) -> pd.DataFrame:
    """Which clusters follow each other in successful episodes (:func:`successful`) and in the others.

    An episode's codes, repeats collapsed, are read through a window of ``length`` clusters. Shares are of all windows
    of such episodes, so that long episodes, which have more of everything, don't count as different.

    Args:
        top: how many sequences of either kind of episode to show, the most frequent.
        ending: only the last window of each episode: what it ends with.

    Returns:
        index sequence (``7 → 1 → 5``), the one most typical of success first; count and share for either kind, with
        95% intervals that resample episodes; ``attrs`` has the numbers of episodes. Shorter episodes have no window.
    """
    good = set(successful(list(episodes)))
    counts: dict[str, list[Counter]] = {"successful": [], "other": []}
    for index, episode in enumerate(episodes):
        assert episode.codes is not None  # of an SPPO agent
        path = collapse(episode.codes)
        windows = [tuple(path[i : i + length].tolist()) for i in range(len(path) - length + 1)]
        counts["successful" if index in good else "other"].append(Counter(windows[-1:] if ending else windows))
    totals = {kind: sum(of, Counter()) for kind, of in counts.items()}
    shown = {window for total in totals.values() for window, _ in total.most_common(top)}
    rows = {}
    for window in sorted(shown):
        row: dict[str, float] = {}
        for kind, of in counts.items():
            share = ratio_interval(*(np.array(x) for x in ([c[window] for c in of], [c.total() for c in of])))
            row |= {f"{kind}: count": totals[kind][window], **columns(f"{kind}: share", share)}
        rows[ARROW.join(map(str, window))] = row
    names = [f"{kind}: count" for kind in counts]
    empty = [name for kind in counts for name in (f"{kind}: count", *columns(f"{kind}: share", NOTHING))]
    table = pd.DataFrame.from_dict(rows, orient="index", columns=None if rows else empty).rename_axis("sequence")
    table.attrs = {kind: len(of) for kind, of in counts.items()}
    difference = table["successful: share"].fillna(0) - table["other: share"].fillna(0)
    return table.loc[difference.sort_values(ascending=False, kind="stable").index].astype(dict.fromkeys(names, int))


def collapse(codes: np.ndarray) -> np.ndarray:
    """``codes`` (T,) without repeats: 7 7 1 1 1 7 → 7 1 7."""
    codes = np.asarray(codes)
    return codes[np.append(True, codes[1:] != codes[:-1])[: len(codes)]]
