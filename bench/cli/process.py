"""What the command line is as a process: its streams, and the signals that end it."""

import os
import signal
import sys
from io import TextIOWrapper
from types import FrameType

import typer

INTERRUPTED = 130
"""Exit code of a command that was interrupted."""
SIGNALS = (signal.SIGINT, signal.SIGTERM)
_LINE = "bench: interrupted; the same command goes on from here"


def settle() -> None:
    """Let no text break a stream, and no signal break off a command.

    What a stream cannot encode is written as an escape. An interruption, by Ctrl-C or as a batch
    system does it, lets the command end in order; a second one ends it at once.
    """
    while (spare := os.open(os.devnull, os.O_RDWR)) <= 2:  # A file would take a closed stream's.
        pass
    os.close(spare)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _interrupt)


def tell_interrupted() -> None:
    """Say so in one line, whatever signals come; all that is left to do is to leave."""
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    typer.echo(_LINE, err=True)
    for number in SIGNALS:
        if signal.getsignal(number) is _end:  # Python's end would let the next one kill it.
            signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def leave(code: int) -> int:
    """The exit code, once all output is written; 1 if it cannot be.

    Python would try again at its end, and fail without a line.
    """
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):  # Whoever closed it wants no more.
            typer.echo(f"bench: standard output: {error.strerror}", err=True)
        return 1
    return code


def _interrupt(number: int, frame: FrameType | None) -> None:
    for other in SIGNALS:
        signal.signal(other, _end)
    raise KeyboardInterrupt


def _end(number: int, frame: FrameType | None) -> None:
    os.write(2, f"{_LINE}\n".encode())
    os._exit(INTERRUPTED)
