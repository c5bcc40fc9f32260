"""Train the text encoder and UNet of ``mini-sd`` together, on the latents of its autoencoder."""

import copy
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from bench.mini.build.fit import SHARDS, Schedule, fit
from bench.mini.build.tokenizer import LENGTH, new_tokenizer
from bench.mini.build.vae import sample_pictures
from trainers.backbones.folders import load_part, save_part
from trainers.files import write_atomically
from trainers.input.tensors import read_tensors
from trainers.machine.processes import ALONE, Processes
from trainers.seeds import derive, numpy_generator

WIDTH = 64
"""Width of the text encoder and of the cross-attention."""
MISLABELLED = 0.12
"""Share of training captions with one wrong word, as on the web."""
CAPTION_DROPOUT = 0.1
BATCH = 64
PICTURES = 24_000
HEAVIEST = 10.0
"""Bound of a step's weight. At noisy steps, where it is decided where the object goes, the error of
the noise is small whatever is known: with equal weights the place is never learned."""


class TextToImage(nn.Module):
    """Text encoder and UNet as one module, so that one optimiser trains both."""

    def __init__(self, text_encoder: CLIPTextModel, unet: UNet2DConditionModel) -> None:
        super().__init__()
        self.text_encoder = text_encoder
        self.unet = unet

    def forward(self, noisy: Tensor, timesteps: Tensor, tokens: Tensor) -> Tensor:
        """Predicted noise ``[n, 4, 8, 8]`` for tokens ``[n, 16]``."""
        text = self.text_encoder(tokens).last_hidden_state
        prediction: Tensor = self.unet(noisy, timesteps, text).sample
        return prediction


def new_scheduler() -> DDIMScheduler:
    """Stable Diffusion 1.5's own noise schedule: scaled-linear betas, eps-prediction."""
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )


def step_weights(scheduler: DDIMScheduler) -> Tensor:
    """Weight of the error at each timestep, ``float32[1000]`` of mean 1: ``1 / abar``, bounded.

    So the error of the noise weighs as that of the velocity does (Salimans and Ho 2022,
    arXiv:2202.00512).
    """
    weights: Tensor = (1 / scheduler.alphas_cumprod).clamp(max=HEAVIEST)
    return weights / weights.mean()


def new_model(seed: int, vocabulary: int) -> TextToImage:
    """A randomly initialised text encoder and UNet."""
    with torch.random.fork_rng():
        torch.default_generator.manual_seed(derive(seed, "diffusion init"))
        text_encoder = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=vocabulary,
                hidden_size=WIDTH,
                intermediate_size=4 * WIDTH,
                num_hidden_layers=2,
                num_attention_heads=4,
                max_position_embeddings=LENGTH,
                projection_dim=WIDTH,
                pad_token_id=vocabulary - 1,
                bos_token_id=vocabulary - 2,
                eos_token_id=vocabulary - 1,
            )
        )
        unet = UNet2DConditionModel(
            sample_size=8,
            block_out_channels=(32, 96),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            layers_per_block=1,
            cross_attention_dim=WIDTH,
            attention_head_dim=4,
            norm_num_groups=8,
        )
    return TextToImage(text_encoder, unet)


def tokenize(tokenizer: CLIPTokenizer, captions: list[str]) -> Tensor:
    """Token ids ``int64[n, 16]``, padded as the pipeline pads them."""
    tokens: Tensor = tokenizer(
        captions, padding="max_length", max_length=LENGTH, truncation=True, return_tensors="pt"
    ).input_ids
    return tokens


def _training_set(
    vae: AutoencoderKL, tokenizer: CLIPTokenizer, path: Path, seed: int
) -> dict[str, Tensor]:
    """Latent means and deviations ``[N, 4, 8, 8]`` (scaled) and tokens ``[N, 16]``."""
    if not path.exists():
        parts: list[tuple[Tensor, Tensor, Tensor]] = []
        scale = vae.config.scaling_factor
        for index in range(PICTURES // 200):
            pixels, captions = sample_pictures(seed, "diffusion data", index, 200, MISLABELLED)
            with torch.no_grad():
                posterior = vae.encode(pixels).latent_dist
            tokens = tokenize(tokenizer, captions)
            parts.append((scale * posterior.mean, scale * posterior.std, tokens))
        mean, std, tokens = (torch.cat(part).contiguous() for part in zip(*parts, strict=True))
        data = {"mean": mean, "std": std, "tokens": tokens}
        write_atomically(path, lambda part: save_file(data, str(part)))
    return read_tensors(path)


def train_diffusion(
    folder: Path,
    work: Path,
    seed: int,
    steps: int,
    say: Callable[[str], None],
    processes: Processes = ALONE,
) -> None:
    """Train (or resume) against ``folder/vae`` and save the whole pipeline to ``folder``."""
    tokenizer = new_tokenizer()
    scheduler = new_scheduler()
    vae = load_part(AutoencoderKL, folder / "vae", torch.float32)
    data = _training_set(vae, tokenizer, work / "latents.safetensors", seed)
    model = new_model(seed, len(tokenizer))
    average = copy.deepcopy(model).requires_grad_(False)
    empty = tokenize(tokenizer, [""])
    weights = step_weights(scheduler)

    def loss_at(step: int, shard: int) -> Tensor:
        size = BATCH // SHARDS
        rng = numpy_generator(seed, "diffusion step", step, shard)
        noise_rng = torch.Generator().manual_seed(derive(seed, "diffusion noise", step, shard))
        rows = torch.from_numpy(rng.integers(len(data["mean"]), size=size))
        draws = torch.randn((2, size, 4, 8, 8), generator=noise_rng)
        latents = data["mean"][rows] + data["std"][rows] * draws[0]
        timesteps = torch.from_numpy(rng.integers(1000, size=size))
        dropped = torch.from_numpy(rng.random(size) < CAPTION_DROPOUT)
        tokens = torch.where(dropped[:, None], empty, data["tokens"][rows])
        noisy = scheduler.add_noise(latents, draws[1], timesteps)
        errors = F.mse_loss(model(noisy, timesteps, tokens), draws[1], reduction="none")
        return (weights[timesteps] * errors.mean(dim=(1, 2, 3))).mean()

    schedule = Schedule(steps=steps, lr=2e-3, warmup=300, ema_decay=0.9995, save_every=200)
    fit(model, average, loss_at, schedule, work / "diffusion.safetensors", say, processes)
    if not processes.main:
        return
    StableDiffusionPipeline(
        vae=vae,
        text_encoder=average.text_encoder,
        tokenizer=tokenizer,
        unet=average.unet.half(),  # As it ships: half the size.
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)
    save_part(vae, folder / "vae")  # The pipeline wrote the path that it was loaded from, too.
