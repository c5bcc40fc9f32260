"""What is said to SLURM, and what it says: sbatch, squeue, scontrol.

Options go to sbatch as arguments, and what stands in a script is quoted: no name, however it was
chosen, is read by a shell.
"""

import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.spec.launch import Job
from trainers.errors import UserError
from trainers.files import sha256_text, tell, write_text

EXPORTED = (
    "PATH", "HOME", "USER", "LANG", "LD_LIBRARY_PATH", "PYTHONPATH", "HF_HOME", "HF_HUB_CACHE",
    "HF_HUB_OFFLINE", "DPO_BENCH_HOME", "DPO_BENCH_DEBUG", "TMPDIR",
)  # fmt: skip
"""What a job has of the environment: no more, since SLURM keeps it, and it may hold secrets."""
AGAIN = 75
"""Exit code of a stage that left before its time was up."""
MOST = 200
"""How often a job is put into the queue again because of its time."""
PATIENCE = 120
"""Seconds that a command of SLURM may take."""
ENDED = {"BOOT_FAIL", "CANCELLED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "TIMEOUT"}
"""States of jobs that came to nothing."""
LIVE = {"CONFIGURING", "COMPLETING", "PENDING", "PREEMPTED", "REQUEUED", "REQUEUE_FED"} | {
    "REQUEUE_HOLD", "RESIZING", "RUNNING", "SIGNALING", "SPECIAL_EXIT", "STAGE_OUT", "STOPPED",
    "SUSPENDED",
}  # fmt: skip
"""States of jobs of which something may come."""
_SCRIPT = """#!/bin/sh
# Written by bench ablate. The stage keeps what it has when it is told that its time is nearly up
# (SIGUSR1), and ends with {again}; the job is put into the queue again under the id that it has, so
# that what waits for it goes on waiting.
set -u
export OMP_NUM_THREADS=1 MKL_NUM_THREADS=1
set -- {identities}
shift "${{SLURM_ARRAY_TASK_ID:-0}}"
{python} -m bench stage "$1" --store {store} &
stage=$!
trap 'kill -s USR1 "$stage"' USR1
trap 'kill -s TERM "$stage"' TERM
wait "$stage"; code=$?
while kill -s 0 "$stage" 2>/dev/null; do wait "$stage"; code=$?; done
if [ "$code" -eq {again} ] && [ "${{SLURM_RESTART_COUNT:-0}}" -lt {most} ]; then
    exec scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
"""


def script(root: Path, identities: Sequence[str]) -> str:
    """The script of an array of stages, or of a single one."""
    return _SCRIPT.format(
        identities=shlex.join(identities),
        python=shlex.quote(sys.executable),
        store=shlex.quote(str(root)),
        again=AGAIN,
        most=MOST,
    )


def submit(
    folder: Path,
    root: Path,
    identities: Sequence[str],
    job: Job,
    after: Sequence[str],
    warning: int,
) -> tuple[str, list[str]]:
    """Put stages into the queue, and give their name there, and the id of each one's job.

    Args:
        folder: For scripts and logs.
        root: The store.
        identities: Of stages that wait for the same jobs.
        job: What each is given.
        after: Jobs that must have done their work before.
        warning: Seconds before the limit at which a stage is told to leave.

    Raises:
        UserError: If SLURM refuses; the message has its reason.
    """
    text = script(root, identities)
    name = f"bench-{sha256_text(text)[:16]}"
    path = folder / f"{name}.sh"
    write_text(path, text)
    array = len(identities) > 1
    log = folder / ("%A_%a.log" if array else "%j.log")
    options = {
        "job-name": name, "output": _pattern(log, folder), "chdir": str(root),
        "export": ",".join(key for key in EXPORTED if key in os.environ), "open-mode": "append",
        "signal": f"B:USR1@{warning}", "ntasks": "1", "nodes": "1", "kill-on-invalid-dep": "yes",
        **_asked(job),
    }  # fmt: skip
    if array:
        options["array"] = f"0-{len(identities) - 1}"
    if after:
        options["dependency"] = "afterok:" + ":".join(after)
    arguments = [f"--{key}={value}" for key, value in options.items()]
    done = _call(["sbatch", "--parsable", "--requeue", *arguments, str(path)])
    if done.returncode:
        raise UserError(f"SLURM refused a job: {_last(done.stderr)}: correct launch.slurm")
    number = done.stdout.strip().partition(";")[0]
    return name, [f"{number}_{k}" for k in range(len(identities))] if array else [number]


def _asked(job: Job) -> dict[str, str]:
    """What a job asks for, as options of sbatch."""
    asked = {
        "time": None if job.time is None else f"{-(-job.time // 60)}",
        "cpus-per-task": str(job.cpus),
        "gpus": str(job.gpus) if job.gpus else None,
        "mem": job.memory,
        "partition": job.partition,
        "account": job.account,
        "qos": job.qos,
        "constraint": job.constraint,
        **job.options,
    }
    return {key: value for key, value in asked.items() if value is not None}


def _pattern(log: Path, folder: Path) -> str:
    """A path for ``--output``, in which SLURM replaces only what is meant."""
    return f"{str(folder).replace('%', '%%')}/{log.name}"


class Jobs:
    """The queue, as far as it is this user's."""

    def __init__(self) -> None:
        """Ask once.

        Raises:
            UserError: If SLURM is not there, or does not answer.
        """
        self._silent = False
        self._states: dict[str, str] = {}
        done = self._ask()
        if done.returncode:
            raise UserError(f"SLURM does not answer: {_last(done.stderr)}: try again when it does")

    def live(self) -> dict[str, str]:
        """Names of jobs of which something may come, by their ids, which SLURM may give twice.

        Raises:
            UserError: If SLURM does not answer.
        """
        found = self.look()
        if found is None:
            raise UserError("SLURM does not answer: run the same command again when it does")
        return found

    def look(self) -> dict[str, str] | None:
        """As ``live``; None while no controller answers, which is told."""
        done = self._ask()
        if done.returncode:
            if not self._silent:
                tell(f"SLURM does not answer, and is asked again: {_last(done.stderr)}")
            self._silent = True
            return None
        self._silent = False
        lines = [line.split(maxsplit=2) for line in done.stdout.splitlines()]
        self._states |= {job: state for job, state, _ in lines}
        return {job: name for job, state, name in lines if state in LIVE}

    def failed(self, job: str) -> bool:
        """Whether a job is known to have come to nothing."""
        return self._states.get(job) in ENDED

    def state(self, job: str) -> str:
        """The last that was heard of a job."""
        return self._states.get(job, "in a way that SLURM has forgotten")

    def _ask(self) -> "subprocess.CompletedProcess[str]":
        states = "--states=all"
        # An array is one line for each of its jobs.
        return _call(["squeue", "--noheader", "--me", "--array", states, "--format=%i %T %j"])


def _call(command: list[str]) -> "subprocess.CompletedProcess[str]":
    try:
        return subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=PATIENCE, check=False
        )
    except OSError as error:
        raise UserError(
            f"--launch slurm calls {command[0]}, which cannot be run here ({error.strerror}): run "
            "it where jobs are submitted"
        ) from error
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 1, "", f"{command[0]} took over {PATIENCE} s")


def _last(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "it gave no reason"
