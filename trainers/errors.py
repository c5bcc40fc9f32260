"""Errors whose message is meant for the user: what was expected, what came, how to mend it."""

from collections.abc import Sequence

SHOWN = 20
"""Problems that one message names; all are counted."""


class UserError(Exception):
    """A mistake in the input. The command line prints the message alone, on one line."""


class NotFinite(UserError, FloatingPointError):
    """A run that cannot go on, since what it computes is no number any more."""


def refuse(problems: Sequence[str]) -> None:
    """Refuse what has problems for all of them at once, in one line; do nothing without any.

    Raises:
        UserError: If there are some.
    """
    if problems:
        more = len(problems) - SHOWN
        raise UserError("; ".join(problems[:SHOWN]) + (f"; and {more} more" if more > 0 else ""))
