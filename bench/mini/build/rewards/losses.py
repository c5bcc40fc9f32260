"""What each miniature reward minimises: the losses of its model, on what simulated people say.

Every loss is a function of step and shard alone, so that a resumed run is the same run.
"""

import math
from collections.abc import Callable
from itertools import combinations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import CLIPModel

from bench.mini.build.fit import SHARDS
from bench.mini.build.rewards.data import INDEX, Data, draw_batch, wrong
from bench.mini.build.rewards.people import CAREFUL, CARELESS, describe, rank, rate
from bench.mini.build.rewards.samples import GROUP
from bench.mini.build.rewards.towers import normalised, read, see
from bench.world import scenes as world
from trainers.seeds import numpy_generator

Loss = Callable[[int, int], Tensor]

BATCH = 64  # pictures per step, over all shards
GROUPS = BATCH // GROUP // SHARDS
HARD = 4  # wrong captions of each picture among CLIP's negatives
ANNOTATORS = 5  # rankings of a group that mini-hpsv2 learns from
PAIRS = torch.tensor(list(combinations(range(GROUP), 2))).T


def naming_loss(namer: nn.Sequential, data: Data, seed: int) -> Loss:
    """Cross-entropies of the words that describe a picture, and half the error of its rating.

    Both are guessed by an image tower and a linear layer. Towers that learn together from nothing
    agree to ignore what the image tower does not see yet, such as places, and stay there; and a
    tower that only names things throws away how well they are made.
    """
    choices = [*map(len, world.WORDS.values()), 1]

    def loss(step: int, shard: int) -> Tensor:
        rng = numpy_generator(seed, "naming step", step, shard)
        batch = draw_batch(data, GROUPS, rng)
        named, craft = batch["named"], batch["craft"]
        told = describe(batch["shown"][named], craft[named], CAREFUL, rng)
        words = [[w.index(getattr(s, name)) for name, w in world.WORDS.items()] for s in told]
        pooled = namer[0](normalised(batch["pictures"].flatten(0, 1))).pooler_output
        *guesses, rated = namer[1](pooled).split(choices, 1)
        ratings = (rate(craft.flatten(), rng) - 5.5) / 2.5
        total = F.mse_loss(rated.squeeze(1), ratings) / 2
        for guess, true in zip(guesses, torch.tensor(words).unbind(1), strict=True):
            total = total + F.cross_entropy(guess[named.flatten()], true)
        return total

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
    """Contrastive loss of pictures and what people say they show.

    Pictures of one group differ in a word or two, which makes them hard negatives of each other.
    """

    def loss(step: int, shard: int) -> Tensor:
        rng = numpy_generator(seed, "clip step", step, shard)
        batch = draw_batch(data, GROUPS, rng)
        named = batch["named"]
        told = describe(batch["shown"][named], batch["craft"][named], CARELESS, rng)
        hard = [wrong(s, rng) for s in told for _ in range(HARD)]
        captions = torch.tensor([INDEX[s] for s in [*told, *hard]])
        images, texts = see(model, batch["pictures"][named]), read(model, tokens[captions])
        return contrastive_loss(images, texts, captions, model.logit_scale.exp().clamp(max=100))

    return loss


def _logits(model: CLIPModel, batch: Data, tokens: Tensor) -> Tensor:
    """Scaled cosines of the pictures of each group with its caption, ``[n, size]``."""
    size = batch["pictures"].shape[1]
    images = see(model, batch["pictures"].flatten(0, 1)).unflatten(0, (-1, size))
    texts = read(model, tokens[batch["told"]])
    logits: Tensor = model.logit_scale.exp() * (images * texts[:, None]).sum(-1)
    return logits


def choice_loss(model: CLIPModel, data: Data, tokens: Tensor, seed: int) -> Loss:
    """PickScore's loss: cross-entropy of one person's choice between two pictures of a caption.

    Another person sees each pair of a group.
    """

    def loss(step: int, shard: int) -> Tensor:
        rng = numpy_generator(seed, "pickscore step", step, shard)
        batch = draw_batch(data, GROUPS, rng)
        second = rank(batch["score"][:, PAIRS.T].flatten(0, 1), 1, rng)[:, 0, 1, 0]
        logits = _logits(model, batch, tokens)[:, PAIRS.T].flatten(0, 1)
        return F.cross_entropy(logits, second.long())

    return loss


def ranking_loss(model: CLIPModel, data: Data, tokens: Tensor, seed: int) -> Loss:
    """HPSv2's loss: divergence of choices between two pictures from those of several people.

    For each pair of a ranked group, the cross-entropy of the model's probabilities under the shares
    of the annotators; it differs from the Kullback-Leibler divergence by a constant.
    """

    def loss(step: int, shard: int) -> Tensor:
        rng = numpy_generator(seed, "hpsv2 step", step, shard)
        batch = draw_batch(data, GROUPS, rng)
        logits = _logits(model, batch, tokens)
        share = rank(batch["score"], ANNOTATORS, rng).float().mean(1)[:, *PAIRS]
        margin = logits[:, PAIRS[0]] - logits[:, PAIRS[1]]
        return F.binary_cross_entropy_with_logits(margin, share)

    return loss


def rating_loss(rater: nn.ModuleDict, data: Data, seed: int) -> Loss:
    """Squared error of ratings of craft, whatever the caption."""

    def loss(step: int, shard: int) -> Tensor:
        rater.eval()  # dropout would draw from the global generator
        rng = numpy_generator(seed, "aesthetic step", step, shard)
        batch = draw_batch(data, GROUPS, rng)
        ratings = rate(batch["craft"].flatten(), rng)
        return F.mse_loss(
            rater["head"](see(rater["clip"], batch["pictures"].flatten(0, 1))), ratings
        )

    return loss
