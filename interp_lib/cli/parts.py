"""What every command is made of: the parser, help with an example, exit statuses."""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any, NoReturn

from ..common.errors import InterpError
from ..envs.names import check_seed

EXIT_ERROR = 2
EPISODES = "a side (default: 500 for Procgen, 50 for continuous tasks)"  # of --episodes


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        """One line and status 2, as for every other error."""
        print(f"interp: {message}. See: {self.prog} --help", file=sys.stderr)
        raise SystemExit(EXIT_ERROR)


def add_command(commands: Any, name: str, help: str, example: str, run: Any) -> argparse.ArgumentParser:
    """Add the command ``name``, which calls ``run`` with the parsed arguments (None: its own commands do)."""
    parser = commands.add_parser(
        name,
        help=help.replace("%", "%%"),  # argparse formats this one, and not the description
        description=help[0].upper() + help[1:] + ".",
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    return parser


def add_group(commands: Any, name: str, help: str, example: str) -> Any:
    """Add the command ``name`` that has commands of its own, and return where they are added."""
    parser = add_command(commands, name, help, example, None)
    return parser.add_subparsers(dest="action", required=True, metavar="ACTION", parser_class=Parser)


def say(line: object) -> None:
    """Print a line of a command that goes on for long, at once."""
    print(line, flush=True)


def seed(text: str) -> int:
    """What ``--seed`` takes, refused before anything runs."""
    try:
        check_seed(int(text))
    except InterpError as error:
        raise argparse.ArgumentTypeError(str(error).rstrip(".")) from error
    return int(text)


def first_process() -> bool:
    """Whether this is the process that speaks: under torchrun all of them get the same errors and results."""
    return os.environ.get("RANK", "0") == "0"
