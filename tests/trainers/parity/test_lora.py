"""Low-rank adapters derived again: merged weights, and the pretrained network as the reference."""

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from trainers.config import TrainConfig
from trainers.core import Trainer
from trainers.data.base import PairData
from trainers.weights.adapter import Adapted


class Merged(nn.Module):
    """A network with weights W + alpha / rank * B A, of which A and B are the parameters."""

    def __init__(self, plain: nn.Module, adapter: dict[str, Tensor], factor: float) -> None:
        super().__init__()
        self.hidden = [plain]
        self.factor = factor
        self.names = list(adapter)
        self.values = nn.ParameterList(nn.Parameter(v.detach().clone()) for v in adapter.values())

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        plain = self.hidden[0]
        values = dict(zip(self.names, self.values, strict=True))
        weights = dict(plain.named_parameters())
        for name, low in values.items():
            if "lora_A" not in name:
                continue
            layer = name.split("/lora_A")[0].replace("/", ".")
            high = values[name.replace("lora_A", "lora_B")]
            weights[f"{layer}.weight"] = weights[f"{layer}.weight"] + self.factor * high @ low
        return functional_call(plain, weights, args, kwargs)


def test_diffusion_dpo_with_adapters(
    precise: Any, configure: Callable[..., TrainConfig], latents: PairData, shadow: Any,
    agree: Callable[[Trainer, Any], None],
) -> None:  # fmt: skip
    """Four steps: loss, the gradient of every A and B, AdamW; adapters off is the reference."""
    config = configure(
        objective={"name": "dpo", "beta": 5000.0},
        optimizer={"lr": 1e-2},
        weights={"name": "lora", "rank": 2, "alpha": 6.0},
        batch_size=3,
    )
    trainer = Trainer(config, precise, latents)
    assert isinstance(trainer.policy, Adapted)
    plain = shadow(trainer)
    policy = Merged(plain.policy, dict(trainer.policy.adapter.items()), 6.0 / 2)
    original = dataclasses.replace(plain, policy=policy, lr=1e-2)
    assert len(original.parameters) == len(list(trainer.policy.parameters())) > 0
    losses = []
    for _ in range(4):
        agree(trainer, original)
        losses.append(original.loss)
    assert abs(losses[0] - torch.tensor(2.0, dtype=torch.float64).log().item()) < 1e-12
    assert min(abs(loss - losses[0]) for loss in losses[1:]) > 1e-3
