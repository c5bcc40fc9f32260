"""What of the network is trained, one file each, found by name."""

from trainers.registry import Registry
from trainers.weights.base import Roles, Weights

WEIGHTS: Registry[type[Weights]] = Registry(
    "weights",
    "dpo_bench.weights",
    {
        "full": "trainers.weights.full:Full",
        "lora": "trainers.weights.lora:LoRA",
    },
    Weights,
)

__all__ = ["WEIGHTS", "Roles", "Weights"]
