"""A real Stable Diffusion folder with small random weights, preference pairs, and their latents."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from PIL import Image
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from trainers.backbones.stable_diffusion import StableDiffusion
from trainers.config import TrainConfig
from trainers.data.encode import encode_pairs
from trainers.data.encoder import Encoder
from trainers.data.encodings import CachedEncodings, EncodingCache
from trainers.data.pairs import Pairs
from trainers.data.select import select
from trainers.data.settings import DataSettings
from trainers.data.sources import make_source
from trainers.objectives.csft import CSFT

SIDE = 32
"""Pixels; the autoencoder makes 4 x 4 latents of them."""
TOKENS = 8
PAIRS = 24
TIES = 4

PREFIXES = ("", *CSFT().prefixes)
"""What captions are encoded after, so that every objective finds what it asks for."""

Row = dict[str, Any]


def new_tokenizer() -> CLIPTokenizer:
    """CLIP's byte-pair tokenizer without merges: one token per letter."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    tokens = [*letters, *(c + "</w>" for c in letters), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    return CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=TOKENS)


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A StableDiffusionPipeline of Stable Diffusion 1.5's classes and noise schedule."""
    folder = tmp_path_factory.mktemp("stable-diffusion")
    tokenizer = new_tokenizer()
    end = len(tokenizer) - 1
    with torch.random.fork_rng():
        torch.manual_seed(0)
        text_encoder = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=len(tokenizer),
                hidden_size=16,
                intermediate_size=32,
                num_hidden_layers=1,
                num_attention_heads=2,
                max_position_embeddings=TOKENS,
                pad_token_id=end,
                bos_token_id=end - 1,
                eos_token_id=end,
            )
        )
        unet = UNet2DConditionModel(
            sample_size=SIDE // 8,
            block_out_channels=(8,),
            down_block_types=("CrossAttnDownBlock2D",),
            up_block_types=("CrossAttnUpBlock2D",),
            layers_per_block=1,
            cross_attention_dim=16,
            attention_head_dim=2,
            norm_num_groups=4,
        )
        vae = AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            block_out_channels=(8, 8, 8, 8),
            layers_per_block=1,
            latent_channels=4,
            norm_num_groups=4,
            sample_size=SIDE,
            scaling_factor=1.5,
        )
    scheduler = DDIMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )
    StableDiffusionPipeline(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def backbone(model_folder: Path) -> StableDiffusion:
    """The backbone over the folder."""
    return StableDiffusion(model_folder)


def picture(rng: np.random.Generator, kind: str, mode: str) -> bytes:
    """The encoded bytes of a smooth random picture."""
    coarse = rng.integers(256, size=(4, 4, 3), dtype=np.uint8)
    stream = io.BytesIO()
    image = Image.fromarray(coarse).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    image.convert(mode).save(stream, kind)
    return stream.getvalue()


@pytest.fixture(scope="session")
def rows() -> list[Row]:
    """Pick-a-Pic rows: JPEG and PNG, colour and grey, both labels, ties among them."""
    rng = np.random.default_rng(0)
    labels = [0.5 if i % 7 == 3 else float(i % 2) for i in range(PAIRS + TIES)]
    words = ["cat", "dog", "red fox", "owl", "an elk"]
    return [
        {
            "caption": words[i % len(words)],
            "jpg_0": picture(rng, "JPEG", "RGB"),
            "jpg_1": picture(rng, "PNG", "L" if i % 5 == 0 else "RGB"),
            "label_0": label,
        }
        for i, label in enumerate(labels)
    ]


@pytest.fixture(scope="session")
def write_parquet() -> Callable[[Path, list[Row]], Path]:
    """Write rows to a parquet file and give its path back."""

    def write(path: Path, rows: list[Row]) -> Path:
        pq.write_table(pa.Table.from_pylist(rows), path)
        return path

    return write


@pytest.fixture(scope="session")
def parquet(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[Row],
    write_parquet: Callable[[Path, list[Row]], Path],
) -> Path:
    """The rows as a file."""
    return write_parquet(tmp_path_factory.mktemp("pairs") / "pairs.parquet", rows)


@pytest.fixture(scope="session")
def open_pairs() -> Callable[..., Pairs]:
    """Encode the pairs of a file, under settings, and open them from a cache in ``folder``."""

    def make(path: Path, backbone: StableDiffusion, folder: Path, **changes: Any) -> Pairs:
        rows, settings = make_source(str(path)).open(), DataSettings(**changes)
        encoder = Encoder(backbone, settings, "weights")
        cache = EncodingCache(folder, encoder)
        chosen = select(rows, settings)
        index = encode_pairs(rows, chosen, encoder, cache, prefixes=PREFIXES).index
        return Pairs(index, settings, CachedEncodings(index, cache), backbone.micro_conditioned)

    return make


@pytest.fixture(scope="session")
def latents(
    parquet: Path,
    backbone: StableDiffusion,
    open_pairs: Callable[..., Pairs],
    tmp_path_factory: pytest.TempPathFactory,
) -> Pairs:
    """The 24 pairs that are no ties, encoded."""
    return open_pairs(parquet, backbone, tmp_path_factory.mktemp("encodings"))


@pytest.fixture(scope="session")
def lora() -> dict[str, Any]:
    """A small adapter, whose factor alpha / rank is not 1."""
    return {"name": "lora", "rank": 2, "alpha": 3.0}


@pytest.fixture(scope="session")
def configure() -> Callable[..., TrainConfig]:
    """A short plain Diffusion-DPO run, with any of its fields changed."""

    def make(**changes: Any) -> TrainConfig:
        base: dict[str, Any] = {
            "backbone": "stable-diffusion",
            "base_sha256": "0" * 64,
            "data_sha256": "1" * 64,
            "objective": {"name": "dpo", "beta": 100.0},
            "reference": {"name": "frozen"},
            "timesteps": {"law": {"name": "uniform"}, "scale": {"name": "constant"}},
            "optimizer": {"lr": 1e-3},
            "steps": 6,
            "batch_size": 2,
            "seed": 7,
        }
        return TrainConfig.model_validate(base | changes)

    return make
