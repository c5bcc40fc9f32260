"""Timestep laws and reward scales, one file each, found by name."""

from trainers.registry import Registry
from trainers.timesteps.base import RewardScale, TimestepLaw

LAWS: Registry[type[TimestepLaw]] = Registry(
    "timestep law",
    "dpo_bench.timestep_laws",
    {
        "uniform": "trainers.timesteps.laws.uniform:Uniform",
        "discounted": "trainers.timesteps.laws.discounted:Discounted",
        "logit-normal": "trainers.timesteps.laws.logit_normal:LogitNormal",
    },
    TimestepLaw,
)
SCALES: Registry[type[RewardScale]] = Registry(
    "reward scale",
    "dpo_bench.reward_scales",
    {
        "constant": "trainers.timesteps.scales.constant:Constant",
        "inverse-sqrt-snr": "trainers.timesteps.scales.inverse_sqrt_snr:InverseSqrtSNR",
    },
    RewardScale,
)

__all__ = ["LAWS", "SCALES", "RewardScale", "TimestepLaw"]
