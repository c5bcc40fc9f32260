"""Objectives, one file each, found by name."""

from trainers.objectives.base import Batch, Objective, Side, State, Values
from trainers.registry import Registry

OBJECTIVES: Registry[type[Objective]] = Registry(
    "objective",
    "dpo_bench.objectives",
    {
        "dpo": "trainers.objectives.dpo:DPO",
        "sft": "trainers.objectives.sft:SFT",
        "csft": "trainers.objectives.csft:CSFT",
        "ipo": "trainers.objectives.ipo:IPO",
        "hinge": "trainers.objectives.hinge:Hinge",
        "kto": "trainers.objectives.kto:KTO",
        "mapo": "trainers.objectives.mapo:MaPO",
        "simpo": "trainers.objectives.simpo:SimPO",
        "dspo": "trainers.objectives.dspo:DSPO",
        "dmpo": "trainers.objectives.dmpo:DMPO",
        "linear-dpo": "trainers.objectives.linear_dpo:LinearDPO",
        "alpha-dpo": "trainers.objectives.alpha_dpo:AlphaDPO",
        "anchored-dpo": "trainers.objectives.anchored_dpo:AnchoredDPO",
        "auto-beta": "trainers.objectives.auto_beta:AutoBeta",
        "thermo-dpo": "trainers.objectives.thermo_dpo:ThermoDPO",
        "smpo": "trainers.objectives.smpo:SmPO",
    },
    Objective,
)

__all__ = ["OBJECTIVES", "Batch", "Objective", "Side", "State", "Values"]
