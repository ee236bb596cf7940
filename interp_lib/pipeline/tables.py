"""A saved table as the report shows it: numbers that line up, an interval beside its quantity, keys to sort by."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from ..common.outputs import read_table

MAX_ROWS = 200  # a page with more is no longer read; the CSV has them all
# Columns whose whole numbers are names: seed 2021 and level 212,345 are no quantities.
NAMES = {"seed", "level", "cluster", "prototype", "next"}


class Cell(NamedTuple):
    """A table cell: what is shown, and what it sorts by (a number, or the text in lower case)."""

    text: str
    key: float | str


class Table(NamedTuple):
    """A table as shown: ``columns`` are (name, is a number); ``total`` counts rows before the cut at `MAX_ROWS`."""

    columns: list[tuple[str, bool]]
    rows: list[list[Cell]]
    total: int


def load_table(path: Path) -> Table:
    """Read a CSV for showing: numeric columns get one number of decimals each, so that they line up.

    A quantity and its interval (``x``, ``x low``, ``x high`` or ``x_low``, ``x_high``) share a column, and sort by x.
    """
    names, rows = read_table(path)
    columns = {name: [row[i] for row in rows] for i, name in enumerate(names)}
    intervals = {name: [f"{name}{gap}low", f"{name}{gap}high"] for name in names for gap in "_ "
                 if {f"{name}{gap}low", f"{name}{gap}high"} <= {*names}}  # fmt: skip
    hidden = {bound for bounds in intervals.values() for bound in bounds}
    shown = {
        name: _cells(name, values, [columns[bound] for bound in intervals.get(name, ())])
        for name, values in columns.items()
        if name not in hidden
    }
    return Table(
        columns=[(name.replace("_", " "), numeric) for name, (numeric, _) in shown.items()],
        rows=[list(row) for row in zip(*(cells[:MAX_ROWS] for _, cells in shown.values()), strict=True)],
        total=len(rows),
    )


def _cells(name: str, values: Sequence[str], bounds: Sequence[Sequence[str]]) -> tuple[bool, list[Cell]]:
    """Whether a column is one of numbers, and its cells."""
    numbers = [_number(value) for value in values]
    if not any(values) or any(number is None for number, value in zip(numbers, values, strict=True) if value):
        return False, [Cell(value or "–", value.lower()) for value in values]
    around = [[_number(value) for value in bound] for bound in bounds]
    finite = [n for column in (numbers, *around) for n in column if n is not None and math.isfinite(n)]
    show = (lambda n: f"{n:.0f}") if name.lower() in NAMES else _format(finite)
    cells = []
    for n, *interval in zip(numbers, *around, strict=True):
        if n is None or math.isnan(n):
            cells.append(Cell("–", -math.inf))  # empty and NaN cells sort below every number
            continue
        known = interval and all(bound is not None and math.isfinite(bound) for bound in interval)
        cells.append(Cell(show(n) + (f" [{', '.join(map(show, interval))}]" if known else ""), n))
    return True, cells


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _format(numbers: Sequence[float]) -> Callable[[float], str]:
    if all(n.is_integer() for n in numbers):
        return lambda n: f"{n:,.0f}" if math.isfinite(n) else str(n)
    largest = max(map(abs, numbers), default=0.0)
    if largest < 1 and any(0 < abs(n) < 0.001 for n in numbers):
        return lambda n: f"{n:.3g}"
    decimals = 0 if largest >= 10_000 else 1 if largest >= 100 else 2 if largest >= 1 else 3
    return lambda n: f"{n:,.{decimals}f}"
