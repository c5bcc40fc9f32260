"""What a spec says of machines: what each kind of stage is given. Execution only, no identity."""

import re
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from trainers.input.checked import Checked

Work = Literal["encode", "train", "generate", "score"]
"""The kinds of stages."""
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.:,+&|*()-]+$", max_length=200)]
"""What SLURM calls something; no spaces, and nothing that a shell reads."""
_TIME = re.compile(r"(?:(\d{1,4})-)?(\d{1,4}):([0-5]\d):([0-5]\d)")
OURS = frozenset(
    {"array", "chdir", "dependency", "error", "export", "export-file", "get-user-env"}
    | {"input", "job-name", "kill-on-invalid-dep", "nodes", "ntasks", "open-mode", "output"}
    | {"parsable", "requeue", "no-requeue", "signal", "test-only", "wait", "wrap"}
)
"""Options of sbatch that the launcher sets itself."""


def _seconds(value: Any) -> Any:
    """``12:00:00`` or ``2-00:00:00`` in seconds; YAML reads the former as 43200 without quotes."""
    if not isinstance(value, str):
        return value
    found = _TIME.fullmatch(value)
    if found is None:
        raise ValueError("expected hours:minutes:seconds or days-hours:minutes:seconds")
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds


def _not_ours(options: dict[str, str]) -> dict[str, str]:
    if clash := sorted(OURS & options.keys()):
        raise ValueError(f"the launcher sets {', '.join(clash)} itself: leave it out")
    return options


class Job(Checked):
    """What SLURM gives a stage."""

    time: Annotated[int, BeforeValidator(_seconds), Field(ge=60, le=10**8)] | None = None
    """Limit in seconds, or ``"12:00:00"``; None leaves it to the partition. A stage that meets it
    keeps what it has, and is put into the queue again."""
    cpus: int = Field(1, ge=1, le=4096)
    gpus: int = Field(0, ge=0, le=1024)
    memory: Annotated[str, Field(pattern=r"^[1-9]\d{0,8}[KMGT]$")] | None = None
    """E.g. ``16G``."""
    partition: Name | None = None
    account: Name | None = None
    qos: Name | None = None
    constraint: Name | None = None
    options: Annotated[
        dict[Annotated[str, Field(pattern=r"^[a-z][a-z-]*$")], Name], AfterValidator(_not_ours)
    ] = Field(default_factory=dict)
    """Further options of sbatch, without ``--``."""


class Share(Checked):
    """What Ray gives a stage."""

    cpus: float = Field(1, gt=0, le=4096)
    gpus: float = Field(0, ge=0, le=1024)
    memory: Annotated[str, Field(pattern=r"^[1-9]\d{0,8}[KMGT]$")] | None = None
    """E.g. ``16G``."""
    resources: dict[str, Annotated[float, Field(gt=0)]] = Field(default_factory=dict)
    """Of the cluster's own names."""


R = TypeVar("R", bound=Checked)


def _over(every: R, own: R) -> R:
    """What all kinds have, but for what one says itself."""
    return every.model_copy(update={key: getattr(own, key) for key in own.model_fields_set})


class Slurm(Checked):
    """Jobs of SLURM."""

    all: Job = Job()
    """What a kind of stage does not say itself."""
    encode: Job = Job()
    train: Job = Job()
    generate: Job = Job()
    score: Job = Job()
    warning: int = Field(120, ge=10, le=3600)
    """Seconds before the limit at which a stage is told to keep what it has and to leave."""

    @model_validator(mode="after")
    def _warned_in_time(self) -> "Slurm":
        for work in ("all", "encode", "train", "generate", "score"):
            limit = getattr(self, work).time
            if limit is not None and limit <= self.warning:
                raise ValueError(
                    f"{work}.time ({limit} s) must be longer than warning ({self.warning} s)"
                )
        return self

    def of(self, work: Work) -> Job:
        """What a kind of stage is given."""
        own: Job = getattr(self, work)
        return _over(self.all, own)


class Ray(Checked):
    """Tasks of Ray."""

    address: str | None = Field(None, max_length=200)
    """Of a cluster, or ``auto``; None takes ``RAY_ADDRESS``, or starts one of this machine."""
    retries: int = Field(3, ge=0, le=1000)
    """How often a stage is begun again whose worker or node died."""
    all: Share = Share()
    """What a kind of stage does not say itself."""
    encode: Share = Share()
    train: Share = Share()
    generate: Share = Share()
    score: Share = Share()

    def of(self, work: Work) -> Share:
        """What a kind of stage is given."""
        own: Share = getattr(self, work)
        return _over(self.all, own)


class Launch(Checked):
    """Where stages run that do not run in processes of this machine."""

    slurm: Slurm = Slurm()
    ray: Ray = Ray()
