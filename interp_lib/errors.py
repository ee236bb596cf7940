"""The one exception that is meant for users."""


class InterpError(Exception):
    """A problem the user can act on: one line that says what is wrong and what to do.

    The command line prints it without a traceback and exits with status 2.
    """
