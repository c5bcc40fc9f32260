"""The Stable Diffusion backbone against diffusers and against the formulas of diffusion."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from torch import Tensor

from trainers.backbones.stable_diffusion import StableDiffusion
from trainers.errors import UserError
from trainers.timesteps.scales.inverse_sqrt_snr import InverseSqrtSNR

STEPS = torch.tensor([0, 10, 500, 999])


def alphas_bar() -> Tensor:
    """abar_t of Stable Diffusion: scaled-linear betas from 0.00085 to 0.012."""
    return torch.from_numpy(np.cumprod(1 - np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2))


def draws() -> tuple[Tensor, Tensor]:
    """Latents and noise for the four steps."""
    generator = torch.Generator().manual_seed(1)
    latents, noise = torch.randn((2, len(STEPS), 4, 4, 4), generator=generator)
    return latents, noise


def variant(model_folder: Path, folder: Path, prediction_type: str) -> Path:
    """The same model with another prediction type."""
    for part in ("unet", "vae", "text_encoder", "tokenizer"):
        (folder / part).symlink_to(model_folder / part)
    settings = json.loads((model_folder / "scheduler" / "scheduler_config.json").read_text())
    (folder / "scheduler").mkdir()
    text = json.dumps(settings | {"prediction_type": prediction_type})
    (folder / "scheduler" / "scheduler_config.json").write_text(text)
    return folder


def test_snr(backbone: StableDiffusion) -> None:
    """abar / (1 - abar): 1175 at the first step (1 - beta over beta), 0.0047 at the last."""
    kept = alphas_bar()
    torch.testing.assert_close(backbone.snr, kept / (1 - kept), rtol=1e-4, atol=0)
    assert backbone.snr[0].item() == pytest.approx((1 - 0.00085) / 0.00085, rel=1e-3)
    assert len(backbone.snr) == 1000


def test_lambda_of_the_loaded_schedule(backbone: StableDiffusion) -> None:
    """The values of SD's betas (arXiv 2505.18736, Fig. 2(d)) by way of the model folder."""
    factors = InverseSqrtSNR().factors(backbone.snr)
    golden = [1.000, 1.109, 1.279, 1.570, 1.750, 2.000]
    assert factors[[0, 500, 750, 900, 950, 999]].tolist() == pytest.approx(golden, abs=5e-4)
    assert factors.mean().item() == pytest.approx(1.205, abs=5e-4)


def test_forward_process(backbone: StableDiffusion) -> None:
    """x_t = sqrt(abar) x_0 + sqrt(1 - abar) eps; the target of eps-prediction is eps itself."""
    latents, noise = draws()
    kept = alphas_bar()[STEPS].float().view(-1, 1, 1, 1)
    expected = kept.sqrt() * latents + (1 - kept).sqrt() * noise
    noisy = backbone.add_noise(latents, noise, STEPS)
    torch.testing.assert_close(noisy, expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(backbone.target(latents, noise, STEPS), noise)


def test_velocity(model_folder: Path, tmp_path: Path) -> None:
    """v = sqrt(abar) eps - sqrt(1 - abar) x_0 (Salimans & Ho 2022, arXiv 2202.00512)."""
    backbone = StableDiffusion(variant(model_folder, tmp_path, "v_prediction"))
    latents, noise = draws()
    kept = alphas_bar()[STEPS].float().view(-1, 1, 1, 1)
    expected = kept.sqrt() * noise - (1 - kept).sqrt() * latents
    target = backbone.target(latents, noise, STEPS)
    torch.testing.assert_close(target, expected, rtol=1e-4, atol=1e-5)


def test_other_prediction_types_are_refused(model_folder: Path, tmp_path: Path) -> None:
    """Rather than trained towards the wrong target."""
    with pytest.raises(UserError, match="eps- or v-prediction, got 'sample'"):
        StableDiffusion(variant(model_folder, tmp_path, "sample"))


def test_missing_parts_are_named(model_folder: Path, tmp_path: Path) -> None:
    """All of them at once."""
    for part in ("unet", "scheduler", "tokenizer"):
        (tmp_path / part).symlink_to(model_folder / part)
    with pytest.raises(UserError, match="vae, text_encoder is missing"):
        StableDiffusion(tmp_path)


def test_prompts_are_encoded_as_the_pipeline_does(
    model_folder: Path, backbone: StableDiffusion
) -> None:
    """What is trained on is what is sampled with: short, empty and overlong prompts."""
    pipeline = StableDiffusionPipeline.from_pretrained(model_folder)
    for prompts in (["owl", "", "far too long a prompt"], ["owl"], [""]):
        theirs, _ = pipeline.encode_prompt(prompts, "cpu", 1, False)
        torch.testing.assert_close(
            backbone.encode_prompts(prompts)["text"], theirs, rtol=1e-4, atol=1e-5
        )


def test_prediction_is_the_networks(model_folder: Path, backbone: StableDiffusion) -> None:
    """The very output of diffusers' UNet, and a network of its own at each call."""
    unet = UNet2DConditionModel.from_pretrained(model_folder / "unet")
    latents, _ = draws()
    text = backbone.encode_prompts(["owl"])["text"].expand(len(STEPS), -1, -1)
    first, second = backbone.load_network(), backbone.load_network()
    with torch.no_grad():
        theirs = unet(latents, STEPS, encoder_hidden_states=text).sample
        assert torch.equal(backbone.predict(first, latents, STEPS, {"text": text}), theirs)
        for parameter in first.parameters():
            parameter.zero_()
        assert torch.equal(backbone.predict(second, latents, STEPS, {"text": text}), theirs)
