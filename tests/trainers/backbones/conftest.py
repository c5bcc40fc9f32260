"""Real SDXL and SD3 folders with small random weights, and pairs as each of them sees them."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import (
    AutoencoderKL,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

from trainers.backbones import BACKBONES, Backbone
from trainers.data.base import PairData

NEW = ("stable-diffusion-xl", "stable-diffusion-3")


def text_config(tokenizer: CLIPTokenizer, **changes: Any) -> CLIPTextConfig:
    end = len(tokenizer) - 1
    values = {
        "vocab_size": len(tokenizer),
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": tokenizer.model_max_length,
        "pad_token_id": end,
        "bos_token_id": end - 1,
        "eos_token_id": end,
    }
    return CLIPTextConfig(**(values | changes))


def autoencoder(**changes: Any) -> AutoencoderKL:
    values = {
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
        "block_out_channels": (8, 8, 8, 8),
        "layers_per_block": 1,
        "norm_num_groups": 4,
        "sample_size": 32,
    }
    return AutoencoderKL(**(values | changes))


@pytest.fixture(scope="session")
def tokenizer(model_folder: Path) -> CLIPTokenizer:
    return CLIPTokenizer.from_pretrained(model_folder / "tokenizer")


@pytest.fixture(scope="session")
def xl_folder(tokenizer: CLIPTokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A StableDiffusionXLPipeline with the schedule and the scheduler class of the released one."""
    folder = tmp_path_factory.mktemp("stable-diffusion-xl")
    with torch.random.fork_rng():
        torch.manual_seed(1)
        second = text_config(tokenizer, hidden_size=24, projection_dim=12, hidden_act="gelu")
        pipeline = StableDiffusionXLPipeline(
            vae=autoencoder(scaling_factor=0.13025),
            text_encoder=CLIPTextModel(text_config(tokenizer)),
            text_encoder_2=CLIPTextModelWithProjection(second),
            tokenizer=tokenizer,
            tokenizer_2=tokenizer,
            unet=UNet2DConditionModel(
                sample_size=4,
                block_out_channels=(8,),
                down_block_types=("CrossAttnDownBlock2D",),
                up_block_types=("CrossAttnUpBlock2D",),
                layers_per_block=1,
                cross_attention_dim=16 + 24,
                attention_head_dim=2,
                norm_num_groups=4,
                addition_embed_type="text_time",
                addition_time_embed_dim=4,
                projection_class_embeddings_input_dim=6 * 4 + 12,
            ),
            scheduler=EulerDiscreteScheduler(
                beta_start=0.00085,
                beta_end=0.012,
                beta_schedule="scaled_linear",
                steps_offset=1,
                timestep_spacing="leading",
            ),
            add_watermarker=False,
        )
    pipeline.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def sd3_folder(tokenizer: CLIPTokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A StableDiffusion3Pipeline with all three text encoders, and the released one's shift."""
    folder = tmp_path_factory.mktemp("stable-diffusion-3")
    letters = [(letter, -3.0) for letter in "▁abcdefghijklmnopqrstuvwxyz"]
    vocabulary = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *letters]
    with torch.random.fork_rng():
        torch.manual_seed(2)
        second = text_config(tokenizer, hidden_size=24, projection_dim=12, hidden_act="gelu")
        pipeline = StableDiffusion3Pipeline(
            transformer=SD3Transformer2DModel(
                sample_size=4,
                patch_size=2,
                in_channels=8,
                out_channels=8,
                num_layers=2,
                attention_head_dim=8,
                num_attention_heads=2,
                joint_attention_dim=48,
                caption_projection_dim=16,
                pooled_projection_dim=10 + 12,
                pos_embed_max_size=4,
                qk_norm="rms_norm",
            ),
            scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
            vae=autoencoder(latent_channels=8, scaling_factor=1.5305, shift_factor=0.0609),
            text_encoder=CLIPTextModelWithProjection(text_config(tokenizer, projection_dim=10)),
            text_encoder_2=CLIPTextModelWithProjection(second),
            text_encoder_3=T5EncoderModel(
                T5Config(
                    vocab_size=len(vocabulary), d_model=48, d_kv=8, d_ff=32, num_layers=1,
                    num_heads=2,
                )
            ),
            tokenizer=tokenizer,
            tokenizer_2=tokenizer,
            tokenizer_3=T5Tokenizer(vocab=vocabulary, extra_ids=0),
        )  # fmt: skip
    pipeline.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def sd3_without_t5(sd3_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same without its largest part, as it is often downloaded: the index still names it."""
    folder = tmp_path_factory.mktemp("small") / "stable-diffusion-3"
    shutil.copytree(sd3_folder, folder, ignore=shutil.ignore_patterns("*_3"))
    return folder


@pytest.fixture(scope="session")
def folders(model_folder: Path, xl_folder: Path, sd3_folder: Path) -> dict[str, Path]:
    """The folder of each backbone."""
    return {"stable-diffusion": model_folder, NEW[0]: xl_folder, NEW[1]: sd3_folder}


@pytest.fixture(scope="session")
def backbones(folders: dict[str, Path]) -> dict[str, Backbone]:
    """Every backbone over its folder."""
    return {name: BACKBONES.get(name)(folder) for name, folder in folders.items()}


@pytest.fixture(scope="session")
def data(
    parquet: Path,
    backbones: dict[str, Backbone],
    open_pairs: Callable[..., PairData],
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, PairData]:
    """The pairs, encoded by each of the new backbones; SDXL is conditioned on sizes and crops."""
    place = tmp_path_factory.mktemp("encodings")
    return {name: open_pairs(parquet, backbones[name], place / name) for name in NEW}


@pytest.fixture(scope="session")
def pairs(latents: PairData, data: dict[str, PairData]) -> dict[str, PairData]:
    """The pairs, encoded by every backbone."""
    return {"stable-diffusion": latents, **data}
