"""A process of the published packages' environment, as seen from ours."""

import json
import os
import queue
import subprocess
import threading
import weakref
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from subprocess import PIPE
from typing import IO, Any

from bench.official.build import WORKER, check, default_folder, python_of, read_stamp
from trainers.errors import UserError

PLACE = "DPO_BENCH_OFFICIAL"
"""Environment variable with the folder of the environment, where it is not the default one."""
LINES = 12
"""Lines of the worker's standard error that a message shows."""


def environment() -> Path:
    """The folder of the environment.

    Raises:
        UserError: If there is none.
    """
    named = os.environ.get(PLACE)
    folder = Path(named).expanduser() if named else default_folder()
    if not python_of(folder).exists():
        raise UserError(
            f"expected the environment of the published packages in {folder}, found none: make it "
            f"with 'bench official build', or set {PLACE} to the folder of one"
        )
    return folder


def versions(folder: Path) -> dict[str, str]:
    """Versions of what computes in an environment, by package.

    Raises:
        UserError: If the packages do not import.
    """
    stamp = read_stamp(folder)
    return check(folder) if stamp is None else stamp["found"]


class WorkerLost(RuntimeError):
    """The worker died or hung: whatever it was asked for, it gives no more answers."""


class Worker:
    """A running worker. It ends with the last reference to this object."""

    def __init__(self, python: Path, files: Mapping[str, Path], device: str) -> None:
        """Start it.

        Args:
            python: Interpreter of the environment.
            files: Paths of the weights by their published names.
            device: A torch device.

        Raises:
            UserError: If the interpreter does not start.
        """
        paths = json.dumps({name: str(path.absolute()) for name, path in files.items()})
        command = [str(python), str(WORKER), "--files", paths, "--device", device]
        # Modules of our PYTHONPATH would shadow those of the environment.
        clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        try:
            self._process = subprocess.Popen(
                command,
                stdin=PIPE,
                stdout=PIPE,
                stderr=PIPE,
                text=True,
                encoding="utf-8",
                env=clean,
            )
        except OSError as error:
            raise UserError(
                f"{python} does not start ({error}): build again with 'bench official build'"
            ) from error
        assert self._process.stdin and self._process.stdout and self._process.stderr
        self._input = self._process.stdin
        self._answers: queue.Queue[str | None] = queue.Queue()
        self._errors: deque[str] = deque(maxlen=LINES)
        streams = (self._process.stdout, self._answers), (self._process.stderr, self._errors)
        self._readers = [_in_background(_forward, *pair) for pair in streams]
        weakref.finalize(self, _end, self._process)

    def ask(
        self, reward: str, images: Sequence[Path], prompts: Sequence[str], seconds: float
    ) -> list[float]:
        """Scores of image ``i`` against prompt ``i``.

        Args:
            reward: Name of the reward in the worker.
            images: Files that PIL reads.
            prompts: As many.
            seconds: How long to wait.

        Raises:
            UserError: If the packages could not score them.
            WorkerLost: If the worker died, or did not answer in time; it is ended then.
        """
        paths = [str(path.absolute()) for path in images]
        request = json.dumps({"reward": reward, "images": paths, "prompts": list(prompts)})
        # In the background: a worker that does not read must not keep us from the clock.
        _in_background(_send, self._input, request + "\n")
        try:
            line = self._answers.get(timeout=seconds)
        except queue.Empty:
            _end(self._process)
            raise WorkerLost(self._told(f"gave no answer within {seconds:g} s")) from None
        if line is None:
            self._answers.put(None)  # for whoever asks again
            _end(self._process)
            raise WorkerLost(self._told(f"ended with code {self._process.returncode}"))
        try:
            answer: dict[str, Any] = json.loads(line)
        except ValueError:
            _end(self._process)
            raise WorkerLost(self._told(f"answered {line!r:.80}")) from None
        if "error" in answer:
            raise UserError(
                "the worker of the published packages could not score: "
                f"{_line(answer['error'])} ({_line(answer['traceback'])})"
            )
        scores: list[float] = answer["scores"]
        return scores

    def _told(self, what: str) -> str:
        """What a worker that has ended did, with its last words."""
        for reader in self._readers:
            reader.join(timeout=5)
        lines = _line("\n".join(list(self._errors))) or "nothing"
        return f"the worker of the published packages {what}; its last words: {lines}"


def _line(text: str) -> str:
    """A text of several lines on one."""
    return " / ".join(line.strip() for line in text.splitlines() if line.strip())


def _in_background(function: Any, *arguments: Any) -> threading.Thread:
    thread = threading.Thread(target=function, args=arguments, daemon=True)
    thread.start()
    return thread


def _forward(stream: IO[str], to: "queue.Queue[str | None] | deque[str]") -> None:
    """Move lines until the stream ends, which a queue is told by None."""
    with stream:
        for line in stream:
            to.append(line.rstrip("\n")) if isinstance(to, deque) else to.put(line)
    if isinstance(to, queue.Queue):
        to.put(None)


def _send(stream: IO[str], text: str) -> None:
    try:
        stream.write(text)
        stream.flush()
    except (OSError, ValueError):
        return  # The process is gone, which whoever waits for its answer is told.


def _end(process: "subprocess.Popen[str]") -> None:
    process.kill()
    process.wait()
