"""Stable Diffusion 1.x and 2.x, and every model of that make whatever its size."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextModel

from trainers.backbones.base import Condition
from trainers.backbones.folders import published
from trainers.backbones.latent import LatentModel
from trainers.backbones.pipelines import noise_schedule
from trainers.machine.precision import Precision


class StableDiffusion(LatentModel):
    """A UNet on the latents of an autoencoder, with eps- or v-prediction by its scheduler."""

    name: ClassVar[str] = "stable-diffusion"
    title: ClassVar[str] = "Stable Diffusion"
    parts: ClassVar[tuple[str, ...]] = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")
    network_class: ClassVar[Any] = UNet2DConditionModel
    encoders: ClassVar[dict[str, Any]] = {"vae": AutoencoderKL, "text_encoder": CLIPTextModel}
    pipeline_class: ClassVar[Any] = StableDiffusionPipeline
    published: ClassVar[Mapping[str, dict[str, Any]]] = published(__file__)
    fixed: ClassVar[Mapping[str, Any]] = {
        "addition_embed_type": None, "class_embed_type": None, "num_class_embeds": None,
        "time_cond_proj_dim": None,
    }  # fmt: skip

    def __init__(self, folder: Path, device: str = "cpu") -> None:
        """See the base class."""
        super().__init__(folder, device)
        texts = [self._configs[part] for part in self._tokenizers().values()]
        self._expect("unet", cross_attention_dim=sum(text["hidden_size"] for text in texts))
        self.scheduler, self.snr = noise_schedule(folder / "scheduler", self._scheduler[1])

    @classmethod
    def _dummy_inputs(cls, parts: Mapping[str, Any], side: int) -> dict[str, Any]:
        config, tokens = parts["unet"].config, parts["text_encoder"].config.max_position_embeddings
        return {
            "sample": torch.empty(1, config.in_channels, side, side),
            "timestep": torch.empty(1),
            "encoder_hidden_states": torch.empty(1, tokens, config.cross_attention_dim),
        }

    def _pipeline_options(self) -> dict[str, Any]:
        return {
            "safety_checker": None, "feature_extractor": None, "requires_safety_checker": False
        }  # fmt: skip

    @torch.no_grad()
    def encode_prompts(self, prompts: Sequence[str], precision: Precision = "float32") -> Condition:
        """See the base class; prompts are padded and cut to the tokenizer's length."""
        encoder = self._frozen("text_encoder", precision)
        return {"text": encoder(self._tokens("tokenizer", prompts)).last_hidden_state.float()}

    def add_noise(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """See the base class."""
        noisy: Tensor = self.scheduler.add_noise(latents, noise, timesteps)
        return noisy

    def target(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """See the base class."""
        if self.scheduler.config.prediction_type == "epsilon":
            return noise
        velocity: Tensor = self.scheduler.get_velocity(latents, noise, timesteps)
        return velocity

    def predict(
        self, network: nn.Module, noisy: Tensor, timesteps: Tensor, condition: Condition
    ) -> Tensor:
        """See the base class."""
        prediction: Tensor = network(noisy, timesteps, condition["text"]).sample
        return prediction
