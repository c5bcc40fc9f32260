"""What the networks are condition and shown, against diffusers' own pipelines and the formulas."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import (
    AutoencoderKL,
    DiffusionPipeline,
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from torch import Tensor

from trainers.backbones import BACKBONES, Backbone
from trainers.errors import UserError
from trainers.machine.precision import Precision, torch_dtype
from trainers.timesteps.scales.inverse_sqrt_snr import InverseSqrtSNR

XL, SD3 = "stable-diffusion-xl", "stable-diffusion-3"
PROMPTS = [["owl", "", "far too long a prompt"], ["owl"], [""]]
STEPS = torch.tensor([0, 499, 900, 999])


def draws(channels: int) -> tuple[Tensor, Tensor]:
    """Latents and noise for the four steps."""
    generator = torch.Generator().manual_seed(1)
    latents, noise = torch.randn((2, len(STEPS), channels, 4, 4), generator=generator)
    return latents, noise


def close(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("prompts", PROMPTS)
def test_prompts_of_xl(backbones: dict[str, Backbone], xl_folder: Path, prompts: list[str]) -> None:
    """Both encoders side by side, and the second's projection, as the pipeline makes them.

    The pipeline's unconditional branch is no prompt at all: zeros.
    """
    pipeline = StableDiffusionXLPipeline.from_pretrained(xl_folder, add_watermarker=False)
    text, zeros, pooled, _ = pipeline.encode_prompt(prompts, device="cpu")
    condition = backbones[XL].encode_prompts(prompts)
    assert condition.keys() == {"text", "pooled"}
    assert condition["text"].shape == (len(prompts), 8, 16 + 24)
    close(condition["text"], text)
    close(condition["pooled"], pooled)
    assert not zeros.any()
    assert condition["text"].any(dim=-1).all()


@pytest.mark.parametrize("t5", [True, False])
@pytest.mark.parametrize("prompts", PROMPTS)
def test_prompts_of_sd3(
    sd3_folder: Path, sd3_without_t5: Path, prompts: list[str], t5: bool
) -> None:
    """CLIP's states, then T5's: of the encoder, or zeros where it is missing."""
    folder, absent = (sd3_folder, {}) if t5 else (
        sd3_without_t5, {"text_encoder_3": None, "tokenizer_3": None}
    )  # fmt: skip
    pipeline = StableDiffusion3Pipeline.from_pretrained(folder, **absent)
    text, _, pooled, _ = pipeline.encode_prompt(prompts, None, None, device="cpu")
    condition = BACKBONES.get(SD3)(folder).encode_prompts(prompts)
    assert condition["text"].shape == (len(prompts), 8 + 256, 48)
    close(condition["text"], text)
    close(condition["pooled"], pooled)
    assert bool(condition["text"][:, 8:].any()) == t5


def test_only_xl_is_conditioned_on_sizes(backbones: dict[str, Backbone]) -> None:
    assert [name for name, b in backbones.items() if b.micro_conditioned] == [XL]


@pytest.mark.parametrize("name", [XL, SD3])
def test_latents_are_what_the_pipeline_decodes(
    backbones: dict[str, Backbone], folders: dict[str, Path], name: str
) -> None:
    """It decodes latents / scale + shift, which must be the mean of the posterior again."""
    vae = AutoencoderKL.from_pretrained(folders[name] / "vae")
    pixels = torch.rand((2, 3, 32, 32), generator=torch.Generator().manual_seed(0)) * 2 - 1
    moments = backbones[name].encode_images(pixels)
    with torch.no_grad():
        posterior = vae.encode(pixels).latent_dist
    scale, shift = vae.config.scaling_factor, vae.config.shift_factor or 0.0
    assert bool(shift) == (name == SD3)
    close(moments.mean / scale + shift, posterior.mean)
    close(moments.std / scale, posterior.std)


def test_prediction_of_xl(backbones: dict[str, Backbone], xl_folder: Path) -> None:
    """The very output of the UNet, for whom sizes make a difference."""
    backbone = backbones[XL]
    latents, _ = draws(4)
    condition = backbone.encode_prompts(["owl"] * 4)
    condition["micro"] = torch.tensor([[32.0, 48, 0, 8, 32, 32]]).repeat(4, 1)
    unet = UNet2DConditionModel.from_pretrained(xl_folder / "unet")
    added = {"text_embeds": condition["pooled"], "time_ids": condition["micro"]}
    with torch.no_grad():
        theirs = unet(latents, STEPS, condition["text"], added_cond_kwargs=added).sample
        network = backbone.load_network()
        assert torch.equal(backbone.predict(network, latents, STEPS, condition), theirs)
        condition["micro"] = condition["micro"] + 1
        assert not torch.equal(backbone.predict(network, latents, STEPS, condition), theirs)


def test_xl_is_noised_as_stable_diffusion(backbones: dict[str, Backbone]) -> None:
    """The two have one schedule."""
    latents, noise = draws(4)
    xl, sd = backbones[XL], backbones["stable-diffusion"]
    assert torch.equal(xl.snr, sd.snr)
    assert torch.equal(xl.add_noise(latents, noise, STEPS), sd.add_noise(latents, noise, STEPS))
    assert torch.equal(xl.target(latents, noise, STEPS), noise)


def sigmas() -> Tensor:
    """3 s / (1 + 2 s) at s = (t + 1) / 1000: Stable Diffusion 3's shift of 3."""
    s = (STEPS.double() + 1) / 1000
    return (3 * s / (1 + 2 * s)).view(-1, 1, 1, 1)


def test_flow(backbones: dict[str, Backbone]) -> None:
    """x = (1 - sigma) x_0 + sigma eps, v = eps - x_0 (arXiv 2403.03206, section 2)."""
    latents, noise = draws(8)
    noisy = backbones[SD3].add_noise(latents, noise, STEPS).double()
    close(noisy, (1 - sigmas()) * latents + sigmas() * noise)
    assert torch.equal(noisy[3].float(), noise[3])
    velocity = backbones[SD3].target(latents, noise, STEPS).double()
    close(noisy - sigmas() * velocity, latents.double())
    close(noisy + (1 - sigmas()) * velocity, noise.double())


def test_flow_is_that_of_the_scheduler(backbones: dict[str, Backbone], sd3_folder: Path) -> None:
    """Its list of timesteps runs the other way."""
    scheduler = FlowMatchEulerDiscreteScheduler.from_pretrained(sd3_folder / "scheduler")
    latents, noise = draws(8)
    times = scheduler.timesteps[999 - STEPS]
    close(
        backbones[SD3].add_noise(latents, noise, STEPS),
        scheduler.scale_noise(latents, times, noise),
    )


def test_prediction_of_sd3(backbones: dict[str, Backbone], sd3_folder: Path) -> None:
    """The very output of the transformer at time 1000 sigma."""
    backbone = backbones[SD3]
    latents, _ = draws(8)
    condition = backbone.encode_prompts(["owl"] * 4)
    transformer = SD3Transformer2DModel.from_pretrained(sd3_folder / "transformer")
    with torch.no_grad():
        theirs = transformer(
            hidden_states=latents,
            timestep=1000 * sigmas().flatten().float(),
            encoder_hidden_states=condition["text"],
            pooled_projections=condition["pooled"],
        ).sample
        close(backbone.predict(backbone.load_network(), latents, STEPS, condition), theirs)


def test_snr_and_lambda_of_a_flow(backbones: dict[str, Backbone]) -> None:
    """((1 - sigma) / sigma)^2, falling to nothing; lambda rises with the noise, from 1 to 2."""
    snr = backbones[SD3].snr
    torch.testing.assert_close(
        snr[STEPS], (1 / sigmas().flatten() - 1).square(), rtol=1e-4, atol=1e-12
    )
    assert len(snr) == 1000
    assert (snr.diff() < 0).all()
    assert snr[-1] == 0
    factors = InverseSqrtSNR().factors(snr)
    assert (factors[0].item(), factors[-1].item()) == (1.0, 2.0)
    assert (factors.diff() >= 0).all()
    with pytest.raises(UserError, match="signal-to-noise ratio of 0"):
        InverseSqrtSNR(floor=None).factors(snr)


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", ["stable-diffusion", XL, SD3])
def test_text_encoders_in_half_precision(
    folders: dict[str, Path], name: str, precision: Precision
) -> None:
    """They are the pipeline's in that precision; the autoencoder stays what it is, to the bit.

    What is asked for in float32 afterwards is not that of the encoders in half precision.
    """
    backbone, prompts = BACKBONES.get(name)(folders[name]), ["owl", "red fox"]
    pixels = torch.linspace(-1, 1, 3 * 32 * 32).reshape(1, 3, 32, 32)
    full, before = backbone.encode_prompts(prompts), backbone.encode_images(pixels)
    half, after = backbone.encode_prompts(prompts, precision), backbone.encode_images(pixels)
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    again = backbone.encode_prompts(prompts)

    dtype = torch_dtype(precision)
    pipeline = DiffusionPipeline.from_pretrained(folders[name], dtype=dtype)
    options = {"prompt_2": None, "prompt_3": None} if name == SD3 else {}
    with torch.no_grad():
        found = pipeline.encode_prompt(
            prompts,
            device="cpu",
            num_images_per_prompt=1,
            do_classifier_free_guidance=False,
            **options,
        )
    theirs = {"text": found[0]} if name == "stable-diffusion" else {
        "text": found[0], "pooled": found[2]
    }  # fmt: skip
    assert theirs.keys() == full.keys() == half.keys()
    for key, value in theirs.items():
        assert value.dtype == dtype
        assert half[key].dtype == torch.float32
        torch.testing.assert_close(half[key], value.float(), rtol=1e-2, atol=1e-3)
        assert torch.equal(half[key], half[key].to(dtype).float())
        assert not torch.equal(half[key], full[key].to(dtype).float())
        torch.testing.assert_close(half[key], full[key], rtol=0.1, atol=0.1)
        assert torch.equal(again[key], full[key])


def edited(folder: Path, out: Path, part: str, name: str, **changes: Any) -> Path:
    """A copy of a model folder with a config changed; None takes a key away."""
    shutil.copytree(folder, out)
    path = out / part / name
    config = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: v for key, v in config.items() if v is not None}))
    return out


def test_models_of_another_make_are_refused(folders: dict[str, Path]) -> None:
    """By whatever sets them apart."""
    sd, xl = "stable-diffusion", XL
    wrong = {
        (sd, xl): "has addition_embed_type None, but this has 'text_time'",
        (sd, SD3): "Stable Diffusion folder .* unet is missing",
        (xl, sd): "text_encoder_2, tokenizer_2 is missing",
        (xl, SD3): "unet is missing",
        (SD3, sd): "transformer, text_encoder_2, tokenizer_2 is missing",
        (SD3, xl): "transformer is missing",
    }
    for (backbone, folder), message in wrong.items():
        with pytest.raises(UserError, match=message):
            BACKBONES.get(backbone)(folders[folder])


@pytest.mark.parametrize(
    ("name", "part", "changes", "message"),
    [
        (XL, "unet", {"in_channels": 9}, "has in_channels 4, but this has 9"),
        (XL, "unet", {"time_cond_proj_dim": 8}, "has time_cond_proj_dim None"),
        (XL, "scheduler", {"prediction_type": "sample"}, "eps- or v-prediction, got 'sample'"),
        (XL, "scheduler", {"beta_schedule": None}, "expected a noise schedule by betas"),
        (SD3, "scheduler", {"_class_name": "DDIMScheduler"}, "expected a FlowMatchEuler"),
        (SD3, "scheduler", {"use_dynamic_shifting": True}, "got use_dynamic_shifting"),
        (SD3, "scheduler", {"invert_sigmas": True}, "got invert_sigmas"),
    ],
)
def test_what_a_backbone_cannot_do_is_refused(
    folders: dict[str, Path],
    tmp_path: Path,
    name: str,
    part: str,
    changes: dict[str, Any],
    message: str,
) -> None:
    """Inpainting, distilled models, other targets, grids that depend on the image."""
    file = "scheduler_config.json" if part == "scheduler" else "config.json"
    folder = edited(folders[name], tmp_path / "model", part, file, **changes)
    with pytest.raises(UserError, match=message):
        BACKBONES.get(name)(folder)
