"""Learning curves on disk: progress.csv and, beside it, TensorBoard's event files."""

import math
import struct

import pytest
from tensorboardX.proto.event_pb2 import Event

from interp_lib.agents.learning_curve import ProgressLog, read_progress


def scalars(folder):
    """(tag, step, value) of everything in TensorBoard's event files, read as their format says."""
    found = []
    for path in sorted(folder.glob("events*")):
        data = path.read_bytes()
        while data:  # a record: length (8 bytes), its checksum (4), an Event, its checksum (4)
            (length,) = struct.unpack("<Q", data[:8])
            event = Event.FromString(data[12 : 12 + length])
            found += [(value.tag, event.step, value.simple_value) for value in event.summary.value]
            data = data[16 + length :]
    return found


def test_tensorboard_shows_the_rows_of_the_csv(tmp_path):
    log = ProgressLog(tmp_path / "progress.csv", ("total_timesteps", "eprewmean", "note"), tensorboard=True)
    log.start(keep_through=0)
    log.append({"total_timesteps": 10, "eprewmean": 1.5, "note": "text"})
    log.append({"total_timesteps": 20, "eprewmean": math.nan})
    log.append({"total_timesteps": 30, "eprewmean": 2.5})
    log.close()
    assert scalars(tmp_path / "tensorboard") == [("eprewmean", 10, 1.5), ("eprewmean", 30, 2.5)]
    assert read_progress(tmp_path)["eprewmean"].tolist() == pytest.approx([1.5, math.nan, 2.5], nan_ok=True)


def test_without_tensorboard_there_is_only_the_csv(tmp_path):
    log = ProgressLog(tmp_path / "progress.csv", ("total_timesteps", "eprewmean"))
    log.start(keep_through=0)
    log.append({"total_timesteps": 10, "eprewmean": 1.5})
    assert [path.name for path in tmp_path.iterdir()] == ["progress.csv"]
