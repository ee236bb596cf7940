"""progress.csv: one row an update, written so that a run can be killed at any moment and resumed."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from .errors import InterpError
from .storage import write_text


class ProgressLog:
    """Appends rows to a csv; rows that were written after the last checkpoint can be taken back.

    Args:
        path: the csv.
        columns: its header. Values are written with 6 significant digits; missing ones stay empty.
        tensorboard: also write the rows as scalars to the folder ``tensorboard`` beside the csv.
    """

    def __init__(self, path: Path, columns: Sequence[str], *, tensorboard: bool = False) -> None:
        self.path, self.columns = path, tuple(columns)
        self.tensorboard = tensorboard
        self._board: Any = None

    def start(self, keep_through: int) -> None:
        """Create the file, or keep the rows with ``total_timesteps`` ≤ ``keep_through`` of the one there is."""
        lines = [",".join(self.columns)]
        if keep_through > 0 and self.path.exists():
            with self.path.open(newline="", encoding="utf-8") as file:
                rows = [row for row in csv.DictReader(file) if _is_whole(row)]
            kept = [row for row in rows if int(row["total_timesteps"]) <= keep_through]
            lines += [",".join(row.get(name) or "" for name in self.columns) for row in kept]
        write_text(self.path, "\n".join(lines) + "\n")
        if self.tensorboard:
            from tensorboardX import SummaryWriter

            self._board = SummaryWriter(str(self.path.parent / "tensorboard"), purge_step=keep_through + 1)

    def append(self, row: Mapping[str, Any]) -> None:
        """Add one row.

        Raises:
            InterpError: the disk is full or the folder has become unwritable.
        """
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(",".join(_format(row.get(name)) for name in self.columns) + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise InterpError(f"cannot write {self.path}: {error.strerror or error}. Free space and resume.") from error
        if self._board is not None:
            for name, value in row.items():
                if name != "total_timesteps" and isinstance(value, (int, float)) and math.isfinite(value):
                    self._board.add_scalar(name, value, row["total_timesteps"])
            self._board.flush()

    def close(self) -> None:
        """Write out what TensorBoard's writer still holds; the csv is complete after every row."""
        if self._board is not None:
            self._board.close()


def read_progress(run_dir: Path | str) -> pd.DataFrame:
    """The learning curve of a run folder, one row an update.

    Raises:
        InterpError: the run has no progress.csv, or it isn't one.
    """
    path = Path(run_dir) / "progress.csv"
    try:
        frame = pd.read_csv(path)
    except FileNotFoundError as error:
        raise InterpError(f"{path} does not exist. Is this a run folder?") from error
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise InterpError(f"{path} is damaged: {error}") from error
    if not {"total_timesteps", "eprewmean"} <= set(frame.columns):
        raise InterpError(f"{path} lacks the columns total_timesteps and eprewmean. Is this a run folder?")
    return frame


def _is_whole(row: Mapping[str, str | None]) -> bool:
    return None not in row.values() and str(row.get("total_timesteps")).isdigit()


def _format(value: Any) -> str:
    if value is None:
        return ""
    return str(value) if isinstance(value, (int, str)) else f"{value:.6g}"
