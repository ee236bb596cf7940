"""Video files from frames: MP4 for the report and talks, small animated GIF or WebP for a README."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .errors import InterpError
from .storage import atomic_write, scratch_folder


class VideoInfo(NamedTuple):
    """Size in pixels and number of frames of a video that was written."""

    width: int
    height: int
    frames: int


def iterate_frames(frames: Iterable[Any]) -> Iterator[np.ndarray]:
    """Yield uint8 (H, W, 3) frames from frames or from clips, which are joined end to end.

    Args:
        frames: frames, uint8 (H, W, 3), or clips: arrays (T, H, W, 3) or lists of frames. Consumed one by one.

    Raises:
        ValueError: something in there is neither a frame nor a clip, or frames differ in size.
    """
    shape = None
    for item in frames:
        array = np.asarray(item)
        if array.dtype != np.uint8 or array.ndim not in (3, 4) or array.shape[-1] != 3:
            raise ValueError(f"a frame is uint8 (H, W, 3), a clip (T, H, W, 3); got {array.dtype} {array.shape}")
        shape = shape or array.shape[-3:]
        if array.shape[-3:] != shape:
            raise ValueError(f"all frames of a video have one size; got {array.shape[-3:]} after {shape}")
        yield from array if array.ndim == 4 else (array,)


def write_mp4(path: Path | str, frames: Iterable[Any], fps: float) -> VideoInfo:
    """Write an MP4 that every browser plays: H.264, yuv420p, index in front so that it starts while loading.

    Odd sizes are made even by repeating the last row or column. Colours are tagged BT.709. One encoder thread and
    no version tags: the same frames give the same bytes, whatever the number of cores.

    Args:
        path: where to write; replaced atomically.
        frames: see `iterate_frames`. Only a few are held in memory.
        fps: frames a second.

    Raises:
        InterpError: there are no frames, or the file can't be written.
        ValueError: bad frames, frames of different sizes, or ``fps`` not positive.
    """
    if fps <= 0:
        raise ValueError(f"fps must be positive, got {fps}")
    # The muxer reopens its file by name to move the index to the front, so it needs a real file, not a stream.
    with scratch_folder() as folder:
        encoded = folder / "video.mp4"
        try:
            info = _encode(encoded, map(_even, iterate_frames(frames)), fps)
        except StopIteration:
            raise InterpError(f"no frames to write to {path}: the episodes behind this video are empty.") from None
        with atomic_write(path) as target, encoded.open("rb") as source:
            shutil.copyfileobj(source, target)
    return info


def write_animation(path: Path | str, frames: Iterable[Any], fps: float, *, width: int | None = None) -> VideoInfo:
    """Write an endlessly looping animation where no video player is at hand, such as a README.

    Args:
        path: ends in ``.gif`` or ``.webp`` (a third of the size, no 256-colour limit).
        frames: see `iterate_frames`.
        fps: frames a second; GIF rounds the delay to 1/100 s.
        width: pixels; the height follows. None keeps the size of the frames.

    Raises:
        InterpError: there are no frames, or the file can't be written.
        ValueError: bad frames, frames of different sizes, or another file type.
    """
    from PIL import Image

    path = Path(path)
    if path.suffix not in (".gif", ".webp"):
        raise ValueError(f"an animation is a .gif or .webp file, not {path.name}")
    images = [Image.fromarray(frame) for frame in iterate_frames(frames)]
    if not images:
        raise InterpError(f"no frames to write to {path}: the episodes behind this animation are empty.")
    if width is not None:
        size = (width, round(images[0].height * width / images[0].width))
        # Enlarged game frames should show their pixels; shrinking needs averaging.
        how = Image.Resampling.NEAREST if width > images[0].width else Image.Resampling.LANCZOS
        images = [image.resize(size, how) for image in images]
    # Not the slowest of its methods: for 3% less it takes 16 times as long.
    options = {"method": 4, "quality": 85} if path.suffix == ".webp" else {"optimize": True}
    kind, duration = path.suffix[1:].upper(), round(1000 / fps)
    with atomic_write(path) as file:
        images[0].save(file, format=kind, save_all=True, append_images=images[1:], duration=duration, loop=0, **options)
    return VideoInfo(images[0].width, images[0].height, len(images))


def _encode(path: Path, frames: Iterator[np.ndarray], fps: float) -> VideoInfo:
    import av
    from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc

    first = next(frames)
    height, width = first.shape[:2]
    container_options = {"movflags": "+faststart", "fflags": "+bitexact"}
    with av.open(str(path), "w", format="mp4", options=container_options) as container:
        # crf 18 is visually lossless; flat game graphics compress well even so. No macroblock tree: for small pictures
        # its vector code reads memory nobody wrote, and the same frames then gave other bytes one time in fifty.
        options = {"crf": "18", "preset": "medium", "x264-params": "mbtree=0"}
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1000), options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        context = stream.codec_context
        context.thread_count = 1
        context.colorspace, context.color_range = Colorspace.ITU709, ColorRange.MPEG
        context.color_primaries, context.color_trc = ColorPrimaries.BT709, ColorTrc.BT709
        count = 0
        for count, array in enumerate(itertools.chain([first], frames), start=1):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(array), format="rgb24")
            frame = frame.reformat(format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG)
            frame.pts = count - 1
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return VideoInfo(width, height, count)


def _even(frame: np.ndarray) -> np.ndarray:
    odd = [side % 2 for side in frame.shape[:2]]
    return np.pad(frame, [(0, odd[0]), (0, odd[1]), (0, 0)], mode="edge") if any(odd) else frame
