"""Frames of a video that explains an episode: the state, the prototypes that decide, the action, who leads when."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageColor, ImageDraw

from ..common.labels import percent
from ..common.style import GRID, INK, MUTED, picture_font
from .traces import EpisodeTrace

if TYPE_CHECKING:
    from .study import PrototypeStudy


def explained_frames(
    study: PrototypeStudy, trace: EpisodeTrace, *, top: int = 3, height: int = 480
) -> Iterator[np.ndarray]:
    """Frames of an explained episode: the state, its top prototypes with their weights, the action, a timeline.

    Args:
        trace: an episode with frames (:func:`~interp_lib.prototypes.traces.with_frames`); one frame a rendered step.
        top: how many prototypes to show.
        height: of the state's picture in pixels.

    Yields:
        uint8 (rows, columns, 3), all of one even size.
    """
    assert trace.frames is not None
    pictures, colors, action_names, (low, high) = study.pictures, study.colors, study.info.action_names, study.bounds
    frame_height, frame_width = trace.frames.shape[1:3]
    width = round(height * frame_width / frame_height)
    # Layout: state at the left, prototypes at the right, actions under the prototypes, timeline along the bottom.
    pad, side, strip = 16, 380, 58
    n_actions = min(len(action_names), 6)
    action_rows = 26 * n_actions + 22
    total_width, total_height = _even(width + side + 3 * pad), _even(height + strip + 3 * pad)
    slot = (height - action_rows - 26) // top
    thumb_height = slot - 14
    thumb_width = min(round(thumb_height * pictures.frames.shape[2] / pictures.frames.shape[1]), 170)
    thumb_height = round(thumb_width * pictures.frames.shape[1] / pictures.frames.shape[2])
    thumbs = [Image.fromarray(p).resize((thumb_width, thumb_height), Image.Resampling.BOX) for p in pictures.frames]
    timeline = Image.fromarray(leader_strip(trace, colors))
    timeline = timeline.resize((total_width - 2 * pad, 18), Image.Resampling.NEAREST)
    returns = np.cumsum(trace.rewards)
    x0 = width + 2 * pad

    for frame, step in zip(trace.frames, trace.frame_steps, strict=True):
        canvas = Image.new("RGB", (total_width, total_height), "white")
        draw = ImageDraw.Draw(canvas)
        canvas.paste(Image.fromarray(frame).resize((width, height), Image.Resampling.LANCZOS), (pad, pad))
        draw.rectangle((pad, pad, pad + width - 1, pad + height - 1), outline=GRID)
        draw.text((x0, pad + 2), "This state looks like …", fill=INK, font=picture_font(17, bold=True))
        weights = trace.weights[step]
        for rank, k in enumerate(np.argsort(-weights, kind="stable")[:top]):
            y = pad + 30 + rank * slot
            canvas.paste(thumbs[k], (x0, y))
            draw.rectangle((x0, y, x0 + thumb_width - 1, y + thumb_height - 1), outline=colors[k], width=3)
            text_x, bar = x0 + thumb_width + 12, x0 + side
            middle = y + thumb_height / 2
            draw.text((text_x, middle - 22), f"P{k}", fill=INK, font=picture_font(16, bold=True), anchor="lm")
            draw.text((bar, middle - 22), percent(weights[k]), fill=INK, font=picture_font(16), anchor="rm")
            draw.text((text_x, middle + 22), pictures.captions[k], fill=MUTED, font=picture_font(12), anchor="lm")
            box = (text_x, middle - 8, bar, middle + 8)
            draw.rectangle(box, fill=GRID)
            if weights[k] * (bar - text_x) >= 1:
                draw.rectangle((*box[:2], text_x + weights[k] * (bar - text_x), box[3]), fill=colors[k])
        y = pad + height - action_rows
        draw.text((x0, y), "… so it does this", fill=INK, font=picture_font(17, bold=True))
        if n_actions < len(action_names):
            some = f"first {n_actions} of {len(action_names)} actions"
            draw.text((x0 + side, y + 10), some, fill=MUTED, font=picture_font(12), anchor="rm")
        for i in range(n_actions):
            row = (x0, y + 26 * i + 36, x0 + side)
            _draw_action_row(draw, row, action_names[i], trace.actions[step, i], low[i], high[i])
        y = height + 2 * pad
        draw.text((pad, y + 8), f"step {step}", fill=INK, font=picture_font(14), anchor="lm")
        draw.text((pad + 90, y + 8), f"return so far {returns[step]:.1f}", fill=INK, font=picture_font(14), anchor="lm")
        draw.text((x0 - pad, y + 8), trace.caption(step), fill=MUTED, font=picture_font(13), anchor="rm")
        legend = "colour below: leading prototype"
        draw.text((total_width - pad, y + 8), legend, fill=MUTED, font=picture_font(12), anchor="rm")
        canvas.paste(timeline, (pad, y + 24))
        now = pad + (step + 0.5) / len(trace) * timeline.width
        draw.rectangle((now - 2, y + 20, now + 2, y + 46), fill=INK, outline="white")
        yield np.asarray(canvas)


def leader_strip(trace: EpisodeTrace, colors: Sequence[str]) -> np.ndarray:
    """Who leads, one pixel of its colour a step: uint8 (1, T, 3)."""
    palette = np.array([ImageColor.getrgb(color) for color in colors], dtype=np.uint8)
    return palette[trace.leading][None]


def _draw_action_row(
    draw: ImageDraw.ImageDraw, box: tuple[float, float, float], name: str, value: float, low: float, high: float
) -> None:
    left, y, right = box
    start, end = left + 130, right - 58
    draw.text((left, y), name[:18], fill=INK, font=picture_font(13), anchor="lm")
    draw.rectangle((start, y - 6, end, y + 6), fill=GRID)
    zero = start + (min(max(0.0, low), high) - low) / (high - low) * (end - start)
    tip = start + (value - low) / (high - low) * (end - start)
    draw.rectangle((min(zero, tip), y - 6, max(zero, tip), y + 6), fill=MUTED)
    draw.line((zero, y - 9, zero, y + 9), fill=INK)
    draw.text((right, y), f"{value:+.2f}", fill=INK, font=picture_font(13), anchor="rm")


def _even(length: int) -> int:
    return length + length % 2
