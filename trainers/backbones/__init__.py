"""Backbones, one file each, found by name."""

from trainers.backbones.base import Backbone, Condition, Moments
from trainers.registry import Registry

BACKBONES: Registry[type[Backbone]] = Registry(
    "backbone",
    "dpo_bench.backbones",
    {
        "stable-diffusion": "trainers.backbones.stable_diffusion:StableDiffusion",
        "stable-diffusion-xl": "trainers.backbones.stable_diffusion_xl:StableDiffusionXL",
        "stable-diffusion-3": "trainers.backbones.stable_diffusion_3:StableDiffusion3",
    },
    Backbone,
)

__all__ = ["BACKBONES", "Backbone", "Condition", "Moments"]
