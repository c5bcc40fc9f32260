"""What counts as ending rightly."""

import re
import shutil
import signal
from collections.abc import Callable, Iterable
from pathlib import Path

from commands import Done

SECRET = "hunter2-correct-horse-battery"
"""Stands in files that no command has any business to print."""
LONGEST = 1500
"""Most characters of a line that says what is wrong."""


class Wrong(Exception):
    """A try did not end rightly; the message says in one line what happened."""


def clean(done: Done) -> Done:
    """The same, if it ended by itself, without a traceback, and gave no secret away."""
    if done.code is None:
        raise Wrong(f"no end after {done.seconds:.0f} s; said last: {done.last()}")
    said = done.stdout + done.stderr
    if "Traceback (most recent call last)" in said or re.search(r'^  File ".*", line', said, re.M):
        raise Wrong(f"traceback, code {done.code}: {done.last()}")
    if SECRET in said:
        raise Wrong("the content of a file was printed")
    if "leaked" in done.stderr:
        raise Wrong(f"leaked: {done.last()}")
    if done.code < 0:
        raise Wrong(f"died by {signal.Signals(-done.code).name}; said last: {done.last()}")
    if done.code not in (0, 1, 2, 130):
        raise Wrong(f"code {done.code}: {done.last()}")
    return done


def told(done: Done, mentions: Iterable[str] = ()) -> Done:
    """The same, if it is :func:`clean`, and where it did not succeed said why in one line.

    ``mentions`` are patterns of what that line must name, case aside.
    """
    clean(done)
    if done.code == 0:
        return done
    lines = [line for line in done.stderr.splitlines() if line.startswith("bench: ")]
    if done.code == 1 and not lines and done.stdout.strip():
        return done  # What a check found is its output.
    if done.code == 2:  # So is what became of each part.
        said = [*done.stderr.splitlines(), *done.stdout.splitlines()]
        lines = [line for line in said if re.match(r"failed: |\S+: ", line)]
    if not lines or (done.code != 2 and len(lines) > 1):
        raise Wrong(f"code {done.code} and {len(lines)} lines that say why: {done.last()}")
    for line in lines:
        if len(line) > LONGEST:
            raise Wrong(f"a line of {len(line)} characters: {line[:100]}...")
    for mention in mentions:
        if not any(re.search(mention, line, re.IGNORECASE) for line in lines):
            raise Wrong(f"{mention!r} is not named: {lines[-1][:300]}")
    return done


def refused(done: Done, *mentions: str) -> Done:
    """The same, if it was refused in one line."""
    if clean(done).code == 0:
        raise Wrong("was taken as good")
    return told(done, mentions)


def succeeded(done: Done) -> Done:
    """The same, if all went well."""
    if clean(done).code != 0:
        raise Wrong(f"code {done.code}: {done.last()}")
    return done


def follow(command: Callable[[], Done], folder: Path, times: int = 6) -> Done:
    """Run a command until it succeeds, doing what its one line tells (``rm -r PATH``) in between.

    Gives the last run: one that was refused without a mend that is a command is right as it is.
    """
    given: set[str] = set()
    for _ in range(times):
        done = told(command())
        mend = re.search(r"\brm (?:-r |-rf )?'?(/[^\s');,]+)", done.stderr)
        if done.code == 0 or mend is None:
            return done
        path = Path(mend[1])
        if mend[1] in given:
            raise Wrong(f"the mend does not help: {done.last()}")
        if not path.is_relative_to(folder):
            raise Wrong(f"the mend is to delete what lies elsewhere: {done.last()}")
        given.add(mend[1])
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    raise Wrong(f"no end of mends: {done.last()}")
