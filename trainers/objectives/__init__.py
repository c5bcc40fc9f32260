"""Preference objectives, one file each, found by name."""

from trainers.objectives.base import Objective, PairErrors
from trainers.registry import Registry

OBJECTIVES: Registry[type[Objective]] = Registry(
    "objective",
    "dpo_bench.objectives",
    {"dpo": "trainers.objectives.dpo:DPO", "sft": "trainers.objectives.sft:SFT"},
)

__all__ = ["OBJECTIVES", "Objective", "PairErrors"]
