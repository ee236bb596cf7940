"""The one exception that is meant for users."""


class InterpError(Exception):
    """A problem the user can act on: one line that says what is wrong and what to do.

    The command line prints it without a traceback and exits with status 2.
    """

    def __str__(self) -> str:
        """The line, fit for a terminal: names of tensors, files and settings in it can come from anywhere."""
        return printable(super().__str__())


def printable(text: str) -> str:
    """``text`` with newlines, escapes and other control characters written as in a Python string."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
