"""``Trainer.advance`` on the same model and pairs, with one thing changed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

LORA = {"weights": {"name": "lora", "rank": 8}}
CHECKPOINTING = {"gradient_checkpointing": True}
ADAFACTOR = {"optimizer": {"name": "adafactor", "lr": 1e-5}}
HALF = {"precision": "bfloat16", "weights": {"name": "full", "frozen_dtype": "bfloat16"}}
NEVER = 10**9

VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "ours": ("the trainer with its defaults", {}),
    "ours-encode": ("the trainer, encoders in the loop", {}),
    "ours-four": ("the trainer, winners and losers in forwards of their own", {}),
    "ours-copy": (
        "the trainer, its reference a network besides the pretrained one, which stays in memory",
        {"reference": {"name": "hard-copy", "tau": NEVER}},
    ),
    "ours-gate": (
        "the same, the reference's gate measured every second step",
        {"reference": {"name": "hard-copy", "tau": 2, "delta": 1e9}},
    ),
    "ours-checkpointing": ("gradient_checkpointing", CHECKPOINTING),
    "ours-channels-last": ("channels_last", {"channels_last": True}),
    "ours-adafactor": ("adafactor", ADAFACTOR),
    "ours-lora": ("LoRA of rank 8", LORA),
    "ours-small": ("adafactor, gradient_checkpointing", ADAFACTOR | CHECKPOINTING),
    "ours-smallest": ("LoRA of rank 8, gradient_checkpointing", LORA | CHECKPOINTING),
    "ours-half": ("precision and frozen_dtype bfloat16", HALF),
}


def our_step(variant: str, folder: Path, pairs: int) -> Callable[[], None]:
    """A step on the model and the pairs of ``folder`` (see small_sd.py), ``pairs`` at a time."""
    import torch
    from small_sd import open_pairs
    from torch import Tensor, nn

    from trainers.backbones import Condition
    from trainers.backbones.stable_diffusion import StableDiffusion
    from trainers.config import TrainConfig
    from trainers.core import Trainer

    class Halves(StableDiffusion):
        """Runs winners and losers one after the other."""

        def predict(
            self, network: nn.Module, noisy: Tensor, t: Tensor, condition: Condition
        ) -> Tensor:
            halves = zip(noisy.chunk(2), t.chunk(2), condition["text"].chunk(2), strict=True)
            return torch.cat([super(Halves, self).predict(network, x, u, {"text": c})
                              for x, u, c in halves])  # fmt: skip

    values: dict[str, Any] = {
        "backbone": "stable-diffusion", "base_sha256": "0", "data_sha256": "0",
        "objective": {"name": "dpo"}, "reference": {"name": "frozen"},
        "timesteps": {"law": {"name": "uniform"}, "scale": {"name": "constant"}},
        "optimizer": {"lr": 1e-5}, "steps": NEVER, "batch_size": pairs, "seed": 0,
    }  # fmt: skip
    backbone = (Halves if variant == "ours-four" else StableDiffusion)(folder / "model")
    data = open_pairs(folder, backbone, live=variant == "ours-encode")
    config = TrainConfig.model_validate(values | VARIANTS[variant][1])
    trainer = Trainer(config, backbone, data)
    return lambda: (trainer.advance(), None)[1]
