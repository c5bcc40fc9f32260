"""Optimisers, one file each, found by name."""

from trainers.optimizers.base import Optimizer
from trainers.registry import Registry

OPTIMIZERS: Registry[type[Optimizer]] = Registry(
    "optimizer",
    "dpo_bench.optimizers",
    {
        "adamw": "trainers.optimizers.adamw:AdamW",
        "adafactor": "trainers.optimizers.adafactor:Adafactor",
        "adamw-8bit": "trainers.optimizers.adamw_8bit:AdamW8bit",
    },
    Optimizer,
)

__all__ = ["OPTIMIZERS", "Optimizer"]
