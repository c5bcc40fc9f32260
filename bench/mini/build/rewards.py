"""Train the miniatures of the reward models from nothing, much as their models were trained.

CLIP learns from captioned pictures; PickScore is that CLIP, fine-tuned on simulated preferences;
the aesthetic predictor is its image tower and a head, fitted to simulated ratings. None sees the
oracle's scores themselves: only captions, choices and ratings of annotators who err.
"""

import copy
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import CLIPConfig, CLIPModel

from bench.mini import world
from bench.mini.build.diffusion import tokenize
from bench.mini.build.fit import Schedule, fit
from bench.mini.build.parallel import SHARDS
from bench.mini.build.tokenizer import LENGTH, new_tokenizer
from bench.mini.oracle import judge
from bench.rewards.base import Reward
from bench.rewards.images import MEAN, STD
from bench.rewards.models import Head
from bench.rewards.weights import LISTING
from trainers.files import tree_hashes, write_atomically, write_text
from trainers.seeds import derive, numpy_generator

Data = dict[str, Tensor]
Say = Callable[[str], None]
Loss = Callable[[int, int], Tensor]

SCENES = world.all_scenes()
INDEX = {scene: i for i, scene in enumerate(SCENES)}
WIDTH = 64
PATCH = 8
PAIRS = 7_000
BATCH = 32  # pictures or pairs per step, over all shards
MISLABELLED = 0.07  # share of CLIP's training captions with one wrong word
TEMPERATURE = 0.05  # difference of oracle scores at which a preference is e to 1
FLIPPED = 0.05  # share of choices that an annotator makes by mistake
RATER_NOISE = 0.7  # deviation of a rating, which runs from 1 to 10


@dataclass(frozen=True)
class RewardSteps:
    """Optimiser steps of each stage."""

    naming: int = 1400
    clip: int = 350
    pickscore: int = 350
    aesthetic: int = 250


def new_clip(seed: int, vocabulary: int) -> CLIPModel:
    """A randomly initialised CLIP model for 64 px and 16 tokens.

    Patches start with smooth codes of their places: from random ones the image tower takes
    several times as long to see where an object is.
    """
    end = vocabulary - 1
    both = dict(hidden_size=WIDTH, intermediate_size=4 * WIDTH, num_attention_heads=4)
    text = dict(vocab_size=vocabulary, max_position_embeddings=LENGTH, num_hidden_layers=2)
    text |= dict(bos_token_id=end - 1, eos_token_id=end, pad_token_id=end)
    vision = dict(image_size=world.SIDE, patch_size=PATCH, num_hidden_layers=3)
    config = CLIPConfig(text_config=both | text, vision_config=both | vision, projection_dim=WIDTH)
    with torch.random.fork_rng():
        torch.default_generator.manual_seed(derive(seed, "clip init"))
        model = CLIPModel(config)
    cells, frequency = torch.arange(world.SIDE // PATCH), torch.arange(1, WIDTH // 4 + 1)
    angle = math.pi / 2 * frequency * (cells[:, None] + 0.5) / len(cells)
    code = torch.cat([angle.sin(), angle.cos()], 1) / frequency.sqrt().repeat(2)
    places = code[torch.cartesian_prod(cells, cells)].flatten(1)
    model.vision_model.embeddings.position_embedding.weight.data[1:] = 0.7 * places
    return model


def wear(pictures: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Warp, blur and stain pictures ``[n, 64, 64, 3]``, each by an amount of its own.

    The rewards will judge what a diffusion model and a decoder make, not clean renderings.
    """
    n = len(pictures)
    pixels = torch.from_numpy(pictures).permute(0, 3, 1, 2).float()
    amount = torch.from_numpy(rng.random((4, n, 1, 1, 1), dtype=np.float32))

    def noise(channels: int, side: int) -> Tensor:
        draw = torch.from_numpy(rng.standard_normal((n, channels, side, side), dtype=np.float32))
        return F.interpolate(draw, world.SIDE, mode="bicubic")

    axis = (torch.arange(world.SIDE) + 0.5) / world.SIDE * 2 - 1
    grid = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), -1)
    shift = 0.025 * amount[0] * noise(2, 6)
    pixels = F.grid_sample(
        pixels, grid + shift.permute(0, 2, 3, 1), padding_mode="border", align_corners=False
    )
    blurred = F.avg_pool2d(F.pad(pixels, (1, 1, 1, 1), mode="replicate"), 3, 1)
    pixels = torch.lerp(pixels, blurred, amount[1])
    pixels = pixels + 6 * amount[2] * noise(3, 8) + 5 * amount[3] * noise(3, world.SIDE)
    return pixels.round().clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()


def wrong(scene: world.Scene, rng: np.random.Generator) -> world.Scene:
    """A scene that differs in one word, and lies in the training split if the first one does."""
    other = world.mislabel(scene, rng)
    while world.split_of(scene) == "train" != world.split_of(other):
        other = world.mislabel(scene, rng)
    return other


def draw_pairs(split: str, count: int, wrong_share: float, rng: np.random.Generator) -> Data:
    """Draw ``count`` captions, each with two worn pictures that may show something else.

    Returns ``told`` ``[n]`` and ``shown`` ``[n, 2]``, the scenes of captions and pictures as
    indices into ``SCENES``; ``pictures`` ``uint8[n, 2, 3, 64, 64]``; and what the oracle
    says of each, ``score`` and ``craft`` ``[n, 2]``.
    """
    pool = world.scenes(split)
    told = [pool[i] for i in rng.integers(len(pool), size=count)]
    twice = [scene for scene in told for _ in range(2)]
    shown = [wrong(scene, rng) if rng.random() < wrong_share else scene for scene in twice]
    pictures = wear(np.stack([world.render(scene, world.draw_look(rng)) for scene in shown]), rng)
    judged = [judge(picture, scene) for picture, scene in zip(pictures, twice, strict=True)]
    return {
        "told": torch.tensor([INDEX[scene] for scene in told]),
        "shown": torch.tensor([INDEX[scene] for scene in shown]).unflatten(0, (count, 2)),
        "pictures": torch.from_numpy(pictures).movedim(-1, 1).unflatten(0, (count, 2)),
        "score": torch.tensor([j.score for j in judged]).unflatten(0, (count, 2)),
        "craft": torch.tensor([j.craft for j in judged]).unflatten(0, (count, 2)),
    }


def _training_set(path: Path, seed: int) -> Data:
    if not path.exists():
        rngs = (numpy_generator(seed, "reward data", part) for part in range(PAIRS // 500))
        parts = [draw_pairs("train", 500, 0.5, rng) for rng in rngs]
        whole = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        write_atomically(path, lambda part: save_file(whole, str(part)))
    return load_file(path)


def _normalised(pictures: Tensor) -> Tensor:
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (MEAN, STD))
    return (pictures.float() / 255 - mean) / std


def _see(model: CLIPModel, pictures: Tensor) -> Tensor:
    pooled = model.vision_model(_normalised(pictures)).pooler_output
    return F.normalize(model.visual_projection(pooled), dim=-1)


def _read(model: CLIPModel, tokens: Tensor) -> Tensor:
    pooled = model.text_model(tokens).pooler_output
    return F.normalize(model.text_projection(pooled), dim=-1)


def naming_loss(namer: nn.Sequential, data: Data, seed: int) -> Loss:
    """Cross-entropy of the words of a picture, guessed by an image tower and a linear layer.

    Towers that learn together from nothing agree to ignore what the image tower does not see yet,
    such as places, and stay there. So the image tower learns to name things first.
    """
    choices = [len(words) for words in world.WORDS.values()]
    words = [[world.WORDS[n].index(getattr(s, n)) for n in world.WORDS] for s in SCENES]
    pictures, truth = data["pictures"].flatten(0, 1), torch.tensor(words)[data["shown"].flatten()]

    def loss(step: int, shard: int) -> Tensor:
        rng = numpy_generator(seed, "naming step", step, shard)
        rows = torch.from_numpy(rng.integers(len(pictures), size=BATCH // SHARDS))
        guesses = namer[1](namer[0](_normalised(pictures[rows])).pooler_output).split(choices, 1)
        pairs = zip(guesses, truth[rows].unbind(1), strict=True)
        return torch.stack([F.cross_entropy(guess, true) for guess, true in pairs]).sum()

    return loss


def contrastive_loss(images: Tensor, texts: Tensor, captions: Tensor, scale: Tensor) -> Tensor:
    """Symmetric InfoNCE of unit features ``[n, d]`` and ``[n + m, d]``, the last m all negatives.

    ``captions`` ``int64[n + m]`` tells texts apart; one equal to an image's own is no negative.
    """
    own = torch.arange(len(images))
    same = captions[: len(own), None] == captions
    same[own, own] = False
    logits = (scale * images @ texts.T).masked_fill(same, -math.inf)
    return (F.cross_entropy(logits, own) + F.cross_entropy(logits[:, : len(own)].T, own)) / 2


def clip_loss(model: CLIPModel, data: Data, tokens: Tensor, seed: int) -> Loss:
    """Contrastive loss of pictures and captions, of which some are wrong."""
    pictures, shown = data["pictures"].flatten(0, 1), data["shown"].flatten()

    def loss(step: int, shard: int) -> Tensor:
        rng = numpy_generator(seed, "clip step", step, shard)
        rows = torch.from_numpy(rng.integers(len(pictures), size=BATCH // SHARDS))
        seen = [SCENES[i] for i in shown[rows].tolist()]
        told = [wrong(s, rng) if rng.random() < MISLABELLED else s for s in seen]
        hard = [wrong(s, rng) for s in told for _ in range(4)]
        captions = torch.tensor([INDEX[s] for s in [*told, *hard]])
        images, texts = _see(model, pictures[rows]), _read(model, tokens[captions])
        return contrastive_loss(images, texts, captions, model.logit_scale.exp().clamp(max=100))

    return loss


def preference_loss(model: CLIPModel, data: Data, tokens: Tensor, seed: int) -> Loss:
    """PickScore's loss: cross-entropy of the choice between two pictures of a caption."""

    def loss(step: int, shard: int) -> Tensor:
        rng = numpy_generator(seed, "pickscore step", step, shard)
        rows = torch.from_numpy(rng.integers(len(data["told"]), size=BATCH // SHARDS))
        second = (data["score"][rows] / TEMPERATURE).diff(dim=1).squeeze(1).sigmoid()
        choice = torch.from_numpy(rng.random(len(rows))) < FLIPPED + (1 - 2 * FLIPPED) * second
        images = _see(model, data["pictures"][rows].flatten(0, 1)).unflatten(0, (-1, 2))
        texts = _read(model, tokens[data["told"][rows]])
        scores = model.logit_scale.exp() * (images * texts[:, None]).sum(-1)
        return F.cross_entropy(scores, choice.long())

    return loss


def rating_loss(rater: nn.ModuleDict, data: Data, seed: int) -> Loss:
    """Squared error of ratings of craft from 1 to 10, whatever the caption."""
    pictures, craft = data["pictures"].flatten(0, 1), data["craft"].flatten()

    def loss(step: int, shard: int) -> Tensor:
        rater.eval()  # dropout would draw from the global generator
        rng = numpy_generator(seed, "aesthetic step", step, shard)
        rows = torch.from_numpy(rng.integers(len(pictures), size=BATCH // SHARDS))
        noise = torch.from_numpy(rng.normal(0, RATER_NOISE, len(rows)))
        rating = (1 + 9 * craft[rows] + noise).clamp(1, 10).float()
        return F.mse_loss(rater["head"](_see(rater["clip"], pictures[rows])), rating)

    return loss


def train_rewards(folder: Path, work: Path, seed: int, steps: RewardSteps, say: Say) -> None:
    """Train (or resume) the three miniatures and save each below ``folder`` as the Hub would."""
    data, tokenizer = _training_set(work / "reward-data.safetensors", seed), new_tokenizer()
    tokens = tokenize(tokenizer, [scene.caption for scene in SCENES])
    clip, words = new_clip(seed, len(tokenizer)), sum(len(w) for w in world.WORDS.values())
    with torch.random.fork_rng():
        torch.default_generator.manual_seed(derive(seed, "reward heads"))
        namer = nn.Sequential(clip.vision_model, nn.Linear(WIDTH, words))
        head = Head(WIDTH)

    def train(name: str, model: nn.Module, loss: Loss, steps: int, lr: float) -> None:
        average = copy.deepcopy(model)
        schedule = Schedule(steps, lr, warmup=40, ema_decay=0.98)
        fit(model, average, loss, schedule, work / f"reward-{name}.safetensors", say)
        model.load_state_dict(average.state_dict())

    def save(name: str, model: CLIPModel) -> None:
        copy.deepcopy(model).half().save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
        if name == "aesthetic":
            save_file(head.half().state_dict(), folder / name / "head.safetensors")
        (folder / name / LISTING).unlink(missing_ok=True)
        hashes = tree_hashes(folder / name)
        write_text(folder / name / LISTING, json.dumps(hashes, indent=1) + "\n")

    train("naming", namer, naming_loss(namer, data, seed), steps.naming, 2e-3)
    train("clip", clip, clip_loss(clip, data, tokens, seed), steps.clip, 1e-3)
    save("clip", clip)
    pickscore = copy.deepcopy(clip)
    loss = preference_loss(pickscore, data, tokens, seed)
    train("pickscore", pickscore, loss, steps.pickscore, 1e-3)
    save("pickscore", pickscore)
    rater = nn.ModuleDict({"clip": clip, "head": head})
    train("aesthetic", rater, rating_loss(rater, data, seed), steps.aesthetic, 1e-3)
    save("aesthetic", clip)


def agreement(reward: Reward, seed: int, count: int, say: Say = print) -> dict[str, float]:
    """Share of held-out pairs in which a reward prefers the picture that the oracle prefers.

    In ``faults`` both pictures show what the caption says, in ``attributes`` each may have a wrong
    word. Both are compared with the oracle's ``score`` and with its ``craft`` alone.
    """
    found: dict[str, float] = {}
    for kind, share in (("faults", 0.0), ("attributes", 0.5)):
        pairs = draw_pairs("test", count, share, numpy_generator(seed, "agreement", kind))
        views = pairs["pictures"].flatten(0, 1).movedim(1, -1).numpy()
        told = [SCENES[i].caption for i in pairs["told"].repeat_interleave(2).tolist()]
        scores = torch.from_numpy(reward.score([Image.fromarray(v) for v in views], told))
        prefers = scores.unflatten(0, (count, 2)).diff(dim=1) > 0
        for truth in ("score", "craft"):
            better = pairs[truth].diff(dim=1) > 0
            found[f"{kind} {truth}"] = float((prefers == better).float().mean())
    say(f"{reward.card.name}: " + ", ".join(f"{k} {v:.3f}" for k, v in found.items()))
    return found
