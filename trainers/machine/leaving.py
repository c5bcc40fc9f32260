"""A process that has been told that its time is nearly up: it keeps what it has, and leaves."""

import signal
import threading
from types import FrameType

_asked = threading.Event()


class Leave(KeyboardInterrupt):
    """Raised where a process that was told to leave can: what was done so far can be taken up."""


def listen(number: signal.Signals) -> None:
    """Let a signal ask this process to leave."""
    signal.signal(number, ask)


def ask(number: int, frame: FrameType | None) -> None:
    """A handler of a signal; where it comes is no good place to leave."""
    _asked.set()


def asked() -> bool:
    """Whether this process is to leave."""
    return _asked.is_set()


def leave_if_asked() -> None:
    """Called where leaving loses little.

    Raises:
        Leave: If the process is to leave.
    """
    if asked():
        raise Leave
