"""Reference rules, one file each, found by name."""

from trainers.references.base import Divergence, Event, Reference, ReferenceRule
from trainers.references.updating import Updating
from trainers.registry import Registry

REFERENCES: Registry[type[ReferenceRule]] = Registry(
    "reference",
    "dpo_bench.references",
    {
        "frozen": "trainers.references.frozen:Frozen",
        "hard-copy": "trainers.references.hard_copy:HardCopy",
        "soft": "trainers.references.soft:Soft",
        "ema": "trainers.references.ema:EMA",
    },
    ReferenceRule,
)

__all__ = ["REFERENCES", "Divergence", "Event", "Reference", "ReferenceRule", "Updating"]
