"""Commands of ``bench`` run as a user runs them, or in forks of a process that has them loaded."""

import importlib
import os
import resource
import shlex
import signal
import subprocess
import sys
import time
import types
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[3]
BENCH = (sys.executable, "-m", "bench")
LIMIT, SLOWEST = 120.0, 5.0
"""Seconds until a command counts as hanging, and by how much more a busy machine gets."""
MARK = "DPO_BENCH_STORM"
"""Environment variable that tells the processes of a try from all others."""
MEMORY = 12 * 2**30
"""Bytes of address space of a fork: what would fill the machine fails instead."""
WARM = (
    "torch", "pandas", "pyarrow.parquet", "PIL.Image", "peft", "transformers.models.clip",
    "diffusers.pipelines.stable_diffusion", "bench.cli", "bench.cli.scoring",
    "bench.experiment.run", "bench.experiment.show", "bench.experiment.single",
    "bench.report.folder", "bench.report.terminal", "bench.estimate.plan", "bench.estimate.show",
    "bench.pairs.check", "bench.export.folder", "bench.rewards.towers", "bench.rewards.oracle",
)  # fmt: skip


@dataclass(frozen=True)
class Done:
    """A command that has ended, or was ended after its time."""

    code: int | None
    """None where it hung."""
    stdout: str
    stderr: str
    seconds: float

    def last(self) -> str:
        """The last line of what it said to people."""
        return (self.stderr.strip().splitlines() or ["nothing"])[-1][:300]


@dataclass
class Running:
    """A command that was started, in a session of its own."""

    process: "subprocess.Popen[bytes]"
    log: Path
    began: float = field(default_factory=time.monotonic)

    def alive(self) -> bool:
        return self.process.poll() is None

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def stderr(self) -> str:
        return self.log.with_suffix(".err").read_text(errors="replace")

    def wait(self) -> Done:
        """Wait for its end; one that does not come in time is made."""
        code: int | None
        try:
            code = self.process.wait(limit())
        except subprocess.TimeoutExpired:
            self.kill()
            code = None
        return _done(code, self.log, time.monotonic() - self.began)


def limit() -> float:
    """Seconds that a command has, by how many others want this machine's cores now."""
    return LIMIT * min(SLOWEST, max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1)))


def _done(code: int | None, log: Path, seconds: float) -> Done:
    out, err = (log.with_suffix(end).read_text(errors="replace") for end in (".out", ".err"))
    return Done(code, out, err, seconds)


def _log(folder: Path) -> Path:
    """The stem of two new files for what a command says."""
    logs = folder / "said"
    logs.mkdir(exist_ok=True)
    log = logs / str(len(list(logs.glob("*.out"))))
    log.with_suffix(".out").touch()
    return log


def launch(command: Sequence[str], folder: Path, **environment: str) -> Running:
    """Start a command in a folder, where Ctrl-C reaches it as in a terminal."""
    log = _log(folder)
    with log.with_suffix(".out").open("wb") as out, log.with_suffix(".err").open("wb") as err:
        process = subprocess.Popen(
            command, cwd=folder, stdin=subprocess.DEVNULL, stdout=out, stderr=err,
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
            env={**os.environ, "PYTHONPATH": str(ROOT), MARK: str(folder), **environment},
        )  # fmt: skip
    return Running(process, log)


def start(arguments: Sequence[str | Path], folder: Path, **environment: str) -> Running:
    """Start ``python -m bench``."""
    return launch([*BENCH, *map(str, arguments)], folder, **environment)


def shell(line: str, folder: Path, **environment: str) -> Done:
    """Run a line of bash in which ``$BENCH`` is ``python -m bench``."""
    given = {"BENCH": shlex.join(BENCH), **environment}
    return launch(["bash", "-c", line], folder, **given).wait()


def bench(arguments: Sequence[str | Path], folder: Path, **environment: str) -> Done:
    """Run a command in a process of its own."""
    return start(arguments, folder, **environment).wait()


def warm() -> None:
    """Import what the commands do, once for all forks."""
    for name in WARM:
        importlib.import_module(name)


@dataclass(frozen=True)
class Forked:
    """A command that was started in a fork."""

    child: int
    log: Path
    began: float

    def wait(self) -> Done:
        """Wait for its end; one that does not come in time is made."""
        most = limit()
        while (ended := os.waitpid(self.child, os.WNOHANG))[0] == 0:
            if (took := time.monotonic() - self.began) > most:
                with suppress(ProcessLookupError):
                    os.killpg(self.child, signal.SIGKILL)
                os.waitpid(self.child, 0)
                return _done(None, self.log, took)
            time.sleep(0.01)
        code = os.waitstatus_to_exitcode(ended[1])
        return _done(code, self.log, time.monotonic() - self.began)


def start_fork(arguments: Sequence[str | Path], folder: Path, **environment: str) -> Forked:
    """Start a command in a fork of this process, which has imported everything already."""
    warm()
    log, began = _log(folder), time.monotonic()
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        _be_bench([str(argument) for argument in arguments], folder, log, environment)
    return Forked(child, log, began)


def fork(arguments: Sequence[str | Path], folder: Path, **environment: str) -> Done:
    """Run a command in a fork."""
    return start_fork(arguments, folder, **environment).wait()


def _be_bench(arguments: list[str], folder: Path, log: Path, environment: dict[str, str]) -> None:
    """Never returns: what ``python -m bench`` does, with this process's modules."""
    code = 70
    try:
        os.setsid()
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        os.chdir(folder)
        os.environ.update({MARK: str(folder), **environment})
        for number, end in ((1, ".out"), (2, ".err")):
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
            os.dup2(os.open(log.with_suffix(end), flags, 0o666), number)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        sys.path[0] = str(folder)
        sys.modules["__main__"] = types.ModuleType("__main__")  # Workers shall not begin a storm.
        from bench.cli import run

        code = run(arguments)
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = 1
    finally:
        with suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def orphans(folder: Path, patience: float = 15.0) -> list[str]:
    """Processes of a try that go on though its command has ended; they are ended, too."""
    end = time.monotonic() + patience
    while (found := _marked(folder)) and time.monotonic() < end:
        time.sleep(0.2)
    names = [f"{process.pid}" for process in found]
    for process in found:
        with suppress(psutil.Error):
            process.kill()
    return names


def _marked(folder: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            mine = process.environ().get(MARK) == str(folder)
            if mine and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found
