"""The networks of well-known models, by their published configs: a plan needs no weights.

Each config is what the model's repository holds in ``<part>/config.json``, without the keys that
diffusers or transformers fill in alike.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainers.errors import UserError

Config = dict[str, Any]

_CLIP_L: Config = {
    "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12,
    "num_attention_heads": 12, "projection_dim": 768, "vocab_size": 49408,
}  # fmt: skip
_CLIP_G: Config = {
    "hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32,
    "num_attention_heads": 20, "projection_dim": 1280, "vocab_size": 49408,
}  # fmt: skip
_T5_XXL: Config = {
    "d_model": 4096, "d_ff": 10240, "d_kv": 64, "num_layers": 24, "num_heads": 64,
    "feed_forward_proj": "gated-gelu", "vocab_size": 32128,
}  # fmt: skip
_VAE: Config = {
    "down_block_types": ["DownEncoderBlock2D"] * 4, "up_block_types": ["UpDecoderBlock2D"] * 4,
    "block_out_channels": [128, 256, 512, 512], "layers_per_block": 2, "latent_channels": 4,
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Architecture:
    """The parts of a model: class and config of each."""

    name: str
    network: str
    """Class in diffusers."""
    config: Config
    vae: Config
    text_encoders: tuple[tuple[str, Config], ...]
    """Classes in transformers."""
    tokens: int
    """Length of the text that the network attends to."""
    source: str

    @property
    def side(self) -> int:
        """Height and width of its latents, at the size it was trained for."""
        return int(self.config["sample_size"])

    @property
    def factor(self) -> int:
        """Pixels to a latent, each way."""
        return int(2 ** (len(self.vae["block_out_channels"]) - 1))


SD15 = Architecture(
    "sd15", "UNet2DConditionModel",
    {"sample_size": 64, "block_out_channels": [320, 640, 1280, 1280], "layers_per_block": 2,
     "cross_attention_dim": 768, "attention_head_dim": 8},
    _VAE, (("CLIPTextModel", _CLIP_L),), 77,
    "huggingface.co/stable-diffusion-v1-5/stable-diffusion-v1-5",
)  # fmt: skip
SDXL = Architecture(
    "sdxl", "UNet2DConditionModel",
    {"sample_size": 128, "block_out_channels": [320, 640, 1280], "layers_per_block": 2,
     "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
     "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
     "transformer_layers_per_block": [1, 2, 10], "attention_head_dim": [5, 10, 20],
     "cross_attention_dim": 2048, "use_linear_projection": True,
     "addition_embed_type": "text_time", "addition_time_embed_dim": 256,
     "projection_class_embeddings_input_dim": 2816},
    _VAE, (("CLIPTextModel", _CLIP_L), ("CLIPTextModelWithProjection", _CLIP_G)), 77,
    "huggingface.co/stabilityai/stable-diffusion-xl-base-1.0",
)  # fmt: skip
SD3 = Architecture(
    "sd3-medium", "SD3Transformer2DModel",
    {"sample_size": 128, "patch_size": 2, "in_channels": 16, "out_channels": 16, "num_layers": 24,
     "attention_head_dim": 64, "num_attention_heads": 24, "joint_attention_dim": 4096,
     "caption_projection_dim": 1536, "pooled_projection_dim": 2048, "pos_embed_max_size": 192},
    _VAE | {"latent_channels": 16, "use_quant_conv": False, "use_post_quant_conv": False},
    (("CLIPTextModelWithProjection", _CLIP_L), ("CLIPTextModelWithProjection", _CLIP_G),
     ("T5EncoderModel", _T5_XXL)),
    77 + 256, "huggingface.co/stabilityai/stable-diffusion-3-medium-diffusers",
)  # fmt: skip
KNOWN = {a.name: a for a in (SD15, SDXL, SD3)}
FOLDERS = {
    "stable-diffusion-v1-5": SD15,
    "stable-diffusion-xl-base-1.0": SDXL,
    "stable-diffusion-3-medium-diffusers": SD3,
}
"""By the last part of a folder's path or of a repository's id."""


def find_architecture(base: str, folder: Path | None) -> Architecture:
    """The architecture of a spec's base model: from its folder if it is there, else by its name.

    Raises:
        UserError: If it is neither there nor known.
    """
    if folder is not None:
        return read_architecture(folder)
    name = base.rstrip("/").rsplit("/", 1)[-1].split("@")[0]
    found = KNOWN.get(base) or FOLDERS.get(name)
    if found is None:
        raise UserError(
            f"cannot plan for the base model {base!r}: give the path of a diffusers folder, or "
            f"one that ends in {', '.join(FOLDERS)}"
        )
    return found


def read_architecture(folder: Path) -> Architecture:
    """The architecture of a diffusers folder, from its configs alone.

    Raises:
        UserError: If it holds no denoising network that is known here.
    """

    def read(part: str) -> Config:
        config: Config = json.loads((folder / part / "config.json").read_text())
        return config

    part = next((p for p in ("unet", "transformer") if (folder / p / "config.json").is_file()), "")
    if not part:
        raise UserError(f"{folder}: expected a folder unet or transformer with a config.json")
    config = read(part)
    texts = [read(p.name) for p in sorted(folder.glob("text_encoder*"))]
    # CLIP encoders stand side by side, and T5, without such a key, behind them.
    longest = sum({t.get("max_position_embeddings", 256) for t in texts})
    return Architecture(
        folder.name, config["_class_name"], config, read("vae"),
        tuple((t["architectures"][0], t) for t in texts), longest, str(folder),
    )  # fmt: skip
