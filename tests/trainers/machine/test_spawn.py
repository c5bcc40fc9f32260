"""Processes that are started: one group, their messages, and how they end."""

import importlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from trainers.errors import UserError
from trainers.machine.processes import is_main, joined, launched
from trainers.machine.spawn import Workers, send, spawn


def place(message: str) -> None:
    """Tells who this is, and that it has one thread."""
    import torch

    with joined() as processes:
        column = torch.full((1, 1), float(processes.rank + 1))
        gathered = processes.gather(column).flatten().tolist()
        facts = (processes.rank, processes.count, launched(), is_main(), torch.get_num_threads())
        send((message, facts, gathered, os.getpid()))


def many(count: int) -> None:
    for number in range(count):
        send(number)


def fail_or_wait(folder: Path) -> None:
    """The second process fails; the first would wait for it for ever."""
    (folder / os.environ["RANK"]).write_text(str(os.getpid()))
    if os.environ["RANK"] == "1":
        while not (folder / "0").exists():
            time.sleep(0.01)
        raise FloatingPointError("no luck")
    time.sleep(600)


def die_or_wait(folder: Path) -> None:
    if os.environ["RANK"] == "1":
        os._exit(9)
    time.sleep(600)


def note(folder: Path) -> None:
    """Which GPUs this process may see; it waits for the others, so that none takes two calls."""
    (folder / str(os.getpid())).write_text(os.environ["CUDA_VISIBLE_DEVICES"])
    end = time.monotonic() + 120
    while len(list(folder.iterdir())) < 3 and time.monotonic() < end:
        time.sleep(0.01)


def write(path: Path) -> None:
    path.write_text(str(os.getpid()))


@pytest.fixture(scope="module")
def here() -> Iterator[ModuleType]:
    """This file as another process can import it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(Path(__file__).parent)  # Processes take the path of their parent.
        yield importlib.import_module(Path(__file__).stem)


def test_processes_find_each_other_and_are_heard(here: ModuleType) -> None:
    heard: list[tuple[str, tuple[object, ...], list[float], int]] = []
    spawn(2, here.place, "hello", on_message=heard.append)
    assert sorted(message[:3] for message in heard) == [
        ("hello", (0, 2, 2, True, 1), [1.0, 2.0]),
        ("hello", (1, 2, 2, False, 1), [1.0, 2.0]),
    ]
    assert len({message[3] for message in heard} | {os.getpid()}) == 3
    assert launched() == 1  # The environment here is as it was.


def test_one_process_is_alone(here: ModuleType) -> None:
    heard: list[tuple[object, ...]] = []
    spawn(1, here.place, "alone", on_message=heard.append)
    assert [message[:3] for message in heard] == [("alone", (0, 1, 1, True, 1), [1.0])]


def test_every_message_arrives_in_order(here: ModuleType) -> None:
    """Those too that are still on their way when the process is done."""
    heard: list[int] = []
    spawn(1, here.many, 500, on_message=heard.append)
    assert heard == list(range(500))


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_an_error_ends_all_and_is_raised_here(here: ModuleType, tmp_path: Path) -> None:
    began = time.monotonic()
    with pytest.raises(FloatingPointError, match="no luck"):
        spawn(2, here.fail_or_wait, tmp_path)
    waiting = int((tmp_path / "0").read_text())
    while alive(waiting) and time.monotonic() - began < 300:
        time.sleep(0.05)
    assert not alive(waiting)


def test_a_death_is_told_in_one_line(here: ModuleType, tmp_path: Path) -> None:
    """Of whichever process, however early: over and over, since it hangs on who is first."""
    for _ in range(5):
        with pytest.raises(UserError, match=r"one of 2 processes died, .* processes$") as caught:
            spawn(2, here.die_or_wait, tmp_path)
        assert "\n" not in str(caught.value)


def test_workers_take_turns(here: ModuleType, tmp_path: Path) -> None:
    """More calls than processes; leaving the context waits for all of them."""
    paths = [tmp_path / str(number) for number in range(6)]
    with Workers(2) as workers:
        for path in paths:
            workers.submit(here.write, path)
    assert 1 <= len({path.read_text() for path in paths}) <= 2


INTERRUPTED = """
import sys, time
from trainers.machine.spawn import Workers

if __name__ == "__main__":
    try:
        with Workers(3) as workers:
            for _ in range(3):
                workers.submit(time.sleep, 600)
            print("begun", flush=True)
            time.sleep(600)
    except KeyboardInterrupt:
        sys.exit(130)
"""


def test_an_interruption_of_all_is_quiet_whenever_it_comes(tmp_path: Path) -> None:
    """As Ctrl-C in a terminal, which reaches processes that have hardly begun, too."""
    script = tmp_path / "script.py"
    script.write_text(INTERRUPTED)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    for delay in (0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5):
        with subprocess.Popen(
            [sys.executable, str(script)], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True, start_new_session=True, env=environment,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        ) as parent:  # fmt: skip
            assert parent.stdout is not None
            assert parent.stdout.readline() == "begun\n"
            time.sleep(delay)
            os.killpg(parent.pid, signal.SIGINT)
            _, said = parent.communicate(timeout=120)
        assert (parent.returncode, said) == (130, ""), delay


@pytest.mark.parametrize("started", [0, 1])
def test_threads_that_cannot_start_end_the_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, started: int
) -> None:
    """As where processes are few (``ulimit -u``): whichever is missing, nothing waits for it."""
    start, calls = threading.Thread.start, iter(range(10**6))

    def fail(thread: threading.Thread) -> None:
        if next(calls) >= started:
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", fail)
    with pytest.raises(RuntimeError, match="can't start new thread"), Workers(1) as workers:
        workers.submit(write, tmp_path / "a")


def test_what_cannot_be_imported_in_a_process_is_an_answer(
    here: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = tmp_path / "only_here.py"
    module.write_text("def call(): pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    function = importlib.import_module("only_here").call
    module.write_text("raise SystemExit('not there')\n")
    with Workers(1) as workers:
        future = workers.submit(function)
        assert isinstance(future.exception(), SystemExit)
        workers.submit(here.write, tmp_path / "next").result()


def test_every_worker_has_an_environment_of_its_own(here: ModuleType, tmp_path: Path) -> None:
    environments = [{"CUDA_VISIBLE_DEVICES": share} for share in ("0,1", "2,3")]
    with Workers(3, environments) as workers:
        for future in [workers.submit(here.note, tmp_path) for _ in range(3)]:
            future.result(240)
    assert sorted(path.read_text() for path in tmp_path.iterdir()) == ["0,1", "0,1", "2,3"]
