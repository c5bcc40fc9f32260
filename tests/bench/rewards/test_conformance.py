"""What every registered reward must do, whatever it computes.

The miniatures and the oracle are the shipped ones. The official rewards run on small random
checkpoints in the official file layout, since their weights cannot be shipped.
"""

import json
import re
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.processors import BertProcessing
from transformers import BlipTextConfig, BlipVisionConfig, CLIPConfig, CLIPModel

from bench.mini.build.tokenizer import new_tokenizer
from bench.rewards import REWARDS
from bench.rewards.base import Card, Reward, check_lengths
from bench.rewards.conformance import CHECKS, check, pictures
from bench.rewards.kit.blip import Blip
from bench.rewards.kit.models import Head
from bench.rewards.kit.shared import Shared
from bench.rewards.kit.weights import LISTING
from bench.world.scenes import scenes
from trainers.errors import UserError

OFFICIAL = ("clip", "clip-h14", "pickscore", "hpsv2.0", "hpsv2.1", "imagereward", "aesthetic")
MINIATURE = ("mini-clip", "mini-pickscore", "mini-hpsv2", "mini-imagereward", "mini-aesthetic")
WITH_FILES = (*OFFICIAL, *MINIATURE)
PUBLISHED = ("hpsv2.0-official", "hpsv2.1-official", "imagereward-official")
"""They need an environment of their own; tests/bench/rewards/test_rewards_official.py has them."""
EVERY = tuple(name for name in REWARDS.names() if name not in PUBLISHED)
COUNT = 7


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder with the files of all official rewards, small and random."""
    folder = tmp_path_factory.mktemp("checkpoints")
    tokenizer = new_tokenizer()
    tokenizer.save_pretrained(folder)
    tower = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2}
    end = len(tokenizer) - 1
    config = CLIPConfig(
        text_config={**tower, "num_hidden_layers": 2, "vocab_size": end + 1, "eos_token_id": end},
        vision_config={**tower, "num_hidden_layers": 2, "image_size": 32, "patch_size": 8},
        projection_dim=768,
    )
    with torch.random.fork_rng():
        torch.random.default_generator.manual_seed(0)
        clip = CLIPModel(config).half()
        clip.save_pretrained(folder)
        save_imagereward(folder / "imagereward")
        head = {name: tensor * 3 for name, tensor in Head(768).state_dict().items()}
    tensors = load_file(folder / "model.safetensors")
    # Files of the time of PickScore carry such buffers, which are no weights.
    tensors["text_model.embeddings.position_ids"] = torch.arange(77)[None]
    save_file(tensors, folder / "model.safetensors")
    torch.save(head, folder / "sac+logos+ava1-l14-linearMSE.pth")
    for version in ("v2", "v2.1"):
        state = as_open_clip(clip.state_dict())
        torch.save({"state_dict": state, "epoch": 9}, folder / f"HPS_{version}_compressed.pt")
    return folder


def save_imagereward(folder: Path) -> None:
    """A small random checkpoint in ImageReward's layout, with a tokenizer like BERT's."""
    folder.mkdir()
    told = " ".join(scene.caption for scene in scenes("test")).split()
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *sorted(set(told))]
    tokenizer = Tokenizer(WordPiece({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = BertNormalizer(), BertPreTokenizer()
    tokenizer.post_processor = BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer.save(str(folder / "tokenizer.json"))
    both = {"num_hidden_layers": 2, "intermediate_size": 256}
    text = {**both, "hidden_size": 32, "num_attention_heads": 2, "vocab_size": len(words)}
    (folder / "med_config.json").write_text(json.dumps({**text, "encoder_width": 64}))
    vision = {**both, "hidden_size": 64, "num_attention_heads": 1}
    vision |= {"image_size": 32, "patch_size": 8, "layer_norm_eps": 1e-6, "initializer_range": 0.1}
    model = Blip(BlipVisionConfig(**vision), BlipTextConfig(**text, encoder_hidden_size=64))
    for layer in model.head.layers.parameters():
        layer.data *= 3
    torch.save(as_imagereward(model.state_dict()), folder / "ImageReward.pt")


def as_open_clip(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Names and shapes of open_clip: a block's three projections in one, others transposed."""
    renamed = {}
    for name, tensor in tensors.items():
        where = "visual." if name.startswith("vision") else ""
        inner = name.removeprefix("vision_model.").removeprefix("text_model.")
        if inner.startswith("encoder.layers."):
            _, _, number, part = inner.split(".", 3)
            block = f"{where}transformer.resblocks.{number}."
            if "q_proj" in part:
                parts = [tensors[name.replace("q_proj", f"{p}_proj")] for p in "qkv"]
                renamed[f"{block}attn.in_proj_{part.split('.')[-1]}"] = torch.cat(parts)
            elif "k_proj" not in part and "v_proj" not in part:
                for old, new in OPEN_CLIP_PARTS.items():
                    part = part.replace(old, new)
                renamed[block + part] = tensor
        else:
            renamed[OPEN_CLIP_NAMES[name]] = tensor.T if "projection" in name else tensor
    return {name: tensor.contiguous() for name, tensor in renamed.items()}


OPEN_CLIP_PARTS = {
    "layer_norm": "ln_",
    "self_attn.out_proj": "attn.out_proj",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
}
OPEN_CLIP_NAMES = {
    "logit_scale": "logit_scale",
    "text_model.embeddings.token_embedding.weight": "token_embedding.weight",
    "text_model.embeddings.position_embedding.weight": "positional_embedding",
    "text_model.final_layer_norm.weight": "ln_final.weight",
    "text_model.final_layer_norm.bias": "ln_final.bias",
    "text_projection.weight": "text_projection",
    "vision_model.embeddings.class_embedding": "visual.class_embedding",
    "vision_model.embeddings.patch_embedding.weight": "visual.conv1.weight",
    "vision_model.embeddings.position_embedding.weight": "visual.positional_embedding",
    "vision_model.pre_layrnorm.weight": "visual.ln_pre.weight",
    "vision_model.pre_layrnorm.bias": "visual.ln_pre.bias",
    "vision_model.post_layernorm.weight": "visual.ln_post.weight",
    "vision_model.post_layernorm.bias": "visual.ln_post.bias",
    "visual_projection.weight": "visual.proj",
}


def as_imagereward(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Names of ImageReward's checkpoint, with the heads of BLIP that it carries along."""
    replacements = {
        "vision.encoder.layers": "blip.visual_encoder.blocks",
        "vision.embeddings.class_embedding": "blip.visual_encoder.cls_token",
        "vision.embeddings.position_embedding": "blip.visual_encoder.pos_embed",
        "vision.embeddings.patch_embedding": "blip.visual_encoder.patch_embed.proj",
        "vision.post_layernorm": "blip.visual_encoder.norm",
        "text.": "blip.text_encoder.",
        "head.": "mlp.",
    }
    renamed = {"blip.vision_proj.weight": torch.zeros(4, 64)}
    for name, tensor in tensors.items():
        for old, new in replacements.items():
            if name.startswith(old):
                name = new + name.removeprefix(old)
        if name.startswith("blip.visual"):
            name = name.replace("layer_norm", "norm").replace("self_attn.projection", "attn.proj")
            name = name.replace("self_attn", "attn")
        renamed[name] = tensor
    return renamed


def make(name: str, checkpoints: Path, **options: str) -> Reward:
    """A reward that keeps no values, so that every call computes."""
    shared = Shared(kept=0)
    place = checkpoints / "imagereward" if name == "imagereward" else checkpoints
    weights = place if name in OFFICIAL else None
    return REWARDS.get(name)(weights=weights, shared=shared, **options)


@pytest.fixture(scope="module", params=EVERY)
def reward(request: pytest.FixtureRequest, checkpoints: Path) -> Reward:
    return make(request.param, checkpoints)


@pytest.fixture(scope="module")
def batch() -> tuple[list[Image.Image], list[str]]:
    return pictures()


def own_folder(reward: Reward, to: Path) -> Path:
    """A copy of the reward's files, with no listing of their hashes."""
    to.mkdir()
    for name, path in reward.files.paths.items():
        shutil.copy(path, to / name)
    return to


def flip_last_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.chmod(0o644)
    path.write_bytes(content)


@pytest.mark.parametrize("one", CHECKS, ids=lambda one: one.__name__)
def test_conformance(one, reward, checkpoints, batch):
    one(partial(make, reward.card.name, checkpoints), *batch)


def test_every_picture_has_a_score_of_its_own(reward, batch):
    assert len(set(reward.score(*batch).tolist())) == COUNT


def test_signature_names_what_was_computed(reward, checkpoints):
    card = reward.card
    assert REWARDS.get(card.name) is type(reward)
    name, origin, scale, dtype, digest = reward.signature.split("|")
    assert (name, scale, dtype) == (card.name, card.scale, card.dtype)
    # Random weights must not pass for the official ones.
    assert origin == ("given" if card.name in OFFICIAL else card.origin)
    assert len(digest) == 12
    assert make(card.name, checkpoints).signature == reward.signature
    assert set(reward.files.sha256) == {n for w in card.weights for n in w.files}


def test_signatures_differ_between_rewards_and_with_the_card(reward, checkpoints, monkeypatch):
    others = [make(name, checkpoints) for name in EVERY if name != reward.card.name]
    assert reward.signature not in {other.signature for other in others}
    before = reward.signature
    monkeypatch.setattr(reward, "card", reward.card.model_copy(update={"version": 2}))
    assert reward.signature != before


@pytest.mark.parametrize("name", WITH_FILES)
def test_one_changed_bit_in_any_file_changes_the_signature(name, checkpoints, tmp_path):
    original = make(name, checkpoints)
    folder = own_folder(original, tmp_path / "own")
    seen = {type(original)(weights=folder).signature}
    for file in original.files.paths:
        flip_last_bit(folder / file)
        seen.add(type(original)(weights=folder).signature)
    assert len(seen) == 1 + len(original.files.paths)


@pytest.mark.parametrize("name", WITH_FILES)
def test_a_missing_file_is_named_with_the_mend(name, checkpoints, tmp_path):
    original = make(name, checkpoints)
    folder = own_folder(original, tmp_path / "own")
    last = list(original.files.paths)[-1]
    (folder / last).unlink()
    with pytest.raises(UserError) as error:
        type(original)(weights=folder).load()
    assert f"missing {last}" in str(error.value)
    assert "give a folder with these files" in str(error.value)


@pytest.mark.parametrize("name", OFFICIAL)
def test_the_weights_of_official_rewards_are_pinned(name):
    for source in REWARDS.get(name).card.weights:
        big = {f for f in source.files if f.endswith((".pt", ".pth", ".safetensors"))}
        assert big <= set(source.sha256)
        assert all(re.fullmatch("[0-9a-f]{64}", digest) for digest in source.sha256.values())
        # A file whose hash is known may come from the newest commit.
        assert re.fullmatch("[0-9a-f]{40}", source.revision or "") or big == set(source.files)


@pytest.mark.parametrize("name", OFFICIAL)
def test_official_weights_are_not_downloaded_unasked(name, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.delenv("DPO_BENCH_ALLOW_DOWNLOAD", raising=False)
    with pytest.raises(UserError, match="'bench prefetch', or set DPO_BENCH_ALLOW_DOWNLOAD=1"):
        REWARDS.get(name)().load()


@pytest.mark.parametrize("name", MINIATURE)
def test_tampered_shipped_weights_are_refused(name, tmp_path, monkeypatch):
    shipped = REWARDS.get(name)()
    folder = own_folder(shipped, tmp_path / "weights")
    listing = next(iter(shipped.files.paths.values())).parent / LISTING
    shutil.copy(listing, folder)
    monkeypatch.setattr("bench.rewards.kit.weights._package_folder", lambda source: folder)
    assert REWARDS.get(name)().signature == shipped.signature
    flip_last_bit(folder / "model.safetensors")
    with pytest.raises(UserError, match=r"model\.safetensors: expected sha256"):
        REWARDS.get(name)().load()


class Red(Reward):
    """Without fault; those that follow have one each."""

    card = Card(
        name="red", scale="red of 0-255", range=(0, 255), weights=(), preprocessing="none",
        text=None, dtype="float64", trained_on=(), licence="MIT", origin="rule",
    )  # fmt: skip

    def load(self):
        pass

    def score(self, images, prompts):
        check_lengths(images, prompts)
        return np.float32([np.asarray(image)[..., 0].mean() for image in images])


class Wide(Red):
    def score(self, images, prompts):
        return super().score(images, prompts).astype(np.float64)


class Undefined(Red):
    def score(self, images, prompts):
        return super().score(images, prompts) + np.float32("nan")


class Relative(Red):
    def score(self, images, prompts):
        scores = super().score(images, prompts)
        return scores - scores.mean() if len(images) else scores


class Placed(Red):
    def score(self, images, prompts):
        return super().score(images, prompts) + np.arange(len(images), dtype=np.float32) % 3


class Noisy(Red):
    def score(self, images, prompts):
        return super().score(images, prompts) + np.random.rand()  # noqa: NPY002


class Drawing(Red):
    def score(self, images, prompts):
        torch.rand(1)
        return super().score(images, prompts)


class Lax(Red):
    def score(self, images, prompts):
        return super().score(images, [""] * len(images))


class Reading(Red):
    def score(self, images, prompts):
        return super().score(images, prompts) + np.float32([len(p) for p in prompts])


class Deaf(Red):
    card = Red.card.model_copy(update={"text": "the whole prompt"})


class Nameless(Red):
    signature = "red|rule|red of 0-255|float64|0123456789ab"


class Half(Red):
    dtypes = ("float32", "float16")
    card = Red.card.model_copy(update={"dtype": "float32"})

    def score(self, images, prompts):
        scores = super().score(images, prompts)
        return scores * np.float32("nan") if self.card.dtype == "float16" else scores


FAULTS = {
    Wide: "float32.7. from score.., got float64.7.",
    Undefined: "finite scores",
    Relative: "same scores one image at a time",
    Placed: "same scores one image at a time",
    Noisy: "one image at a time",
    Drawing: "random states left alone",
    Lax: "a UserError for 7 images and 6 prompts: call check_lengths",
    Reading: "card.text is None, but prompts change the score",
    Deaf: "card.text is 'the whole prompt', but prompts do not change the score",
    Nameless: "another signature with another version of the card",
    Half: "finite scores in float16",
}


class Rounding(Red):
    """As kernels do that take the last rows of a batch otherwise."""

    def score(self, images, prompts):
        scores = super().score(images, prompts)
        if len(scores):
            scores[-1] = np.nextafter(scores[-1], np.float32(np.inf))
        return scores


@pytest.mark.parametrize("reward", [Red, Rounding])
def test_a_faultless_reward_passes_every_check(reward):
    check(reward)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_fault_is_found_and_told(fault):
    with pytest.raises(AssertionError, match=FAULTS[fault]):
        check(fault)


@pytest.mark.parametrize("name", ["a|b", "a\nb"])
def test_a_name_that_would_break_a_signature_is_refused(name):
    with pytest.raises(ValueError, match=r"name\n.*stands in signatures and tables"):
        Card(**Red.card.model_dump() | {"name": name})
