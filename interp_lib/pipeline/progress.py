"""Where a notebook is: a live bar in a terminal, a few plain lines in a log."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterator
from typing import TextIO

from tqdm import tqdm

from .runner import CellProgress


class PlainWatcher:
    """One line a section, with the notebook's name: several may run at once, and a log is read afterwards."""

    def __init__(self, title: str, stream: TextIO):
        self._title, self._stream, self._heading = title, stream, ""
        self._print(title)

    def cell(self, progress: CellProgress) -> None:
        if progress.heading != self._heading:
            self._heading = progress.heading
            self._print(f"{self._title}  cell {progress.number:>2}/{progress.total}  {progress.heading}".rstrip())

    def finish(self, outcome: str) -> None:
        self._print(f"{self._title}  {outcome}")

    def close(self) -> None:
        pass

    def _print(self, line: str) -> None:
        print(line, file=self._stream, flush=True)


class BarWatcher:
    """A bar with cell, time and section; a thread keeps the clock going through cells that take minutes."""

    def __init__(self, title: str, stream: TextIO):
        self._title, self._stream = title, stream
        layout = "{desc} {bar:20} {n_fmt}/{total_fmt} cells  {elapsed}{postfix}"
        self._bar = tqdm(desc=title, total=0, bar_format=layout, file=stream, leave=False, dynamic_ncols=True)
        self._closed = threading.Event()
        self._clock = threading.Thread(target=self._tick, daemon=True)
        self._clock.start()

    def cell(self, progress: CellProgress) -> None:
        self._bar.total, self._bar.n = progress.total, progress.number
        self._bar.set_postfix_str(progress.heading)

    def finish(self, outcome: str) -> None:
        self.close()
        print(f"{self._title}  {outcome}", file=self._stream, flush=True)

    def close(self) -> None:
        self._closed.set()
        self._clock.join()
        self._bar.close()

    def _tick(self) -> None:
        while not self._closed.wait(1.0):
            self._bar.refresh()


@contextlib.contextmanager
def watch(title: str, stream: TextIO | None = None, *, bars: bool = False) -> Iterator[PlainWatcher | BarWatcher]:
    """Show the progress of one notebook on ``stream`` (standard error), by a bar where it has that for itself."""
    stream = stream or sys.stderr
    watcher = (BarWatcher if bars else PlainWatcher)(title, stream)
    try:
        yield watcher
    finally:
        watcher.close()
