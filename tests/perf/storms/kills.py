"""Row: a run killed at random moments of up to three lives, then run to its end."""

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np
import psutil
from commands import Done, Running, bench, orphans
from experiment import Setting
from judges import Wrong, clean, succeeded, told
from rows import Row, Try

LIVES = 3
Span = tuple[float, float]
"""Seconds from the start of a command, in which a kill comes: from when its code is loaded, for
before that a signal meets Python itself, until when it would end."""


def _group(number: int) -> Callable[[Running], None]:
    return lambda running: os.killpg(running.process.pid, number)


def _parent(number: int) -> Callable[[Running], None]:
    return lambda running: running.process.send_signal(number)


def _worker(running: Running) -> None:
    """Kill a process that the command has started, or all of it where there is none yet."""
    with suppress(psutil.Error):
        children = psutil.Process(running.process.pid).children(recursive=True)
        workers = [c for c in children if "resource_tracker" not in " ".join(c.cmdline())]
        if workers:
            workers[0].kill()
            return
    _group(signal.SIGKILL)(running)


def _twice(running: Running) -> None:
    """As somebody does who finds that once is not enough."""
    _group(signal.SIGINT)(running)
    time.sleep(0.15)
    with suppress(ProcessLookupError):
        _group(signal.SIGINT)(running)


KINDS: dict[str, Callable[[Running], None]] = {
    "SIGKILL of all": _group(signal.SIGKILL),
    "SIGKILL of the parent": _parent(signal.SIGKILL),
    "SIGKILL of a worker": _worker,
    "SIGTERM of the parent": _parent(signal.SIGTERM),
    "SIGTERM of all": _group(signal.SIGTERM),
    "SIGHUP of all": _group(signal.SIGHUP),
    "SIGINT of all": _group(signal.SIGINT),
    "SIGINT of all, twice": _twice,
}


def _survived(kind: str, done: Done) -> None:
    """Look at how a command took a kill: it may have ended before, else as is documented."""
    if done.code == 0:
        clean(done)
    elif kind.startswith("SIGINT"):
        if clean(done).code != 130 or not done.last().startswith("bench: interrupted"):
            raise Wrong(f"code {done.code}, not 130: {done.last()}")
    elif kind == "SIGKILL of a worker" and done.code != -signal.SIGKILL:
        told(done)
    else:
        # To die by the signal, or of it in one line, are both what was asked for.
        number = signal.Signals[kind.split()[0]]
        if done.code in (-number, 128 + number):
            done = Done(0, done.stdout, done.stderr, done.seconds)
        clean(done)


def _storm(lives: list[tuple[str, float]], setting: Setting, span: Span, folder: Path) -> None:
    out = folder / "out"
    for kind, moment in lives:
        running = setting.start(folder, out)
        time.sleep(float(np.interp(moment, (0, 1), span)))
        if running.alive():
            with suppress(ProcessLookupError):
                KINDS[kind](running)
        done = running.wait()
        if left := orphans(folder):
            raise Wrong(f"{kind}: processes go on: {', '.join(left)}")
        try:
            _survived(kind, done)
        except Wrong as wrong:
            raise Wrong(f"on {kind}: {wrong}") from wrong
    succeeded(setting.ablate(folder, out))
    setting.same(out)
    succeeded(bench(["table", out / "tiny", "--check"], folder))


def tries(setting: Setting, rng: np.random.Generator, count: int) -> list[Try]:
    """Every kind comes first in turn, so that few tries see all of them."""
    found, kinds = [], list(KINDS)
    setting.undisturbed  # noqa: B018  (made before the clock runs)
    span = (succeeded(bench(["--version"], setting.work)).seconds, setting.seconds)
    for n in range(count):
        first = kinds[n % len(kinds)]
        others = rng.choice(kinds, int(rng.integers(LIVES)))
        lives = [(kind, float(rng.uniform())) for kind in (first, *others)]
        name = ", then ".join(f"{kind} at {moment:.0%}" for kind, moment in lives)
        found.append(Try(name, partial(_storm, lives, setting, span)))
    return found


ROW = Row("kills", "kills at random moments (group, worker, parent; KILL, TERM, HUP, INT, double "
          "INT; up to 3 lives)", tries, 16)  # fmt: skip
