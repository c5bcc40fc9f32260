"""The command line as a process: its streams, the signals it gets, the limits it runs under."""

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

LINE = "bench: interrupted; the same command goes on from here\n"
WAITS = """
import sys, time
from bench.cli import app, main

@app.command("wait")
def wait(tidying: float) -> None:
    print("begun", flush=True)
    try:
        time.sleep(600)
    finally:
        time.sleep(tidying)

main()
"""
"""A command that takes its time, and then some to end."""


def bench(*arguments: str, **how: object) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "bench", *arguments],
        text=True, errors="replace", timeout=600, check=False,
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **how},
    )  # type: ignore[call-overload,no-any-return]  # fmt: skip


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    ("tidying", "gaps"), [(0, ()), (0, (0.0,)), (600, (0.2,)), (1, (0.0,) * 5)]
)
def test_one_signal_or_several_end_in_one_line(
    number: signal.Signals, tidying: float, gaps: tuple[float, ...]
) -> None:
    """The second does not wait until the command has tidied up."""
    with subprocess.Popen(
        [sys.executable, "-c", WAITS, "wait", str(tidying)], text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        process.send_signal(number)
        for gap in gaps:
            time.sleep(gap)
            process.send_signal(number)
        _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (130, LINE)


def test_a_signal_that_is_ignored_stays_so() -> None:
    """As behind nohup."""
    with subprocess.Popen(
        [sys.executable, "-c", WAITS, "wait", "0"], text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        process.send_signal(signal.SIGINT)
        time.sleep(0.3)
        assert process.poll() is None
        process.terminate()
        assert process.wait(60) == 130


@pytest.mark.parametrize("more", [(), ("--json",)])
def test_a_full_disk_behind_standard_output_is_one_line(more: tuple[str, ...]) -> None:
    with Path("/dev/full").open("w") as full:
        done = bench("list", "specs", *more, stdout=full)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1 and "No space left on device" in done.stderr


def test_a_reader_that_has_enough_is_no_fault() -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "bench", "list", "--json"], stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline() == b"{\n"
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode in (0, 1)


def test_standard_output_may_be_closed(tmp_path: Path) -> None:
    done = bench("table", "results/first-world", preexec_fn=lambda: os.close(1), stdout=None)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_what_a_stream_cannot_encode_is_escaped(tmp_path: Path, encoding: str) -> None:
    """Titles are the user's; files are UTF-8 whatever the locale."""
    spec = tmp_path / "spec.yaml"
    spec.write_text(
        "extends: mini\ntitle: \u4e2d\u6587 [/red] \u2192 caf\u00e9\n", encoding="utf-8"
    )
    environment = {"PYTHONIOENCODING": encoding, "LC_ALL": "C", "PYTHONUTF8": "0",
                   "PYTHONCOERCECLOCALE": "0"}  # fmt: skip
    done = bench("ablate", str(spec), "--plan", env=os.environ | environment)
    assert done.returncode == 0 and done.stderr == ""
    assert done.stdout.startswith(r"\u4e2d\u6587 [/red] \u2192 caf")


def test_no_home_is_needed() -> None:
    """Nor one that can be written to: it only keeps what would be found again."""
    environment = {k: v for k, v in os.environ.items() if k not in ("HOME", "DPO_BENCH_HOME")}
    for extra in ({}, {"HOME": "/nonexistent", "DPO_BENCH_HOME": "/proc/nowhere"}):
        done = bench("list", "rewards", env=environment | extra)
        assert (done.returncode, done.stderr) == (0, "")


def limited(kind: int, value: int) -> Callable[[], None]:
    return lambda: resource.setrlimit(kind, (value, value))


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (resource.RLIMIT_FSIZE, 100_000),
        (resource.RLIMIT_AS, 1_200_000_000),
    ],
    ids=["file size", "memory"],
)
def test_limits_of_the_system_end_in_one_line(tmp_path: Path, kind: int, value: int) -> None:
    out = tmp_path / "out"
    done = bench("train", "DPO", "--out", str(out), preexec_fn=limited(kind, value))
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("bench: ")
    assert "Traceback" not in done.stderr
