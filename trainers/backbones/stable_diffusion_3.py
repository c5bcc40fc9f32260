"""Stable Diffusion 3 and 3.5: a transformer trained by flow matching (arXiv 2403.03206).

With noise share sigma in (0, 1],

    x_sigma = (1 - sigma) x_0 + sigma eps        target v = eps - x_0        time 1000 sigma

The training grid is the scheduler's own, turned round: timestep ``i`` of ``T`` has

    s = (i + 1) / T        sigma_i = shift s / (1 + (shift - 1) s)

so that, as with the other backbones, a larger timestep is a noisier one, and laws that count
intervals of timesteps mean the same. It ends at sigma = 1, pure noise.

The signal-to-noise ratio is ``((1 - sigma) / sigma)^2``, and the reward scale follows from it:
``1 / sqrt(SNR) = sigma / (1 - sigma)``, which the scale ``inverse-sqrt-snr`` bounds.

Errors are those of v. At one x_sigma an error of eps means ``1 / (1 - sigma)`` times that error of
v, so a beta that suits eps-prediction is too large here (flow_grpo takes 100 where Diffusion-DPO
takes 5000), and a bound ``delta`` on the divergence too small.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, SD3Transformer2DModel, StableDiffusion3Pipeline
from torch import Tensor, nn
from transformers import CLIPTextModelWithProjection, T5EncoderModel

from trainers.backbones.base import Condition
from trainers.backbones.folders import published
from trainers.backbones.latent import LatentModel
from trainers.backbones.pipelines import SCHEDULER
from trainers.errors import UserError
from trainers.machine.precision import Precision, torch_dtype

T5_TOKENS = 256
"""Length of the T5 states: the pipeline's default, so that training sees what sampling does."""


class StableDiffusion3(LatentModel):
    """Conditioned by two CLIP encoders and, if its folder is there, a T5 encoder."""

    name: ClassVar[str] = "stable-diffusion-3"
    title: ClassVar[str] = "Stable Diffusion 3"
    process: ClassVar[Literal["diffusion", "flow"]] = "flow"
    network_part: ClassVar[str] = "transformer"
    parts: ClassVar[tuple[str, ...]] = (
        "transformer", "vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2",
        "scheduler",
    )  # fmt: skip
    network_class: ClassVar[Any] = SD3Transformer2DModel
    encoders: ClassVar[dict[str, Any]] = {
        "vae": AutoencoderKL,
        "text_encoder": CLIPTextModelWithProjection,
        "text_encoder_2": CLIPTextModelWithProjection,
        "text_encoder_3": T5EncoderModel,
    }
    pipeline_class: ClassVar[Any] = StableDiffusion3Pipeline
    published: ClassVar[Mapping[str, dict[str, Any]]] = published(__file__)

    def __init__(self, folder: Path, device: str = "cpu") -> None:
        """See the base class."""
        super().__init__(folder, device)
        where, (kind, config) = folder / "scheduler" / SCHEDULER, self._scheduler
        for key in ("use_dynamic_shifting", "invert_sigmas"):
            if config.get(key):
                raise UserError(
                    f"{where}: expected one noise grid for all images, got {key}: set it to false"
                )
        if not config.get("shift", 1.0) > 0:
            raise UserError(f"{where}: shift: expected a number above 0, got {config['shift']}")
        clips = [self._configs[part] for part in ("text_encoder", "text_encoder_2")]
        pooled = sum(clip.get("projection_dim", 512) for clip in clips)
        self._expect("transformer", pooled_projection_dim=pooled)
        if "text_encoder_3" in self._encoders:
            width = self._configs["text_encoder_3"]["d_model"]
            self._expect("transformer", joint_attention_dim=width)
        scheduler = kind.from_config(config)
        self._sigmas: Tensor = scheduler.sigmas.flip(0).to(device)
        self._times: Tensor = scheduler.timesteps.flip(0).to(device)
        sigmas = self._sigmas.double().cpu()
        self.snr = ((1 - sigmas) / sigmas).square()

    @classmethod
    def _dummy_inputs(cls, parts: Mapping[str, Any], side: int) -> dict[str, Any]:
        config = parts["transformer"].config
        tokens = parts["text_encoder"].config.max_position_embeddings + T5_TOKENS
        return {
            "hidden_states": torch.empty(1, config.in_channels, side, side),
            "timestep": torch.empty(1),
            "encoder_hidden_states": torch.empty(1, tokens, config.joint_attention_dim),
            "pooled_projections": torch.empty(1, config.pooled_projection_dim),
        }

    def _pipeline_options(self) -> dict[str, Any]:
        have = "text_encoder_3" in self._encoders
        return {} if have else {"text_encoder_3": None, "tokenizer_3": None}

    @torch.no_grad()
    def encode_prompts(self, prompts: Sequence[str], precision: Precision = "float32") -> Condition:
        """See the base class.

        "text" is ``[n, L + 256, C]``: the last but one states of both CLIP encoders side by side,
        filled up with zeros to the width C of T5's, and then those of T5, or zeros without it.
        "pooled" is ``[n, P_1 + P_2]``, the projections of both CLIP encoders.
        """
        outputs = [
            self._frozen(f"text_encoder{n}", precision)(
                self._tokens(f"tokenizer{n}", prompts), output_hidden_states=True
            )
            for n in ("", "_2")
        ]
        clip = torch.cat([output.hidden_states[-2] for output in outputs], dim=-1)
        t5 = self._t5(prompts, precision)
        clip = F.pad(clip, (0, t5.shape[-1] - clip.shape[-1]))
        pooled = torch.cat([output.text_embeds for output in outputs], dim=-1)
        return {"text": torch.cat([clip, t5], dim=1).float(), "pooled": pooled.float()}

    def _t5(self, prompts: Sequence[str], precision: Precision) -> Tensor:
        if "text_encoder_3" not in self._encoders:
            width = self._configs["transformer"]["joint_attention_dim"]
            shape, dtype = (len(prompts), T5_TOKENS, width), torch_dtype(precision)
            return torch.zeros(shape, dtype=dtype, device=self.device)
        tokens = self._tokens("tokenizer_3", prompts, T5_TOKENS)
        states: Tensor = self._frozen("text_encoder_3", precision)(tokens).last_hidden_state
        return states

    def add_noise(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """See the base class."""
        sigmas = self._sigmas[timesteps].view(-1, 1, 1, 1)
        return (1 - sigmas) * latents + sigmas * noise

    def target(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """See the base class; the same at every timestep."""
        return noise - latents

    def predict(
        self, network: nn.Module, noisy: Tensor, timesteps: Tensor, condition: Condition
    ) -> Tensor:
        """See the base class."""
        prediction: Tensor = network(
            hidden_states=noisy,
            timestep=self._times[timesteps],
            encoder_hidden_states=condition["text"],
            pooled_projections=condition["pooled"],
        ).sample
        return prediction
