"""Where a notebook is: a live bar in a terminal, a few plain lines in a log."""

from __future__ import annotations

import sys
import threading
from contextlib import AbstractContextManager
from typing import TextIO

from tqdm import tqdm

from .runner import CellProgress


class Watcher(AbstractContextManager):
    """Show the progress of one notebook on ``stream`` (standard error), by a bar where it has that for itself.

    Without a bar it is one line a section, with the notebook's name: several may run at once, and a log is read
    afterwards. A thread keeps the bar's clock going through cells that take minutes.
    """

    def __init__(self, title: str, stream: TextIO | None = None, *, bars: bool = False):
        self._title, self._stream, self._heading, self._bar = title, stream or sys.stderr, "", None
        self._closed = threading.Event()
        if bars:
            layout = "{desc} {bar:20} {n_fmt}/{total_fmt} cells  {elapsed}{postfix}"
            self._bar = tqdm(desc=title, total=0, bar_format=layout, file=self._stream, leave=False, dynamic_ncols=True)
            self._clock = threading.Thread(target=self._tick, args=(self._bar,), daemon=True)
            self._clock.start()
        else:
            self._say(title)

    def cell(self, progress: CellProgress) -> None:
        """A cell starts."""
        if self._bar is not None:
            self._bar.total, self._bar.n = progress.total, progress.number
            self._bar.set_postfix_str(progress.heading)
        elif progress.heading != self._heading:
            self._heading = progress.heading
            self._say(f"{self._title}  cell {progress.number:>2}/{progress.total}  {progress.heading}".rstrip())

    def finish(self, outcome: str) -> None:
        """The notebook has ended."""
        self.__exit__()
        self._say(f"{self._title}  {outcome}")

    def __exit__(self, *error: object) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._closed.set()
            self._clock.join()
            self._bar.close()

    def _say(self, line: str) -> None:
        print(line, file=self._stream, flush=True)

    def _tick(self, bar: tqdm) -> None:
        while not self._closed.wait(1.0):
            bar.refresh()
