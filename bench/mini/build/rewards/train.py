"""Train the miniatures of the reward models, stage after stage, and save them as the Hub would."""

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import CLIPModel, CLIPTokenizer

from bench.mini.build.fit import Schedule, fit
from bench.mini.build.rewards import blip, losses
from bench.mini.build.rewards.data import SCENES, Data, training_set
from bench.mini.build.rewards.samples import sample_groups
from bench.mini.build.rewards.towers import WIDTH, new_clip
from bench.mini.build.tokenizer import LENGTH, new_tokenizer
from bench.rewards.kit.models import Head
from bench.rewards.kit.weights import LISTING
from bench.world import scenes as world
from trainers.files import tree_hashes, write_text
from trainers.seeds import derive

Say = Callable[[str], None]

NAMES = ("clip", "pickscore", "hpsv2", "aesthetic", "imagereward")
"""Folders of the rewards, in the order in which they are made."""
MEAN_RATING = 6.0
"""Where the aesthetic head starts: about the mean of all ratings."""
GUESSES = sum(map(len, world.WORDS.values())) + 1
"""What a tower learns to name: a logit for each word, and a rating."""


@dataclass(frozen=True)
class RewardSteps:
    """Captions that the base model paints, its sampler's steps, and optimiser steps by stage."""

    captions: int = len(world.scenes("train"))
    sampler: int = 12
    naming: int = 1600
    clip: int = 600
    pickscore: int = 800
    hpsv2: int = 700
    aesthetic: int = 300
    blip_naming: int = 1600
    matching: int = 800
    imagereward: int = 700


def finished(folder: Path) -> bool:
    """Whether every reward below ``folder`` has been saved whole: its listing is written last."""
    return all((folder / name / LISTING).is_file() for name in NAMES)


def train_rewards(
    folder: Path, work: Path, base: Path, seed: int, steps: RewardSteps, say: Say
) -> None:
    """Train (or resume) the miniatures, on pictures of the pipeline ``base`` among others."""
    sampled = sample_groups(base, work, seed, steps.captions, steps.sampler, say)
    data, held_back = training_set(sampled, work / "reward-data.safetensors", seed)
    workshop = Workshop(folder, work, seed, steps, say, data, held_back)
    clip = workshop.make_clip()
    workshop.make_choosers(clip)
    workshop.make_aesthetic(clip)
    workshop.make_imagereward()


class Workshop:
    """Everything the stages share: data, tokens of every caption, and where things are kept."""

    def __init__(
        self,
        folder: Path,
        work: Path,
        seed: int,
        steps: RewardSteps,
        say: Say,
        data: Data,
        held_back: Data,
    ) -> None:
        """Tokenize the captions, and draw the heads that are trained on towers."""
        self.folder, self.work, self.seed, self.steps, self.say = folder, work, seed, steps, say
        self.data, self.held_back = data, held_back
        self.tokenizer: CLIPTokenizer = new_tokenizer()
        encoded = self.tokenizer(
            [scene.caption for scene in SCENES],
            padding="max_length",
            max_length=LENGTH,
            truncation=True,
            return_tensors="pt",
        )
        self.tokens: Tensor = encoded.input_ids
        self.mask: Tensor = encoded.attention_mask
        with torch.random.fork_rng():
            torch.default_generator.manual_seed(derive(seed, "reward heads"))
            self.names = nn.Linear(WIDTH, GUESSES)
            self.head = Head(WIDTH)
        dict(self.head.named_parameters())["layers.7.bias"].data.fill_(MEAN_RATING)

    def make_clip(self) -> CLIPModel:
        """An image tower that names pictures, then both towers together."""
        clip = new_clip(self.seed, len(self.tokenizer))
        namer = nn.Sequential(clip.vision_model, copy.deepcopy(self.names))
        self._train("naming", namer, losses.naming_loss(namer, self.data, self.seed), 2e-3)
        self._train("clip", clip, losses.clip_loss(clip, self.data, self.tokens, self.seed), 1e-3)
        self._save_clip("clip", clip)
        return clip

    def make_choosers(self, clip: CLIPModel) -> None:
        """PickScore and HPSv2, which begin with CLIP."""
        for name, new_loss in (("pickscore", losses.choice_loss), ("hpsv2", losses.ranking_loss)):
            model = copy.deepcopy(clip)
            self._train(name, model, new_loss(model, self.data, self.tokens, self.seed), 1e-3)
            self._save_clip(name, model)

    def make_aesthetic(self, clip: CLIPModel) -> None:
        """CLIP's image tower and a head."""
        rater = nn.ModuleDict({"clip": copy.deepcopy(clip), "head": self.head})
        self._train("aesthetic", rater, losses.rating_loss(rater, self.data, self.seed), 1e-3)
        head = {name: value.half() for name, value in self.head.state_dict().items()}
        (self.folder / "aesthetic").mkdir(parents=True, exist_ok=True)
        save_file(head, self.folder / "aesthetic" / "head.safetensors")
        self._save_clip("aesthetic", rater["clip"])

    def make_imagereward(self) -> None:
        """BLIP: an image encoder that names pictures, then matching captions, then rankings."""
        model, encoded = blip.new_blip(self.seed, len(self.tokenizer)), (self.tokens, self.mask)
        namer = nn.Sequential(model.vision, copy.deepcopy(self.names))
        loss = losses.naming_loss(namer, self.data, self.seed)
        self._train("blip_naming", namer, loss, 2e-3)
        words = copy.deepcopy(self.names)
        reader = nn.ModuleList([model, words])
        loss = blip.matching_loss(model, words, self.data, encoded, self.seed)
        self._train("matching", reader, loss, 1e-3)
        loss = blip.imagereward_loss(model, self.data, encoded, self.seed)
        self._train("imagereward", model, loss, 1e-3)
        model.half().float()  # as it will be read
        scale = blip.scale_of(model, self.held_back, encoded)
        blip.save_blip(model, scale, len(self.tokenizer), self.folder / "imagereward")
        self._finish("imagereward")

    def _train(self, name: str, model: nn.Module, loss: losses.Loss, lr: float) -> None:
        """Run or resume one stage; ``model`` becomes the average of its weights."""
        average = copy.deepcopy(model)
        schedule = Schedule(getattr(self.steps, name), lr, warmup=40, ema_decay=0.98)
        fit(model, average, loss, schedule, self.work / f"reward-{name}.safetensors", self.say)
        model.load_state_dict(average.state_dict())

    def _save_clip(self, name: str, model: CLIPModel) -> None:
        copy.deepcopy(model).half().save_pretrained(self.folder / name)
        self._finish(name)

    def _finish(self, name: str) -> None:
        """Add the tokenizer, and the listing that says that the reward is whole."""
        self.tokenizer.save_pretrained(self.folder / name)
        (self.folder / name / LISTING).unlink(missing_ok=True)
        hashes = tree_hashes(self.folder / name)
        write_text(self.folder / name / LISTING, json.dumps(hashes, indent=1) + "\n")
