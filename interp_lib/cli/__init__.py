"""The ``interp`` command: parses, calls one function of the library, prints. Heavy imports wait until needed."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from .. import __version__
from ..errors import InterpError
from .campaign import add_campaign
from .checkpoints import add_checkpoints
from .doctor import add_doctor
from .looking import add_browse, add_embed, add_evaluate, add_prototypes, add_videos
from .parts import EXIT_ERROR, EXIT_INTERRUPTED, Parser, first_process
from .reproduce import add_reproduce
from .train import add_train

# In the order of the help.
_COMMANDS = (
    add_train, add_evaluate, add_embed, add_videos, add_browse, add_prototypes, add_campaign, add_reproduce,
    add_checkpoints, add_doctor,
)  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status: 0, 2 for an error the user can mend, 130 after Ctrl-C."""
    args = build_parser().parse_args(arguments)
    try:
        return args.run(args) or 0
    except InterpError as error:
        if first_process():
            print(f"interp: {error}", file=sys.stderr)
        return EXIT_ERROR
    except KeyboardInterrupt as interrupt:
        print(f"interp: {interrupt.args[0] if interrupt.args else 'interrupted.'}", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:  # the reader of our output, such as `head`, has seen enough
        sys.stderr.close()
        return 0


def build_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    parser = Parser(prog="interp", description="What does a deep RL agent see? Train, evaluate, explain, reproduce.")
    parser.add_argument("--version", action="version", version=f"interp {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=Parser)
    for add in _COMMANDS:
        add(commands)
    return parser
