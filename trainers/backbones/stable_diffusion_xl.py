"""Stable Diffusion XL (Podell et al. 2023, arXiv 2307.01952), its base model."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from diffusers import StableDiffusionXLPipeline
from torch import Tensor, nn
from transformers import CLIPTextModelWithProjection

from trainers.backbones.base import Condition
from trainers.backbones.folders import published
from trainers.backbones.stable_diffusion import StableDiffusion
from trainers.machine.precision import Precision


class StableDiffusionXL(StableDiffusion):
    """Stable Diffusion with two text encoders, conditioned on sizes and crop ("micro").

    Its autoencoder overflows in half precision, so latents are made in float32. To sample in half
    precision without the pipeline's detour, put ``madebyollin/sdxl-vae-fp16-fix``, with which the
    authors of Diffusion-DPO trained, in the place of the folder's ``vae``.

    A dropped caption is the encoding of "", as in the code of Diffusion-DPO. When the pipeline
    samples, the unconditional branch of its guidance is another: zeros, if the folder's
    ``force_zeros_for_empty_prompt`` holds, as it does for the released model.
    """

    name: ClassVar[str] = "stable-diffusion-xl"
    title: ClassVar[str] = "Stable Diffusion XL"
    parts: ClassVar[tuple[str, ...]] = (
        *StableDiffusion.parts, "text_encoder_2", "tokenizer_2"
    )  # fmt: skip
    encoders: ClassVar[dict[str, Any]] = {
        **StableDiffusion.encoders, "text_encoder_2": CLIPTextModelWithProjection
    }  # fmt: skip
    pipeline_class: ClassVar[Any] = StableDiffusionXLPipeline
    published: ClassVar[Mapping[str, dict[str, Any]]] = published(__file__)
    fixed: ClassVar[Mapping[str, Any]] = {
        **StableDiffusion.fixed, "addition_embed_type": "text_time"
    }  # fmt: skip
    micro_conditioned: ClassVar[bool] = True

    def __init__(self, folder: Path, device: str = "cpu") -> None:
        """See the base class."""
        super().__init__(folder, device)
        pooled = self._configs["text_encoder_2"].get("projection_dim", 512)
        times = 6 * (self._configs["unet"]["addition_time_embed_dim"] or 0)
        self._expect("unet", projection_class_embeddings_input_dim=pooled + times)

    @classmethod
    def _dummy_inputs(cls, parts: Mapping[str, Any], side: int) -> dict[str, Any]:
        pooled = parts["text_encoder_2"].config.projection_dim
        told = {"text_embeds": torch.empty(1, pooled), "time_ids": torch.empty(1, 6)}
        return {**super()._dummy_inputs(parts, side), "added_cond_kwargs": told}

    def _pipeline_options(self) -> dict[str, Any]:
        # By default there is a watermark wherever a package for it happens to be installed.
        zeros = self._pipeline_index().get("force_zeros_for_empty_prompt", True)
        return {"add_watermarker": False, "force_zeros_for_empty_prompt": bool(zeros)}

    @torch.no_grad()
    def encode_prompts(self, prompts: Sequence[str], precision: Precision = "float32") -> Condition:
        """See the base class.

        "text" joins the last but one states of both encoders, ``[n, L, C_1 + C_2]``; "pooled" is
        the projection of the second, ``[n, P]``.
        """
        first = self._frozen("text_encoder", precision)
        second = self._frozen("text_encoder_2", precision)
        one = first(self._tokens("tokenizer", prompts), output_hidden_states=True)
        two = second(self._tokens("tokenizer_2", prompts), output_hidden_states=True)
        states = torch.cat([one.hidden_states[-2], two.hidden_states[-2]], dim=-1)
        return {"text": states.float(), "pooled": two.text_embeds.float()}

    def predict(
        self, network: nn.Module, noisy: Tensor, timesteps: Tensor, condition: Condition
    ) -> Tensor:
        """See the base class."""
        added = {"text_embeds": condition["pooled"], "time_ids": condition["micro"]}
        prediction: Tensor = network(
            noisy, timesteps, condition["text"], added_cond_kwargs=added
        ).sample
        return prediction
