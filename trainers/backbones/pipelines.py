"""What of a pipeline's folder holds no weights: index, scheduler, tokenizers."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import diffusers
from diffusers import DDPMScheduler
from torch import Tensor
from transformers import CLIPTokenizer, T5EncoderModel, T5Tokenizer

from trainers.backbones.configs import (
    expect_class,
    read_config,
    read_settings,
    refusing,
    shown,
)
from trainers.errors import UserError
from trainers.input.paths import is_regular, read_bytes

INDEX = "model_index.json"
"""Where a pipeline's folder says of which classes its parts are."""
SCHEDULER = "scheduler_config.json"
SCHEDULERS = {
    "diffusion": (
        "DDIMScheduler", "DDPMScheduler", "PNDMScheduler", "LMSDiscreteScheduler",
        "EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler", "HeunDiscreteScheduler",
        "DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler", "KDPM2DiscreteScheduler",
        "KDPM2AncestralDiscreteScheduler", "DEISMultistepScheduler", "UniPCMultistepScheduler",
    ),
    "flow": ("FlowMatchEulerDiscreteScheduler",),
}  # fmt: skip
"""Schedulers that a model may come with, by process. Images are drawn by another, made from its
settings."""
TIMESTEPS = 1000
"""Most timesteps of training: networks of these makes know no others."""
UNUSED = {
    "safety_checker": ("StableDiffusionSafetyChecker",),
    "feature_extractor": ("CLIPImageProcessor", "CLIPFeatureExtractor", "SiglipImageProcessor"),
    "image_encoder": ("CLIPVisionModelWithProjection", "SiglipVisionModel"),
}
"""Parts that a folder may have besides; they are not read."""
LARGEST_SIDE = 1024
"""Of the latents of an image of the size that a network was trained for."""


def read_index(folder: Path, pipeline: Any, kinds: Mapping[str, Any]) -> dict[str, Any]:
    """The index of a pipeline's folder, in which every class is a known one.

    Args:
        folder: The folder.
        pipeline: The pipeline's class.
        kinds: Classes of the parts with weights, by folder; they need not all be there.

    Raises:
        UserError: If there is none, or it names another class.
    """
    path = folder / INDEX
    index = read_settings(path)
    expected = {
        **{part: (kind.__name__,) for part, kind in kinds.items()},
        **{p.replace("text_encoder", "tokenizer"): tokenizers(k)
           for p, k in kinds.items() if p.startswith("text_encoder")},
        "scheduler": (*SCHEDULERS["diffusion"], *SCHEDULERS["flow"]),
    }  # fmt: skip
    if (name := index.get("_class_name")) != pipeline.__name__:
        raise UserError(
            f"{path}: expected a {pipeline.__name__}, got {shown(name)}: name the backbone that "
            "the model is made for, or another folder"
        )
    for part, value in index.items():
        known = expected.get(part) or UNUSED.get(part, ())
        if isinstance(value, list) and any(value) and value[-1] not in known:
            raise UserError(
                f"{path}: {part}: expected {' or '.join(known) or 'no such part'}, got "
                f"{shown(value[-1])}: give a folder that save_pretrained of a {pipeline.__name__} "
                "has written"
            )
    return index


def read_scheduler(folder: Path, process: Literal["diffusion", "flow"]) -> tuple[Any, Any]:
    """The class of a model's scheduler, and its settings.

    Raises:
        UserError: If it is no known one for the process, or a setting is wrong.
    """
    path = folder / SCHEDULER
    config = read_config(path, finite=False)
    if (name := config.get("_class_name")) not in SCHEDULERS[process]:
        raise UserError(
            f"{path}: expected a {' or '.join(SCHEDULERS[process])}, got {shown(name)}: save such "
            "a one there"
        )
    kind = getattr(diffusers, str(name))
    expect_class(path, config, kind)
    steps = config.get("num_train_timesteps", TIMESTEPS)
    if not 1 < steps <= TIMESTEPS:
        raise UserError(
            f"{path}: num_train_timesteps: expected 2 to {TIMESTEPS}, which the network knows, got "
            f"{steps}: take the file from the model's repository again"
        )
    if config.get("steps_offset", 0) not in (0, 1):
        raise UserError(
            f"{path}: steps_offset: expected 0 or 1, got {shown(config['steps_offset'])}: take the "
            "file from the model's repository again"
        )
    return kind, config


def noise_schedule(folder: Path, config: Mapping[str, Any]) -> tuple[Any, Tensor]:
    """What a model of betas was trained by, and its signal-to-noise ratio, ``float64[T]``.

    Raises:
        UserError: If the schedule is unknown or impossible, or ends in pure noise although the
            network predicts the noise: all that it could tell there of the image is lost.
    """
    path = folder / SCHEDULER
    if "beta_schedule" not in config:
        raise UserError(f"{path}: expected a noise schedule by betas, got a config without any")
    with refusing(path, "a known schedule of betas"):
        scheduler = DDPMScheduler.from_config(config)
    expect_class(path, {**config, "_class_name": "DDPMScheduler"}, DDPMScheduler)
    if (kind := scheduler.config.prediction_type) not in ("epsilon", "v_prediction"):
        raise UserError(f"{path}: expected eps- or v-prediction, got {shown(kind)}")
    kept = scheduler.alphas_cumprod.double()
    falling = bool((kept.diff() < 0).all())
    if len(kept) != len(scheduler) or not (falling and kept[-1] >= 0 and kept[0] < 1):
        raise UserError(
            f"{path}: expected betas between 0 and 1, one for each training timestep, got others: "
            "take the file from the model's repository again"
        )
    if kind == "epsilon" and (kept[-1] == 0 or scheduler.config.rescale_betas_zero_snr):
        raise UserError(
            f"{path}: expected v-prediction where the last timestep is pure noise, got eps-"
            "prediction, from which no image follows there: set rescale_betas_zero_snr to false, "
            "or prediction_type to v_prediction if the network was trained so"
        )
    return scheduler, kept / (1 - kept)


def tokenizers(encoder: Any) -> tuple[str, ...]:
    """Names of the classes of tokenizers for a text encoder."""
    kind = _tokenizer_kind(encoder).__name__
    return kind, f"{kind}Fast"


def _tokenizer_kind(encoder: Any) -> Any:
    return T5Tokenizer if encoder is T5EncoderModel else CLIPTokenizer


def check_tokenizer(folder: Path, encoder: Any) -> None:
    """Refuse a folder that lacks a vocabulary, or names another class than the text encoder's.

    Raises:
        UserError: If so. Without a vocabulary the library would make an empty one.
    """
    older = ["spiece.model"] if encoder is T5EncoderModel else ["vocab.json", "merges.txt"]
    ways = [["tokenizer.json"], older]
    if not any(all(is_regular(folder / name) for name in names) for names in ways):
        raise UserError(
            f"{folder}: expected {' or '.join(' and '.join(names) for names in ways)}, found "
            "none: take them from the model's repository"
        )
    for path in folder.glob("*.json"):
        if path.name != "tokenizer_config.json":
            read_bytes(path)
            continue
        name = read_settings(path).get("tokenizer_class")
        if name is not None and name not in tokenizers(encoder):
            raise UserError(
                f"{path}: tokenizer_class: expected {' or '.join(tokenizers(encoder))}, got "
                f"{shown(name)}: take the folder from the model's repository again"
            )


def load_tokenizer(folder: Path, encoder: Any, config: Mapping[str, Any]) -> Any:
    """The tokenizer of a text encoder with these settings.

    Raises:
        UserError: If it cannot be read, or has other tokens than the encoder, or longer texts.
    """
    check_tokenizer(folder, encoder)
    kind = _tokenizer_kind(encoder)
    with refusing(folder, f"a {kind.__name__}"):
        tokenizer = kind.from_pretrained(folder, local_files_only=True)
    known, own = config.get("vocab_size"), len(tokenizer)
    # T5's embedding is padded.
    if known is not None and (own > known or (own != known and kind is CLIPTokenizer)):
        raise UserError(
            f"{folder}: expected a tokenizer of {known} tokens, as its text encoder has, got one "
            f"of {own}: take both from the same model"
        )
    most = config.get("max_position_embeddings")
    if most is not None and not 2 < tokenizer.model_max_length <= most:
        raise UserError(
            f"{folder}: expected a model_max_length of at most {most}, as its text encoder reads, "
            f"got {shown(tokenizer.model_max_length)}: take its tokenizer_config.json from the "
            "model's repository"
        )
    return tokenizer


def expect_pixels(folder: Path, part: str, configs: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse a network without a size of its own, and an autoencoder without a scale.

    Raises:
        UserError: If so.
    """
    side, scale = configs[part].get("sample_size"), configs["vae"].get("scaling_factor")
    if not isinstance(side, int) or not 1 <= side <= LARGEST_SIDE:
        raise UserError(
            f"{folder / part}: sample_size: expected a side of latents, 1 to {LARGEST_SIDE}, got "
            f"{shown(side)}: take its config.json from the model's repository"
        )
    if not isinstance(scale, (int, float)) or not scale > 0:
        raise UserError(
            f"{folder / 'vae'}: scaling_factor: expected a number above 0, got {shown(scale)}: "
            "take its config.json from the model's repository"
        )
