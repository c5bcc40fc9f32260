"""Stable Diffusion 1.x and 2.x, and every model of that make whatever its size."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from trainers.backbones.base import Backbone, Condition, Moments
from trainers.errors import UserError


class StableDiffusion(Backbone):
    """A UNet on the latents of an autoencoder, with eps- or v-prediction by its scheduler."""

    name: ClassVar[str] = "stable-diffusion"

    def __init__(self, folder: Path, device: str = "cpu") -> None:
        """See the base class."""
        missing = [p for p in ("unet", "vae", "text_encoder", "tokenizer", "scheduler")
                   if not (folder / p).is_dir()]  # fmt: skip
        if missing:
            raise UserError(
                f"expected a Stable Diffusion folder in the diffusers layout at {folder}, but "
                f"{', '.join(missing)} is missing: give a folder written by save_pretrained"
            )
        self.folder = folder
        self.device = device
        self.scheduler = DDPMScheduler.from_pretrained(folder / "scheduler")
        kind = self.scheduler.config.prediction_type
        if kind not in ("epsilon", "v_prediction"):
            raise UserError(f"{folder / 'scheduler'}: expected eps- or v-prediction, got {kind!r}")
        alphas = self.scheduler.alphas_cumprod.double()
        self.snr = alphas / (1 - alphas)

    @cached_property
    def _vae(self) -> Any:
        return self._frozen(AutoencoderKL, "vae")

    @cached_property
    def _text_encoder(self) -> Any:
        return self._frozen(CLIPTextModel, "text_encoder")

    @cached_property
    def _tokenizer(self) -> Any:
        return CLIPTokenizer.from_pretrained(self.folder / "tokenizer", local_files_only=True)

    def _frozen(self, kind: Any, part: str) -> Any:
        model = kind.from_pretrained(self.folder / part, local_files_only=True)
        return model.float().to(self.device).eval().requires_grad_(False)

    def load_network(self) -> nn.Module:
        """See the base class."""
        unet: nn.Module = UNet2DConditionModel.from_pretrained(
            self.folder / "unet", local_files_only=True
        )
        return unet.float().to(self.device)

    @torch.no_grad()
    def encode_images(self, pixels: Tensor) -> Moments:
        """See the base class."""
        posterior = self._vae.encode(pixels.to(self.device)).latent_dist
        scale = self._vae.config.scaling_factor
        return Moments(scale * posterior.mean, scale * posterior.std)

    @torch.no_grad()
    def encode_prompts(self, prompts: Sequence[str]) -> Condition:
        """See the base class; prompts are padded and cut to the tokenizer's length."""
        tokens = self._tokenizer(
            list(prompts), padding="max_length", truncation=True, return_tensors="pt"
        ).input_ids
        states: Tensor = self._text_encoder(tokens.to(self.device)).last_hidden_state
        return {"text": states}

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

    def save_network(self, network: nn.Module, folder: Path) -> None:
        """See the base class."""
        assert isinstance(network, UNet2DConditionModel)
        network.save_pretrained(folder / "unet")
