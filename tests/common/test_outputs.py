"""Outputs, their sidecars, the video files and the figure style."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import av
import matplotlib
import numpy as np
import pandas
import pytest
from matplotlib.figure import Figure

from interp_lib.agents.registry import ALGORITHMS
from interp_lib.common.errors import InterpError
from interp_lib.common.outputs import Outputs, clear_outputs, read_table, saved_outputs
from interp_lib.common.style import CLUSTER_COLORS, PUBLISHED, cluster_color, use_style
from interp_lib.common.videos import write_animation, write_mp4


def line_figure(values=(1, 3, 2)) -> Figure:
    figure = Figure(figsize=(3, 2))
    figure.subplots().plot(values)
    return figure


def moving_square(count: int, height: int = 64, width: int = 64):
    """Frames that differ from each other: a red square walking over a blue ground."""
    for t in range(count):
        frame = np.zeros((height, width, 3), np.uint8)
        frame[...] = (20, 60, 200)
        frame[16:48, t : t + 32] = (220, 40, 30)
        yield frame


def decode(path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


# --- videos


def test_mp4_plays_back_the_frames_it_was_given(tmp_path):
    info = write_mp4(tmp_path / "v.mp4", moving_square(13), fps=8)
    frames = decode(tmp_path / "v.mp4")
    assert info == (64, 64, 13)
    assert len(frames) == 13
    # Inside the square and on the ground, away from the blurred edge: colours survive 4:2:0 and the BT.709 round trip.
    for t, frame in enumerate(frames):
        assert np.abs(frame[30, t + 16].astype(int) - (220, 40, 30)).max() < 12
        assert np.abs(frame[4, 4].astype(int) - (20, 60, 200)).max() < 12
    with av.open(str(tmp_path / "v.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert float(stream.duration * stream.time_base) == pytest.approx(13 / 8)


def test_mp4_starts_while_loading(tmp_path):
    write_mp4(tmp_path / "v.mp4", moving_square(5), fps=8)
    data = (tmp_path / "v.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")


def test_mp4_has_the_same_bytes_whatever_lies_in_fresh_memory(tmp_path):
    # glibc fills every new allocation with the given byte: an encoder that reads what it never wrote shows itself.
    write = "import sys, test_outputs as t; t.write_mp4(sys.argv[1], t.moving_square(40), fps=8)"
    for byte in ("1", "255"):
        environment = {**os.environ, "MALLOC_PERTURB_": byte, "PYTHONPATH": str(Path(__file__).parent)}
        subprocess.run([sys.executable, "-c", write, tmp_path / f"{byte}.mp4"], env=environment, check=True)
    assert (tmp_path / "1.mp4").read_bytes() == (tmp_path / "255.mp4").read_bytes()


def test_mp4_pads_odd_sizes_and_joins_clips(tmp_path):
    clip = np.stack(list(moving_square(3, 63, 95)))
    info = write_mp4(tmp_path / "v.mp4", [clip, list(clip), clip[0]], fps=4)
    assert info == (96, 64, 7)
    assert decode(tmp_path / "v.mp4")[0].shape == (64, 96, 3)


def test_a_video_that_fails_leaves_the_old_one(tmp_path):
    path = tmp_path / "v.mp4"
    write_mp4(path, moving_square(3), fps=8)
    before = path.read_bytes()
    with pytest.raises(ValueError, match="one size"):
        write_mp4(path, itertools.chain(moving_square(2), moving_square(1, 32, 32)), fps=8)
    with pytest.raises(ValueError, match="uint8"):
        write_mp4(path, [np.zeros((8, 8, 3))], fps=8)
    with pytest.raises(InterpError, match="no frames"):
        write_mp4(path, [], fps=8)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("suffix", [".gif", ".webp"])
def test_animation_holds_every_frame_at_the_asked_width(tmp_path, suffix):
    from PIL import Image

    path = tmp_path / f"a{suffix}"
    assert write_animation(path, moving_square(6), fps=8, width=32) == (32, 32, 6)
    with Image.open(path) as image:
        assert (image.n_frames, image.size, image.info["loop"]) == (6, (32, 32), 0)
    with pytest.raises(ValueError, match="gif or .webp"):
        write_animation(tmp_path / "a.png", moving_square(1), fps=8)


# --- outputs


def test_sidecar_says_where_an_output_came_from(tmp_path):
    run = tmp_path / "checkpoints" / "sppo-ninja-s2021"
    run.mkdir(parents=True)
    parameters = {"profile": "quick", "figures_dir": str(tmp_path), "seeds": (0, 1), "folder": run}
    outputs = Outputs(tmp_path / "figures", "03_embed.ipynb", parameters=parameters)
    path = outputs.figure(line_figure(), "scatter", "Two  lines\n of caption.", [run, "ppo-ninja-s2021"])
    assert path == tmp_path / "figures/03_embed/scatter.png"

    sidecar = json.loads(path.with_suffix(".json").read_text())
    assert (sidecar["kind"], sidecar["caption"], sidecar["notebook"]) == ("figure", "Two lines of caption.", "03_embed")
    assert sidecar["runs"] == [
        {"name": "sppo-ninja-s2021", "folder": "../checkpoints/sppo-ninja-s2021"},
        {"name": "ppo-ninja-s2021", "folder": None},
    ]
    assert sidecar["parameters"] == {"profile": "quick", "seeds": [0, 1], "folder": str(run)}
    assert list(sidecar["files"]) == ["scatter.png", "scatter.pdf"]
    for file, digest in sidecar["files"].items():
        assert hashlib.sha256((path.parent / file).read_bytes()).hexdigest() == digest


def test_the_same_figure_gives_the_same_bytes_at_300_dpi(tmp_path):
    from PIL import Image

    for place in ("a", "b"):
        Outputs(tmp_path / place, "n").figure(line_figure(), "f", "")
    for file in ("f.png", "f.pdf"):
        assert (tmp_path / "a/n" / file).read_bytes() == (tmp_path / "b/n" / file).read_bytes()
    assert Image.open(tmp_path / "a/n/f.png").info["dpi"] == pytest.approx((300, 300), abs=0.1)


def test_outputs_come_back_in_the_order_they_were_made(tmp_path):
    outputs = Outputs(tmp_path, "01_train")
    outputs.image(np.zeros((4, 6, 3), np.uint8), "z", "first")
    outputs.video(moving_square(3, 10, 12), "y", "second", fps=2)
    outputs.table(pandas.DataFrame({"a": [1, 2.5]}), "x", "third")
    outputs.image(np.ones((4, 6), np.uint8), "z", "first, again")  # as when a cell is run twice
    (tmp_path / "01_train" / "notes.json").write_text("[]")

    found = saved_outputs(tmp_path)["01_train"]
    assert [(o.name, o.kind, o.caption) for o in found] == [
        ("z", "image", "first, again"),
        ("y", "video", "second"),
        ("x", "table", "third"),
    ]
    assert (found[1].width, found[1].height, list(found[1].files)) == (12, 10, ["y.mp4", "y.poster.png"])


def test_replacing_and_clearing_leave_nothing_stale(tmp_path):
    outputs = Outputs(tmp_path, "01_train")
    outputs.figure(line_figure(), "f", "with a PDF")
    outputs.figure(line_figure(), "f", "without", pdf=False)
    assert {p.name for p in (tmp_path / "01_train").iterdir()} == {"f.png", "f.json"}

    with pytest.raises(InterpError, match="no frames"):
        outputs.video([], "f", "a failed one takes the name's sidecar with it")
    assert saved_outputs(tmp_path) == {}

    outputs.image(np.zeros((4, 6, 3), np.uint8), "g", "")
    (tmp_path / "01_train" / "mine.txt").write_text("kept")
    (tmp_path / "01_train" / "f.png").unlink()
    clear_outputs(tmp_path, "notebooks/01_train.ipynb")
    assert [p.name for p in (tmp_path / "01_train").iterdir()] == ["mine.txt"]
    clear_outputs(tmp_path, "02_never_run")


def test_a_damaged_sidecar_is_named_and_goes_with_the_next_run(tmp_path):
    Outputs(tmp_path, "n").image(np.zeros((4, 6, 3), np.uint8), "g", "")
    (tmp_path / "n" / "g.json").write_text("{")
    with pytest.raises(InterpError, match="g.json can't be read"):
        saved_outputs(tmp_path)
    clear_outputs(tmp_path, "n")
    assert saved_outputs(tmp_path) == {}


def test_a_table_keeps_its_precision_and_a_named_index(tmp_path):
    frame = pandas.DataFrame({"return": [1 / 3, 7.0]}, index=pandas.Index(["ppo", "sppo, ours"], name="method"))
    header, rows = read_table(Outputs(tmp_path, "n").table(frame, "t", ""))
    assert header == ["method", "return"]
    assert rows == [["ppo", repr(1 / 3)], ["sppo, ours", "7.0"]]


def test_an_output_whose_file_is_gone_or_whose_name_is_a_path_is_refused(tmp_path):
    outputs = Outputs(tmp_path, "n")
    outputs.image(np.zeros((4, 6, 3), np.uint8), "g", "").unlink()
    with pytest.raises(InterpError, match="g.png is missing"):
        saved_outputs(tmp_path)
    with pytest.raises(ValueError, match="output name"):
        outputs.image(np.zeros((4, 6, 3), np.uint8), "../g", "")


# --- style

SIMULATED_VISION = {  # Machado, Oliveira & Fernandes (2009), severity 1
    "normal": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


def oklab(color: str, vision) -> np.ndarray:
    encoded = np.array(matplotlib.colors.to_rgb(color))
    linear = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    to_lms = [
        [0.41222147, 0.53633254, 0.05144599],
        [0.2119035, 0.6806995, 0.10739696],
        [0.08830246, 0.28171884, 0.6299787],
    ]
    to_lab = [
        [0.21045426, 0.79361779, -0.00407205],
        [1.9779985, -2.4285922, 0.45059371],
        [0.02590404, 0.78277177, -0.80867577],
    ]
    return np.array(to_lab) @ np.cbrt(np.array(to_lms) @ np.clip(np.array(vision) @ linear, 0, 1))


@pytest.mark.parametrize("vision", SIMULATED_VISION)
def test_cluster_and_method_colours_stay_apart_under_colour_blindness(vision):
    def closest(colors):
        seen = [oklab(color, SIMULATED_VISION[vision]) for color in colors]
        return min(np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2))

    assert len(CLUSTER_COLORS) == 8
    assert closest(CLUSTER_COLORS) > 0.12
    for pair in (("ppo", "sppo"), ("sac", "protosac")):
        assert closest([*(ALGORITHMS[name].color for name in pair), PUBLISHED]) > 0.1


def test_cluster_color_is_stable_and_distinct_beyond_the_palette():
    assert tuple(cluster_color(k) for k in range(8)) == CLUSTER_COLORS
    assert len({cluster_color(k) for k in range(24)}) == 24
    with pytest.raises(ValueError):
        cluster_color(-1)


def test_use_style_sets_what_figures_show():
    with matplotlib.rc_context():
        use_style()
        assert matplotlib.rcParams["savefig.dpi"] == 300
        axes = Figure().subplots()
        assert not axes.spines["top"].get_visible()
        assert axes.plot([1, 2])[0].get_color() == CLUSTER_COLORS[0]
