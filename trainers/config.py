"""What decides a training run. Its hash is the run's identity."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    BeforeValidator,
    Field,
    InstanceOf,
    PlainSerializer,
    model_validator,
)

from trainers.average import Average
from trainers.data.settings import DataSettings
from trainers.errors import UserError
from trainers.files import canonical_json, sha256_text
from trainers.machine.batches import BatchSplit
from trainers.machine.precision import Matmul, Precision
from trainers.noising import NOISINGS, Noising
from trainers.noising.forward import Forward
from trainers.objectives import OBJECTIVES, Objective
from trainers.objectives.means import cuts_groups
from trainers.optimizers import OPTIMIZERS, Optimizer
from trainers.references import REFERENCES, ReferenceRule, Updating
from trainers.references.frozen import Frozen
from trainers.registry import OFF, Registry, Resolved, Settings, build
from trainers.safeguards import SAFEGUARDS, Safeguard
from trainers.safeguards.nothing import Nothing
from trainers.seeds import Seed
from trainers.timesteps import LAWS, SCALES, RewardScale, TimestepLaw
from trainers.weights import WEIGHTS, Weights
from trainers.weights.full import Full

S = TypeVar("S", bound=Settings)


def _slot(
    registry: Registry[type[S]], default: str | None = None
) -> tuple[BeforeValidator, PlainSerializer]:
    """Let a field take ``{"name": ..., **settings}`` and give it back with every default.

    ``default`` is the name where there is none.
    """

    def make(value: S | Mapping[str, Any]) -> S:
        if not isinstance(value, Mapping):
            return value
        return build(registry, value if default is None else {"name": default, **value})

    return BeforeValidator(make), PlainSerializer(lambda plugin: plugin.resolved())


class Timesteps(Resolved):
    """The timestep slot: a law to draw by, and a scale of the implicit reward."""

    law: Annotated[InstanceOf[TimestepLaw], *_slot(LAWS)]
    scale: Annotated[InstanceOf[RewardScale], *_slot(SCALES)]


class TrainConfig(Resolved):
    """A run, all defaults included.

    Models and data enter by what they are (hashes of their bytes), never by name or place.
    """

    version: Literal[2] = 2
    """Of the training loop: raised when equal settings make another network, or log something else.
    """
    backbone: str
    base_sha256: str
    data_sha256: str
    data: DataSettings = DataSettings()
    objective: Annotated[InstanceOf[Objective], *_slot(OBJECTIVES)]
    reference: Annotated[InstanceOf[ReferenceRule], *_slot(REFERENCES)]
    timesteps: Timesteps
    noising: Annotated[InstanceOf[Noising], *_slot(NOISINGS, "forward"), OFF] = Forward()
    """Which noise an image is mixed with."""
    safeguard: Annotated[InstanceOf[Safeguard], *_slot(SAFEGUARDS, "none"), OFF] = Nothing()
    """What is done to the gradients of pairs, whatever the objective."""
    optimizer: Annotated[InstanceOf[Optimizer], *_slot(OPTIMIZERS, "adamw")]
    weights: Annotated[InstanceOf[Weights], *_slot(WEIGHTS)] = Full()
    """What is trained."""
    ema: Average | None = None
    """A moving average of the policy beside it."""
    steps: int = Field(ge=1, le=10**8)
    batch_size: int = Field(ge=1, le=10**6)
    """Pairs per optimiser step."""
    accumulation: int = Field(1, ge=1)
    """Equal parts that a batch is cut into, to save memory."""
    caption_dropout: float = Field(0.0, ge=0, lt=1)
    precision: Precision = "float32"
    """What forwards compute in; trained weights and errors are float32 throughout."""
    matmul: Matmul = "float32"
    """How a GPU multiplies float32 values, the divergence of the gate included."""
    channels_last: bool = False
    """Lay images out with the channels last. Other kernels, other roundings: part of the run."""
    compile: bool = False
    """Compile the networks with torch.compile. Other roundings: part of the run."""
    gradient_checkpointing: bool = Field(False, exclude=True)
    """Compute blocks again in the backward pass, for memory. The same bits, so no part of the run's
    identity: it is in no dump."""
    seed: Seed

    @model_validator(mode="after")
    def _consistent(self) -> "TrainConfig":
        name, known = self.objective.name, self.objective.soft_labels
        if self.data.ties == "soft" and not known:
            raise ValueError(f"objective {name!r} cannot learn from ties: set 'data.ties: drop'")
        if self.data.labels == "probability" and not known:
            raise ValueError(
                f"objective {name!r} cannot learn from probabilities: set 'data.labels: given'"
            )
        return self

    @model_validator(mode="after")
    def _without_what_has_no_meaning(self) -> "TrainConfig":
        """What nothing depends on makes no other run.

        Neither the rule of a reference that is not used, nor a safeguard where there are no pairs.
        """
        unused: dict[str, Any] = {}
        if not self.objective.referenced and self.reference.name != Frozen.name:
            unused["reference"] = Frozen()
        if self.objective.images == 1 and self.safeguard.name != Nothing.name:
            unused["safeguard"] = Nothing()
        return self.model_copy(update=unused) if unused else self

    @model_validator(mode="after")
    def _frozen_weights_fit(self) -> "TrainConfig":
        stored, rule = self.weights.frozen_dtype, self.reference
        if stored not in ("float32", self.precision):
            raise ValueError(
                f"weights.frozen_dtype must be float32 or precision ({self.precision}), got "
                f"{stored}: set the two alike"
            )
        mixes = isinstance(rule, Updating) and rule.mix < 1
        if stored != "float32" and not self.weights.adapter and mixes:
            raise ValueError(
                f"reference {rule.name!r} adds small changes, which {stored} rounds away: leave "
                "weights.frozen_dtype at float32"
            )
        return self

    @property
    def averaging(self) -> tuple[Safeguard, Objective]:
        """What may look at means over rows."""
        return self.safeguard, self.objective

    def looks_ahead(self, split: BatchSplit) -> bool:
        """Whether means over rows need a pass of their own, since a part has not all of them."""
        return cuts_groups(self.averaging, self.batch_size, split.rows // split.parts)

    def passes(self, split: BatchSplit) -> int:
        """Passes through a network that a row takes: one forward, two more backward; 8 of DPO."""
        objective = self.objective
        forwards = objective.images * (1 + self.noising.forwards) + 2 * objective.mismatched
        backward = 2 * objective.images
        return forwards * (1 + self.looks_ahead(split)) + self.reference_passes(split) + backward

    def reference_passes(self, split: BatchSplit) -> int:
        """Those of them that are for the errors of the reference; 2 of DPO."""
        objective = self.objective
        return objective.images * objective.referenced * (1 + self.looks_ahead(split))

    def run_id(self) -> str:
        """sha256 of the canonical JSON of every field that is part of the run's identity."""
        return sha256_text(canonical_json(self.model_dump(mode="json")))

    def prefix_id(self) -> str:
        """What decides the steps made so far, as hex: all of the run but how many there will be.

        A schedule that falls towards the last step depends on their number, too.
        """
        dump = self.model_dump(mode="json")
        if self.optimizer.schedule == "constant":
            del dump["steps"]
        return sha256_text(canonical_json(dump))

    def check_shardable(self) -> None:
        """Refuse what FSDP cannot do exactly.

        Raises:
            UserError: With the setting to change.
        """
        exact = [repr(name) for name in OPTIMIZERS.names() if OPTIMIZERS.get(name).shardable]
        faults = {
            f"weights {self.weights.name!r}: an adapter is small, and needs no FSDP":
                self.weights.adapter,
            f"optimizer {self.optimizer.name!r}: only {' or '.join(exact)} treats each weight by "
            "itself": not self.optimizer.shardable,
            "precision 'float16': its overflows are found by each process alone; take 'bfloat16'":
                self.precision == "float16",
            "channels_last": self.channels_last,
            "compile": self.compile,
        }  # fmt: skip
        if found := [fault for fault, there in faults.items() if there]:
            raise UserError(
                f"not with FSDP: {'; '.join(found)}: change that, or launch without FSDP"
            )
