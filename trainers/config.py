"""What decides a training run. Its hash is the run's identity."""

from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    InstanceOf,
    PlainSerializer,
    model_validator,
)

from trainers.data.settings import DataSettings
from trainers.files import canonical_json, sha256_text
from trainers.objectives import OBJECTIVES, Objective
from trainers.references import REFERENCES, ReferenceRule
from trainers.registry import Registry, Settings, build
from trainers.timesteps import LAWS, SCALES, RewardScale, TimestepLaw

S = TypeVar("S", bound=Settings)


def _slot(registry: Registry[type[S]]) -> tuple[BeforeValidator, PlainSerializer]:
    """Let a field take ``{"name": ..., **settings}`` and give it back with every default."""

    def make(value: S | Mapping[str, Any]) -> S:
        return build(registry, value) if isinstance(value, Mapping) else value

    return BeforeValidator(make), PlainSerializer(lambda plugin: plugin.resolved())


_Frozen = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Timesteps(BaseModel):
    """The timestep slot: a law to draw by, and a scale of the implicit reward."""

    model_config = _Frozen
    law: Annotated[InstanceOf[TimestepLaw], *_slot(LAWS)]
    scale: Annotated[InstanceOf[RewardScale], *_slot(SCALES)]


class Optimizer(BaseModel):
    """AdamW with a constant learning rate after a linear warm-up."""

    model_config = _Frozen
    lr: float = Field(gt=0)
    """The rate that is applied: no hidden factor of batch size or processes."""
    warmup_steps: int = Field(0, ge=0)
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = Field(1e-8, gt=0)
    weight_decay: float = Field(1e-2, ge=0)
    max_grad_norm: float = Field(1.0, gt=0)

    def lr_at(self, step: int) -> float:
        """Learning rate of 0-based ``step``."""
        return self.lr * min(1.0, (step + 1) / max(1, self.warmup_steps))


class TrainConfig(BaseModel):
    """A run, all defaults included.

    Models and data enter by what they are (hashes of their bytes), never by name or place.
    """

    model_config = _Frozen
    backbone: str
    base_sha256: str
    data_sha256: str
    data: DataSettings = DataSettings()
    objective: Annotated[InstanceOf[Objective], *_slot(OBJECTIVES)]
    reference: Annotated[InstanceOf[ReferenceRule], *_slot(REFERENCES)]
    timesteps: Timesteps
    optimizer: Optimizer
    steps: int = Field(ge=1)
    batch_size: int = Field(ge=1)
    """Pairs per optimiser step."""
    accumulation: int = Field(1, ge=1)
    """Equal parts that a batch is cut into, to save memory."""
    caption_dropout: float = Field(0.0, ge=0, lt=1)
    seed: int

    @model_validator(mode="after")
    def _consistent(self) -> "TrainConfig":
        if self.data.ties == "soft" and not self.objective.soft_labels:
            raise ValueError(
                f"objective {self.objective.name!r} cannot learn from ties: set 'data.ties: drop'"
            )
        return self

    def run_id(self) -> str:
        """sha256 of the canonical JSON of every field."""
        return sha256_text(canonical_json(self.model_dump(mode="json")))
