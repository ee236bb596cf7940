"""The ``interp`` command: parses, calls one function of the library, prints. Heavy imports wait until needed."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from .. import __version__
from ..common.errors import InterpError
from ..common.processes import ending_orderly
from ..common.surroundings import forget_output, out_of_memory, settle
from .checkpoints import add_checkpoints
from .looking import add_browse, add_embed, add_evaluate, add_prototypes, add_videos
from .parts import EXIT_ERROR, Parser, first_process
from .pipeline import add_campaign, add_doctor, add_reproduce
from .train import add_train

# In the order of the help.
_COMMANDS = (
    add_train, add_evaluate, add_embed, add_videos, add_browse, add_prototypes, add_campaign, add_reproduce,
    add_checkpoints, add_doctor,
)  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status: 0, 2 for an error the user can mend, 128 + its number for a signal.

    What surrounds a command never gets a traceback: memory and disks that are full, an output that nobody reads.
    """
    settle()
    with ending_orderly(last=arguments is None) as ending:
        try:
            try:
                args = build_parser().parse_args(arguments)
                status = args.run(args) or 0
                return ending.status if ending.signal else status
            finally:
                if sys.stdout is not None:
                    sys.stdout.flush()  # what fails here can still be said; as Python ends it would be a traceback
        except InterpError as error:
            return _failed(error)
        except KeyboardInterrupt as interrupt:
            _say(interrupt.args[0] if interrupt.args else "interrupted.")
            return ending.status
        except OSError as error:
            if forget_output(sys.stdout) and isinstance(error, BrokenPipeError):  # `head`, for example, has seen enough
                return 0
            what = f"cannot use {error.filename}" if error.filename else "cannot go on"
            return _failed(f"{what}: {error.strerror or error}.")
        except (MemoryError, ImportError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
            return _failed("out of memory. Close other programs, raise the limit (ulimit -v), or ask for less.")


def _failed(error: object) -> int:
    if first_process():
        _say(error)
    return EXIT_ERROR


def _say(what: object) -> None:
    if sys.stderr is None:  # then print() would take standard output
        return
    try:
        print(f"interp: {what}", file=sys.stderr, flush=True)
    except OSError:  # nobody reads that either
        forget_output(sys.stderr)


def build_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    parser = Parser(prog="interp", description="What does a deep RL agent see? Train, evaluate, explain, reproduce.")
    parser.add_argument("--version", action="version", version=f"interp {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=Parser)
    for add in _COMMANDS:
        add(commands)
    return parser
