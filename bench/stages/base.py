"""A unit of work with an identity."""

import time
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from bench.spec.launch import Work
from bench.spec.model import Cost
from bench.stages.store import Status, Store
from trainers.errors import UserError
from trainers.files import canonical_json, sha256_text, write_text
from trainers.registry import blamed

TRACEBACK = "traceback.txt"
"""Why a stage failed, in its folder; gone when it is tried again."""
Report = Callable[[int], None]
"""Told how many units of a stage are done."""


@dataclass(frozen=True)
class Stage(ABC):
    """A function of its inputs into a folder of its own. It can be sent to another process."""

    kind: ClassVar[str]
    """Name of the folder of the store that holds the outputs."""
    work: ClassVar[Work]
    """What a spec calls the kind where it says what machines give it."""
    order: ClassVar[int]
    """Place of the kind in the pipeline: of stages that are ready, those of a lower one begin."""
    logged: ClassVar[bool] = True
    """Whether a plain log has a line for each stage; the others are only counted."""
    resumes: ClassVar[bool] = False
    """Whether it takes up, verified, what an interrupted attempt left in its folder."""
    label: str
    """What people are told; no part of the identity."""

    @abstractmethod
    def key(self) -> dict[str, Any]:
        """All that decides the outputs; paths, names and workers do not."""

    @property
    @abstractmethod
    def units(self) -> int:
        """How many units of work there are: steps, images, scores."""

    @property
    @abstractmethod
    def device(self) -> str:
        """The torch device that it runs on."""

    @abstractmethod
    def expected_seconds(self, cost: Cost) -> float:
        """Estimated seconds on one core."""

    @abstractmethod
    def run(self, folder: Path, store: Store, report: Report) -> None:
        """Fill ``folder``, which is empty but for what is to be taken up."""

    @property
    def needs(self) -> tuple["Stage", ...]:
        """Stages whose outputs this one reads."""
        return ()

    @property
    def follows(self) -> tuple["Stage", ...]:
        """Stages that come first where they are to run: those it needs, and what spares it work.

        The latter changes nothing of its outputs, and is no part of its identity.
        """
        return self.needs

    @cached_property
    def id(self) -> str:
        """sha256 of kind, key and the identities of what it needs."""
        return identify(self.kind, self.key(), [stage.id for stage in self.needs])

    def verify_inputs(self) -> None:  # noqa: B027
        """Refuse a model or data that are not, by their sha256, what the stage was planned with.

        Whoever planned it has hashed them; this is for a process that was only told where they lie.

        Raises:
            UserError: If one differs; the message says where it lies.
        """

    def done(self, store: Store) -> Status | None:
        """The record of this stage if it, and all it was made from, is as recorded.

        Raises:
            UserError: If the store is damaged.
        """
        status = store.status(self.kind, self.id)
        if status is None:
            return None
        for stage in self.needs:
            source = stage.done(store)
            # The source may have been cleared away to save space; if it is there it must match.
            if source is not None and source.digest != status.inputs.get(stage.id):
                return None
        return status

    def execute(self, store: Store, report: Report) -> Status:
        """Run the stage unless it is done, and record it; if it fails, its traceback is kept."""
        with store.lock(self.kind, self.id) as folder:
            if (status := self.done(store)) is not None:
                return status
            (folder / TRACEBACK).unlink(missing_ok=True)
            try:
                return self._make(folder, store, report)
            except (Exception, SystemExit) as error:  # A plug-in may exit, too.
                with suppress(UserError):  # The disk may be full.
                    write_text(folder / TRACEBACK, traceback.format_exc())
                if (line := blamed(error)) is not None:
                    raise UserError(line) from error
                raise

    def _make(self, folder: Path, store: Store, report: Report) -> Status:
        inputs: dict[str, str] = {}
        for stage in self.needs:
            source = stage.done(store)
            if source is None:
                raise UserError(
                    f"{self.label} needs {stage.label}, which is not done in {store.root}: run "
                    f"that first (bench stage {stage.id[:16]})"
                )
            inputs[stage.id] = source.digest
        store.claim(self.kind, self.id, inputs, self.resumes)
        began = time.monotonic()
        self.run(folder, store, report)
        return store.record(self.kind, self.id, inputs, time.monotonic() - began)

    def output(self, store: Store) -> Path:
        """The folder of the outputs."""
        return store.folder(self.kind, self.id)


def identify(kind: str, key: dict[str, Any], needs: list[str]) -> str:
    """The identity of a stage, as hex: its kind, its key, and the identities of what it needs."""
    return sha256_text(canonical_json([kind, key, needs]))
