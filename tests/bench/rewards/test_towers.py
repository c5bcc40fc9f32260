"""The learned rewards against the published steps, computed here by other means."""

import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import BlipTextConfig, BlipVisionConfig, CLIPConfig, CLIPModel, CLIPTokenizer

from bench.rewards import GROUPS, REWARDS
from bench.rewards.aesthetic import Aesthetic, MiniAesthetic
from bench.rewards.clip import CLIPScore, CLIPScoreH14, MiniCLIPScore
from bench.rewards.hpsv2 import HPSv2
from bench.rewards.imagereward import ImageReward
from bench.rewards.kit.blip import Blip
from bench.rewards.kit.models import Head, load_head
from bench.rewards.kit.pixels import MEAN, STD
from bench.rewards.kit.shared import Shared
from bench.rewards.pickscore import MiniPickScore, PickScore
from bench.world.scenes import draw_look, render, scenes
from trainers.errors import UserError


@pytest.fixture(scope="module")
def batch() -> tuple[list[Image.Image], list[str]]:
    rng = np.random.default_rng(1)
    told = scenes("test")[:250:50]
    return [Image.fromarray(render(s, draw_look(rng))) for s in told], [s.caption for s in told]


def published(reward, images, prompts) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Image and text features and logit scale by the steps of PickScore's model card."""
    folder = next(iter(reward.files.paths.values())).parent
    model = CLIPModel.from_pretrained(folder, dtype=torch.float32).eval()
    raw = torch.stack([torch.from_numpy(np.asarray(image).copy()) for image in images])
    pixels = (raw.movedim(-1, 1) / 255 - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[
        :, None, None
    ]
    with torch.no_grad():
        image = model.get_image_features(pixel_values=pixels).pooler_output
        if not prompts:
            return image / image.norm(dim=-1, keepdim=True), image, model.logit_scale
        tokenizer = CLIPTokenizer.from_pretrained(folder)
        tokens = tokenizer(
            prompts, padding=True, truncation=True, max_length=16, return_tensors="pt"
        )
        text = model.get_text_features(**tokens).pooler_output
    image = image / image.norm(dim=-1, keepdim=True)
    return image, text / text.norm(dim=-1, keepdim=True), model.logit_scale


def test_pickscore_is_the_published_softmax_logit(batch):
    images, prompts = batch
    image, text, logit_scale = published(MiniPickScore(), images, prompts)
    expected = logit_scale.exp() * (text @ image.T)
    scores = MiniPickScore().score(images, prompts)
    np.testing.assert_allclose(scores, expected.diag().detach().numpy(), rtol=1e-5)


def test_clip_score_is_100_times_the_cosine(batch):
    images, prompts = batch
    image, text, _ = published(MiniCLIPScore(), images, prompts)
    expected = 100 * torch.nn.functional.cosine_similarity(image, text)
    np.testing.assert_allclose(
        MiniCLIPScore().score(images, prompts), expected.numpy(), rtol=1e-5, atol=1e-4
    )


def test_long_prompts_are_truncated_with_the_end_token_kept(batch):
    images, prompts = batch
    long = [" ".join([p] * 4) for p in prompts]
    image, text, logit_scale = published(MiniPickScore(), images, long)
    expected = logit_scale.exp() * (image * text).sum(-1)
    scores = MiniPickScore().score(images, long)
    np.testing.assert_allclose(scores, expected.detach().numpy(), rtol=1e-5)
    assert not np.allclose(scores, MiniPickScore().score(images, prompts))


def test_aesthetic_is_one_linear_map_of_unit_features(batch):
    images, prompts = batch
    reward = MiniAesthetic()
    features, *_ = published(reward, images, [])
    weight, bias = torch.eye(features.shape[1], dtype=torch.float64), torch.zeros(64).double()
    for layer in reward.head.layers:
        if isinstance(layer, torch.nn.Linear):
            weight = layer.weight.double() @ weight
            bias = layer.weight.double() @ bias + layer.bias.double()
    expected = features.double() @ weight.T + bias
    np.testing.assert_allclose(
        reward.score(images, prompts), expected.squeeze(1).numpy(), rtol=1e-5
    )


def test_features_have_length_one(batch):
    images, prompts = batch
    reward = MiniCLIPScore()
    for features in (reward.image_features(images), reward.text_features(prompts)):
        np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1, rtol=1e-12)


def test_text_features_are_computed_once_per_prompt(batch, monkeypatch):
    images, prompts = batch
    reward = MiniCLIPScore()
    first = reward.score(images, prompts)
    monkeypatch.setattr(reward.tower.model, "text_model", None)
    np.testing.assert_array_equal(reward.score(images, prompts), first)


def test_published_names_of_the_head_and_its_formats(tmp_path):
    head = Head(8)
    shapes = {name: tuple(t.shape) for name, t in head.state_dict().items() if "weight" in name}
    assert shapes == {
        "layers.0.weight": (1024, 8),
        "layers.2.weight": (128, 1024),
        "layers.4.weight": (64, 128),
        "layers.6.weight": (16, 64),
        "layers.7.weight": (1, 16),
    }
    torch.save(head.state_dict(), tmp_path / "head.pth")
    features = torch.randn(3, 8, generator=torch.Generator().manual_seed(0))
    loaded = load_head(tmp_path / "head.pth", "cpu").rate(features.double().numpy())
    np.testing.assert_array_equal(loaded, head.eval()(features).detach().numpy())


class Payload:
    def __reduce__(self):
        return print, ("code from a weights file ran",)


def test_a_head_file_cannot_run_code(tmp_path, capsys):
    torch.save({"layers.0.weight": Payload()}, tmp_path / "head.pth")
    with pytest.raises(UserError, match="of an aesthetic head"):
        load_head(tmp_path / "head.pth", "cpu")
    assert "ran" not in capsys.readouterr().out


def test_a_checkpoint_that_lacks_a_tensor_is_refused(tmp_path):
    from safetensors.torch import load_file, save_file

    files = MiniCLIPScore().files.paths
    for name, path in files.items():
        (tmp_path / name).write_bytes(path.read_bytes())
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["visual_projection.weight"]
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=r"such as 'visual_projection\.weight'"):
        MiniCLIPScore(weights=tmp_path).load()
    (tmp_path / "model.safetensors").write_bytes(b"not a tensor file")
    with pytest.raises(UserError, match="fetch it again"):
        MiniCLIPScore(weights=tmp_path).load()


VIT_L_14 = CLIPConfig(
    text_config={
        "hidden_size": 768, "intermediate_size": 3072,
        "num_attention_heads": 12, "num_hidden_layers": 12,
    },
    vision_config={
        "hidden_size": 1024, "intermediate_size": 4096,
        "num_attention_heads": 16, "num_hidden_layers": 24, "patch_size": 14,
    },
    projection_dim=768,
)  # fmt: skip
VIT_H_14 = CLIPConfig(
    text_config={
        "hidden_size": 1024, "intermediate_size": 4096,
        "num_attention_heads": 16, "num_hidden_layers": 24,
    },
    vision_config={
        "hidden_size": 1280, "intermediate_size": 5120,
        "num_attention_heads": 16, "num_hidden_layers": 32, "patch_size": 14,
    },
    projection_dim=1024,
)  # fmt: skip


@pytest.mark.parametrize(
    ("reward", "config"),
    [(CLIPScore, VIT_L_14), (CLIPScoreH14, VIT_H_14), (PickScore, VIT_H_14), (HPSv2, VIT_H_14)],
)
def test_cards_state_the_size_of_the_full_model(reward, config):
    with torch.device("meta"):
        model = CLIPModel(config)
    assert reward.card.parameters == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("name", [name for name in GROUPS["mini"] if name != "oracle"])
def test_cards_of_miniatures_state_the_size_of_what_is_loaded(name):
    files = [p for n, p in REWARDS.get(name)().files.paths.items() if n.endswith(".safetensors")]
    tensors = [tensor for file in files for tensor in load_file(file).values()]
    assert REWARDS.get(name).card.parameters == sum(tensor.numel() for tensor in tensors)


def test_the_card_of_imagereward_states_the_size_of_the_full_model():
    vision = BlipVisionConfig(
        hidden_size=1024, intermediate_size=4096, num_hidden_layers=24, num_attention_heads=16,
        image_size=224, patch_size=16,
    )  # fmt: skip
    with torch.device("meta"):
        model = Blip(vision, BlipTextConfig(encoder_hidden_size=1024, num_attention_heads=12))
    assert ImageReward.card.parameters == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_another_precision_is_close_and_named_in_the_signature(batch, dtype):
    exact, other = MiniCLIPScore(), MiniCLIPScore(dtype=dtype)
    assert f"|{dtype}|" in other.signature
    assert other.tower.model.logit_scale.dtype == getattr(torch, dtype)
    difference = np.abs(other.score(*batch) - exact.score(*batch))
    assert 0 < difference.max() < 1


def test_an_unknown_precision_is_refused():
    with pytest.raises(UserError, match="float32, bfloat16, float16, got 'int8'"):
        MiniCLIPScore(dtype="int8")


def test_rewards_with_the_same_weights_share_one_model_and_one_pass(batch, tmp_path):
    images, prompts = batch
    for path in [*MiniAesthetic().files.paths.values(), *MiniCLIPScore().files.paths.values()]:
        shutil.copy(path, tmp_path)
    shared = Shared()
    clip = MiniCLIPScore(weights=tmp_path, shared=shared)
    aesthetic = MiniAesthetic(weights=tmp_path, shared=shared)
    clip.score(images, prompts)
    assert aesthetic.tower is clip.tower
    alone = MiniAesthetic(weights=tmp_path).score(images, prompts)
    clip.tower.model.vision_model = None
    np.testing.assert_array_equal(aesthetic.score(images, prompts), alone)


@pytest.mark.parametrize(
    ("mini", "official"),
    [(MiniCLIPScore, CLIPScore), (MiniPickScore, PickScore), (MiniAesthetic, Aesthetic)],
)
def test_a_miniature_differs_from_the_official_class_in_its_card_alone(mini, official):
    assert mini.__bases__ == (official,)
    assert {name for name in vars(mini) if not name.startswith("__")} <= {
        "card",
        "_abc_impl",
    }
    assert mini.card.scale == official.card.scale
    assert mini.card.preprocessing == official.card.preprocessing
