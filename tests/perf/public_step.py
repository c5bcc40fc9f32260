"""The training step of the public scripts of Diffusion-DPO, expressed anew, in float32."""

import copy
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

VARIANTS = {
    "public": "re-expression of the public step: encoders in the loop, four forwards",
    "public-joint": "the same, winners and losers in one forward (as Diffusion-DPO's own code)",
    "public-checkpointing": "public with gradient checkpointing",
}


def public_step(variant: str, folder: Path, pairs: int) -> Callable[[], None]:
    """A step on the model and the pairs of ``folder`` (see small_sd.py), ``pairs`` at a time."""
    import torch
    import torch.nn.functional as F
    from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
    from transformers import CLIPTextModel

    def frozen(kind: Any, part: str) -> Any:
        model = kind.from_pretrained(folder / "model" / part, local_files_only=True)
        return model.eval().requires_grad_(False)

    vae, text = frozen(AutoencoderKL, "vae"), frozen(CLIPTextModel, "text_encoder")
    reference = frozen(UNet2DConditionModel, "unet")
    unet = copy.deepcopy(reference).train().requires_grad_(True)
    if variant == "public-checkpointing":
        unet.enable_gradient_checkpointing()
    scheduler = DDPMScheduler.from_pretrained(folder / "model" / "scheduler")
    optimizer = torch.optim.AdamW(unet.parameters(), lr=1e-5)
    winner, loser, tokens = _examples(folder)
    places = torch.arange(len(tokens))
    joint = variant == "public-joint"

    def errors(network: Any, noisy: Any, t: Any, states: Any, noise: Any) -> Any:
        chunks = [slice(None)] if joint else [slice(0, pairs), slice(pairs, None)]
        guess = torch.cat([network(noisy[c], t[c], states[c]).sample for c in chunks])
        return F.mse_loss(guess, noise, reduction="none").mean((1, 2, 3))

    def step() -> None:
        nonlocal places
        rows, places = places[:pairs], places.roll(-pairs)
        with torch.no_grad():
            pixels = torch.cat([winner[rows], loser[rows]]).float() / 127.5 - 1
            latents = vae.encode(pixels).latent_dist.sample() * vae.config.scaling_factor
            states = text(tokens[rows]).last_hidden_state.repeat(2, 1, 1)
        noise = torch.randn_like(latents[:pairs]).repeat(2, 1, 1, 1)
        t = torch.randint(1000, (pairs,)).repeat(2)
        noisy = scheduler.add_noise(latents, noise, t)
        new_w, new_l = errors(unet, noisy, t, states, noise).chunk(2)
        with torch.no_grad():
            old_w, old_l = errors(reference, noisy, t, states, noise).chunk(2)
        logit = -2500.0 * ((new_w - new_l) - (old_w - old_l))
        (-F.logsigmoid(logit)).mean().backward()
        torch.nn.utils.clip_grad_norm_(unet.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


def _examples(folder: Path) -> tuple[Any, Any, Any]:
    """Winners and losers, ``uint8[n, 3, H, W]``, and tokens ``int64[n, L]``.

    They are decoded once: the public scripts leave that to other processes.
    """
    import numpy as np
    import pyarrow.parquet as pq
    import torch
    from PIL import Image
    from transformers import CLIPTokenizer

    def pixels(data: bytes) -> Any:
        return torch.from_numpy(np.array(Image.open(io.BytesIO(data)))).permute(2, 0, 1)

    rows = pq.read_table(folder / "pairs.parquet").to_pylist()
    sides = [(0, 1) if row["label_0"] == 1 else (1, 0) for row in rows]
    images = [
        [pixels(row[f"jpg_{i}"]) for i in order] for row, order in zip(rows, sides, strict=True)
    ]
    tokenizer = CLIPTokenizer.from_pretrained(folder / "model" / "tokenizer")
    ids = tokenizer(
        [row["caption"] for row in rows],
        padding="max_length",
        truncation=True,
        return_tensors="pt",
    ).input_ids
    winner, loser = (torch.stack([image[side] for image in images]) for side in (0, 1))
    return winner, loser, ids
