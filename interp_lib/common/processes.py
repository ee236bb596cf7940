"""How this project's processes end: by a signal in an orderly way, and never later than the process that began them."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def end_with_parent(parent: int) -> None:
    """Have the kernel kill this process when ``parent``, its parent's id, is gone (Linux; elsewhere nothing happens).

    By SIGKILL: any other signal may be one that this process was started to ignore, as SIGINT is behind a script's `&`.
    Everything here that writes leaves whole files even so.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        if os.getppid() != parent:  # it ended before it could be watched
            os.kill(os.getpid(), signal.SIGKILL)


def ends_with_us(*command: str) -> list[str]:
    """``command`` so that it ends with this process, and by Ctrl-C, which a process in the background would ignore.

    It is begun by this file, run as a script: what happens between fork and exec (`preexec_fn`) is nothing for Python
    with its threads and its libraries' hooks, one of which closes the lock that Snakemake is to hold.
    """
    return [sys.executable, "-P", str(Path(__file__).resolve()), str(os.getpid()), *command]


class Ending:
    """Which signal, if any, asked this process to end; its ``status`` is what a shell reports then."""

    signal: int | None = None

    @property
    def status(self) -> int:
        """128 and the signal's number; of Ctrl-C where there was none."""
        return 128 + (self.signal or signal.SIGINT)


@contextlib.contextmanager
def ending_orderly(*, last: bool = False) -> Iterator[Ending]:
    """Within, SIGTERM and SIGHUP are like Ctrl-C: the first of the three is a KeyboardInterrupt, the next ones nothing.

    So what the first one begins, such as saving, ends. What is ignored already (`nohup`, and SIGINT behind a script's
    `&`) stays so. Once one has come, they are ignored for good: what is left is to end.

    Args:
        last: nothing but the end of the process follows, so that Ctrl-C finds nothing to stop any more. It would be a
            traceback of whatever Python clears away.
    """
    ending = Ending()
    if threading.current_thread() is not threading.main_thread():
        yield ending
        return

    def stop(number: int, frame: Any) -> None:
        if ending.signal is None:
            ending.signal = number
            raise KeyboardInterrupt

    watched = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in watched}
    before = {number: handler for number, handler in before.items() if handler is not signal.SIG_IGN}
    for number in before:
        signal.signal(number, stop)
    try:
        yield ending
    finally:
        if ending.signal is None:
            for number, handler in before.items():
                signal.signal(number, signal.SIG_IGN if last and number == signal.SIGINT else handler)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    end_with_parent(int(sys.argv[1]))
    os.execvp(sys.argv[2], sys.argv[2:])
