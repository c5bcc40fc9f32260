"""Objectives, one file each, found by name."""

from trainers.objectives.base import Batch, Objective, Side, State, Values
from trainers.registry import Registry

OBJECTIVES: Registry[type[Objective]] = Registry(
    "objective",
    "dpo_bench.objectives",
    {
        "dpo": "trainers.objectives.dpo:DPO",
        "sft": "trainers.objectives.sft:SFT",
        "ipo": "trainers.objectives.ipo:IPO",
        "kto": "trainers.objectives.kto:KTO",
        "dspo": "trainers.objectives.dspo:DSPO",
        "mapo": "trainers.objectives.mapo:MaPO",
        "auto-beta": "trainers.objectives.auto_beta:AutoBeta",
    },
    Objective,
)

__all__ = ["OBJECTIVES", "Batch", "Objective", "Side", "State", "Values"]
