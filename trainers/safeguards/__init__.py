"""What may be done to gradients before an objective sees a pair, one file each, found by name."""

from trainers.registry import Registry
from trainers.safeguards.base import Safeguard

SAFEGUARDS: Registry[type[Safeguard]] = Registry(
    "safeguard",
    "dpo_bench.safeguards",
    {
        "none": "trainers.safeguards.nothing:Nothing",
        "sdpo": "trainers.safeguards.sdpo:SDPO",
    },
    Safeguard,
)

__all__ = ["SAFEGUARDS", "Safeguard"]
