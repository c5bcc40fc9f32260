"""Errors whose message is meant for the user: what was expected, what came, how to mend it."""


class UserError(Exception):
    """A mistake in the input. The command line prints the message alone, on one line."""


class NotFinite(UserError, FloatingPointError):
    """A run that cannot go on, since what it computes is no number any more."""
