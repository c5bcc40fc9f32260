"""A model of Stable Diffusion 1.5's make, pairs of pictures, and their encodings, in one folder.

The widths are those of the original divided by ten, which leaves the costs of its parts in
proportion. Weights and pictures are random.
"""

import io
from pathlib import Path
from typing import Any

SIDE = 256
"""Height and width of a picture in pixels."""
PAIRS = 16
TOKENS, WIDTH = 77, 80
IDENTITY = "random weights"


def build(folder: Path) -> None:
    """Write the model, the pairs and their encodings, as `bench run` would find them."""
    from trainers.backbones.stable_diffusion import StableDiffusion
    from trainers.data.encode import encode_pairs
    from trainers.data.encoder import Encoder
    from trainers.data.encodings import EncodingCache
    from trainers.data.select import select
    from trainers.data.settings import DataSettings
    from trainers.data.sources import make_source

    _write_model(folder / "model")
    _write_pairs(folder / "pairs.parquet")
    rows, settings = make_source(str(folder / "pairs.parquet")).open(), DataSettings()
    encoder = Encoder(StableDiffusion(folder / "model"), settings, IDENTITY)
    cache = EncodingCache(folder / "encodings", encoder)
    encode_pairs(rows, select(rows, settings), encoder, cache).index.save(folder / "index.parquet")


def open_pairs(folder: Path, backbone: Any, live: bool) -> Any:
    """The pairs that :func:`build` wrote: from their encodings, or encoded whenever asked for."""
    from trainers.data.encoder import Encoder
    from trainers.data.encodings import CachedEncodings, EncodingCache, LiveEncodings
    from trainers.data.index import Index
    from trainers.data.pairs import Pairs
    from trainers.data.settings import DataSettings
    from trainers.data.sources import make_source

    index, settings = Index.load(folder / "index.parquet"), DataSettings()
    encoder = Encoder(backbone, settings, IDENTITY)
    if live:
        rows = make_source(str(folder / "pairs.parquet")).open()
        return Pairs(index, settings, LiveEncodings(index, rows, encoder))
    return Pairs(
        index, settings, CachedEncodings(index, EncodingCache(folder / "encodings", encoder))
    )


def _write_model(folder: Path) -> None:
    import torch
    from diffusers import (
        AutoencoderKL,
        DDPMScheduler,
        StableDiffusionPipeline,
        UNet2DConditionModel,
    )
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    torch.manual_seed(0)
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = [*letters, *(c + "</w>" for c in letters), "<|startoftext|>", "<|endoftext|>"]
    tokenizer = CLIPTokenizer(
        vocab={word: number for number, word in enumerate(words)},
        merges=[],
        model_max_length=TOKENS,
    )
    text = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(words),
            hidden_size=WIDTH,
            intermediate_size=4 * WIDTH,
            num_hidden_layers=12,
            num_attention_heads=8,
            max_position_embeddings=TOKENS,
            bos_token_id=len(words) - 2,
            eos_token_id=len(words) - 1,
            pad_token_id=len(words) - 1,
        )
    )
    unet = UNet2DConditionModel(
        sample_size=SIDE // 8,
        block_out_channels=(32, 64, 128, 128),
        cross_attention_dim=WIDTH,
        attention_head_dim=8,
        norm_num_groups=32,
    )
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(12, 24, 48, 48),
        layers_per_block=2,
        norm_num_groups=4,
        sample_size=SIDE,
    )
    scheduler = DDPMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False
    )
    StableDiffusionPipeline(
        vae, text, tokenizer, unet, scheduler, None, None, requires_safety_checker=False
    ).save_pretrained(folder)


def _write_pairs(path: Path) -> None:
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq
    from PIL import Image

    rng = np.random.default_rng(1)

    def picture() -> bytes:
        stream = io.BytesIO()
        coarse = Image.fromarray(rng.integers(256, size=(32, 32, 3), dtype=np.uint8))
        coarse.resize((SIDE, SIDE), Image.Resampling.BILINEAR).save(stream, "PNG")
        return stream.getvalue()

    rows = [
        {
            "caption": "".join(chr(97 + c) for c in rng.integers(26, size=60)),
            "jpg_0": picture(),
            "jpg_1": picture(),
            "label_0": float(i % 2),
        }
        for i in range(PAIRS)
    ]
    pq.write_table(pa.Table.from_pylist(rows), path)
