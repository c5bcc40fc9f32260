"""How noise is found for an image, one file each, found by name."""

from trainers.noising.base import Noising, Normal, Predict
from trainers.registry import Registry

NOISINGS: Registry[type[Noising]] = Registry(
    "noising",
    "dpo_bench.noisings",
    {
        "forward": "trainers.noising.forward:Forward",
        "ddim-inversion": "trainers.noising.ddim_inversion:DDIMInversion",
        "renoise": "trainers.noising.renoise:ReNoise",
    },
    Noising,
)

__all__ = ["NOISINGS", "Noising", "Normal", "Predict"]
