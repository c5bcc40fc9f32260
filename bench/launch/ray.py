"""Tasks of a Ray cluster.

What is sent is the place of the store and the id of a stage: the rest is read there, and verified.
"""

import re
import signal
import socket
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from bench.launch.base import Failed, Lost
from bench.spec.launch import Ray, Work
from bench.stages.base import Stage
from bench.stages.described import describe
from bench.stages.store import Store
from trainers.errors import UserError

UNITS = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
MANY = 10_000
"""Stages that are given to Ray at a time."""


class RayTasks:
    """Runs stages wherever Ray has what they ask for; one whose node dies is begun again."""

    slots = MANY

    def __init__(self, store: Store, settings: Ray) -> None:
        """Connects to nothing yet.

        Raises:
            UserError: If Ray is not installed.
        """
        try:
            import ray
        except ImportError as error:
            raise UserError(
                "--launch ray needs Ray: install it (pip install 'dpo-bench[ray]')"
            ) from error
        self._ray: Any = ray
        self._store = store
        self._settings = settings
        self._running: dict[str, Any] = {}
        self._remote: Any = None

    def __enter__(self) -> Self:
        """Connect to the cluster, or start one of this machine.

        Raises:
            UserError: If there is no cluster where one is said to be.
        """
        environment = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        ours = signal.getsignal(signal.SIGTERM)
        try:
            _reach(self._settings.address)
            self._ray.init(
                self._settings.address,
                log_to_driver=False,
                logging_level="ERROR",
                runtime_env={"env_vars": environment},
                include_dashboard=False if self._settings.address is None else None,
            )
        except (OSError, ValueError, RuntimeError, self._ray.exceptions.RayError) as error:
            why = " ".join(str(error).split())[:200]
            raise UserError(
                f"launch.ray.address: no cluster at {self._settings.address!r} ({why}): start one "
                "(ray start --head), or leave the address out"
            ) from error
        finally:
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGTERM, ours)  # Ray has put its own in the place.
        self._remote = self._ray.remote(_run)
        return self

    def expect(self, stages: Sequence[Stage]) -> None:
        """Describe them in the store, and refuse what no node of the cluster has.

        Raises:
            UserError: If a kind of stage asks for more than there is.
        """
        describe(stages, self._store)
        there = self._ray.cluster_resources()
        for work in {stage.work: None for stage in stages}:
            for name, amount in self._asked(work).items():
                if amount > there.get(name, 0):
                    raise UserError(
                        f"launch.ray.{work}: asks for {amount:g} of {name}, and the cluster has "
                        f"{there.get(name, 0):g}: ask for less, or add nodes"
                    )

    def _asked(self, work: Work) -> dict[str, float]:
        """What a kind of stage asks for, by Ray's names of resources."""
        share = self._settings.of(work)
        memory = int(share.memory[:-1]) * UNITS[share.memory[-1]] if share.memory else 0
        asked = {"CPU": share.cpus, "GPU": share.gpus, "memory": memory, **share.resources}
        return {name: amount for name, amount in asked.items() if amount}

    def submit(self, stage: Stage) -> Future[None]:
        """See the protocol."""
        asked = self._asked(stage.work)
        task = self._remote.options(
            max_retries=self._settings.retries,
            name=stage.id[:16],
            num_cpus=asked.pop("CPU"),
            num_gpus=asked.pop("GPU", 0),
            memory=asked.pop("memory", None),
            resources=asked,
        )
        root = str(self._store.root.resolve())
        self._running[stage.id] = reference = task.remote(stage.id, root)
        answer: Future[None] = Future()
        reference.future().add_done_callback(partial(self._end, stage.id, answer))
        return answer

    def _end(self, identity: str, answer: Future[None], future: Future[Any]) -> None:
        self._running.pop(identity, None)
        try:
            failure = future.result()
        except Exception as error:
            failure = " ".join(f"{type(error).__name__}: {error}".split())[:500]
        with suppress(Exception):  # Nobody waits for it any more.
            if failure is None:
                answer.set_result(None)
            else:
                answer.set_exception(Failed(failure))

    def poll(self) -> Iterator[tuple[str, int]]:
        """See the protocol.

        Raises:
            UserError: If the cluster is gone.
        """
        if not self._ray.is_initialized():
            raise Lost("the Ray cluster is gone: start it, and run the same command again")
        yield from ()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        for reference in list(self._running.values()):
            self._ray.cancel(reference, force=True)
        self._ray.shutdown()


def _reach(address: str | None) -> None:
    """Try an address such as ``host:6379``, which Ray itself does for minutes.

    Raises:
        OSError: If nothing answers there.
    """
    if found := re.fullmatch(r"(?:ray://)?\[?([^\]/]+?)\]?:(\d{1,5})", address or ""):
        socket.create_connection((found[1], int(found[2])), timeout=10).close()


def _run(identity: str, root: str) -> str | None:
    """Run a stage in a worker of Ray; what is wrong with it, or None."""
    from bench.launch.alone import run_alone

    try:
        run_alone(identity, Path(root))
    except (Exception, SystemExit) as error:
        return f"{type(error).__name__}: {error}"
    return None
