"""progress.csv: one row an update, written so that a run can be killed at any moment and resumed."""

from __future__ import annotations

import csv
import io
import math
import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from ..common.errors import InterpError
from ..common.storage import read_file, write_text

_NUMBERS = ("total_timesteps", "eprewmean", "eplenmean", "fps", "time_elapsed")  # what is read from every curve

ROW_STEPS = 2_000  # SAC and ProtoSAC: no two rows of progress.csv are further apart


class ProgressLog:
    """Appends rows to a csv; rows that were written after the last checkpoint can be taken back.

    Args:
        path: the csv.
        columns: its header. Values are written with 6 significant digits; missing ones stay empty.
        tensorboard: also write the rows as scalars to the folder ``tensorboard`` beside the csv.
    """

    def __init__(self, path: Path, columns: Sequence[str], *, tensorboard: bool = False) -> None:
        self.path, self.columns, self.tensorboard = path, tuple(columns), tensorboard
        self._board: Any = None

    def start(self, keep_through: int, gap: int | None = None) -> None:
        """Create the file, or keep the rows with ``total_timesteps`` ≤ ``keep_through`` of the one there is.

        Args:
            gap: how many steps before ``keep_through`` the last of them may be: further back the file was cut. None
                doesn't ask. Where there is no file at all, that is said on stderr.

        Raises:
            InterpError: the file is damaged or was cut; it is left as it is.
        """
        lines = [",".join(self.columns)]
        if keep_through > 0 and os.path.lexists(self.path):
            rows = _rows_of(self.path, keep_through)
            last = int(rows[-1]["total_timesteps"]) if rows else 0
            if gap is not None and last < keep_through - gap:
                raise InterpError(
                    f"{self.path} was cut: it ends at step {last:,}, and the run is at {keep_through:,}. Restore it, "
                    "or delete it to go on with a curve that begins there."
                )
            lines += [",".join(row.get(name) or "" for name in self.columns) for row in rows]
        elif keep_through > 0 and gap is not None:
            print(f"{self.path} is missing: the curve begins after step {keep_through:,}.", file=sys.stderr)
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
    rows = _rows_of(path)
    if not rows:
        raise InterpError(f"{path} holds no rows. Restore it or train the run again.")
    if "eprewmean" not in rows[0]:
        raise InterpError(f"{path} lacks the columns total_timesteps and eprewmean. Is this a run folder?")
    return pd.read_csv(io.StringIO(pd.DataFrame(rows).to_csv(index=False)))  # which finds each column's type


def _rows_of(path: Path, through: int | None = None) -> list[dict[str, str]]:
    """The rows of a curve, by time. A last one without its newline, which a kill leaves, doesn't count.

    Args:
        through: only those up to this step; what comes after them may be of any kind.

    Raises:
        InterpError: the file can't be read, or it is no curve; the message names the line.
    """
    try:
        text = read_file(path, 2**26).decode("utf-8-sig")
        header, *lines = csv.reader(text[: text.rfind("\n") + 1].splitlines(), strict=True)
    except (ValueError, csv.Error) as error:  # not UTF-8, or not even a header
        raise InterpError(f"{path} is damaged: no table of numbers. Restore it, or delete it.") from error
    if "total_timesteps" not in header:
        raise InterpError(f"{path} lacks the columns total_timesteps and eprewmean. Is this a run folder?")
    # A column of words from the first row to the last is somebody's remarks.
    columns = zip(*(values for values in lines if len(values) == len(header)), strict=True)
    remarks = {name for name, values in zip(header, columns, strict=False) if not any(map(_is_number, values))}
    numeric = [name for name in header if name not in remarks or name in _NUMBERS]
    rows: list[dict[str, str]] = []
    broken = last = 0
    for number, values in enumerate(lines, start=2):
        if not values:  # a blank line
            continue
        row = dict(zip(header, values, strict=False))
        steps = row.get("total_timesteps", "") if len(values) == len(header) else ""
        counted = re.fullmatch("[0-9]{1,15}", steps) is not None
        if counted and through is not None and int(steps) > through:
            break
        good = counted and int(steps) > last and all(not row[name] or _is_number(row[name]) for name in numeric)
        if good and not math.isinf(float(row.get("eprewmean") or "nan")):
            last = int(steps)
            rows.append(row)
        else:
            broken, good = broken or number, False
        if broken and (good or through is None):
            raise InterpError(f"{path} is damaged in line {broken}: no row of a curve. Restore it, or delete it.")
    return rows


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _format(value: Any) -> str:
    if value is None:
        return ""
    return str(value) if isinstance(value, (int, str)) else f"{value:.6g}"
