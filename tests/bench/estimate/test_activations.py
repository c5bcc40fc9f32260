"""Counted parameters and activations against published figures and real runs."""

import pytest
import torch
from torch import nn

from bench.estimate.activations import _watch, count
from trainers.backbones import BACKBONES
from trainers.backbones.base import Skeleton
from trainers.backbones.stable_diffusion import StableDiffusion
from trainers.errors import UserError

BASES = {
    "stable-diffusion": "stable-diffusion-v1-5",
    "stable-diffusion-xl": "stable-diffusion-xl-base-1.0",
    "stable-diffusion-3": "stable-diffusion-3-medium-diffusers",
}


def skeleton(backbone: str) -> Skeleton:
    return BACKBONES.get(backbone).skeleton(f"somewhere/{BASES[backbone]}", None)


def parameters(*parts: nn.Module) -> int:
    return sum(p.numel() for part in parts for p in part.parameters())


@pytest.mark.parametrize(
    ("backbone", "network", "vae", "texts"),
    [
        # 860 M, 84 M and 123 M are what every account of SD 1.5 has.
        ("stable-diffusion", 859_520_964, 83_653_863, 123_060_480),
        # 2.6 B and 817 M: Podell et al. 2023 (arXiv 2307.01952), Table 1.
        ("stable-diffusion-xl", 2_567_463_684, 83_653_863, 817_720_320),
        # 2 B: Esser et al. 2024 (arXiv 2403.03206), depth 24; T5-XXL's encoder has 4.76 B.
        ("stable-diffusion-3", 2_028_328_000, 83_819_683, 5_580_000_000),
    ],
)
def test_known_models(backbone: str, network: int, vae: int, texts: int) -> None:
    """Built from the configs on the meta device: the published sizes."""
    model = skeleton(backbone)
    assert parameters(model.network) == network
    assert parameters(model.autoencoder) == pytest.approx(vae, rel=1e-4)
    assert parameters(*model.text_encoders) == pytest.approx(texts, rel=1e-3)


@pytest.mark.parametrize("backbone", BASES)
def test_every_network_runs_on_its_dummy_inputs(backbone: str) -> None:
    """At half its size: the backbone says which arguments its network takes, and which blocks."""
    model = skeleton(backbone)
    saved = count(model.network, lambda: model.inputs(model.side // 2)).saved
    assert 0 < saved.largest_block < saved.in_blocks < saved.total
    assert 0 < saved.checkpointed() < 0.4 * saved.plain()


def test_a_model_that_is_neither_there_nor_known() -> None:
    with pytest.raises(UserError, match="cannot plan for the base model 'elsewhere'"):
        StableDiffusion.skeleton("elsewhere", None)
    with pytest.raises(UserError, match=r"ends in stable-diffusion-v1-5$"):
        StableDiffusion.skeleton("stable-diffusion-xl-base-1.0", None)


def test_activations_of_a_small_network_by_hand() -> None:
    """A 1x1 convolution of 4 channels on 8 x 8 keeps its input: 256 floats, twice."""
    network = nn.Sequential(nn.Conv2d(4, 4, 1, device="meta"), nn.Conv2d(4, 4, 1, device="meta"))
    with _watch(network) as saved:
        out = network(torch.empty(1, 4, 8, 8, device="meta"))
    assert out.shape == (1, 4, 8, 8)
    assert saved.plain() == 2 * 4 * 8 * 8 * 4


def test_counted_activations_are_those_of_a_real_run() -> None:
    """The same count on the CPU, where tensors are real, of a small network of the same make."""
    from diffusers import UNet2DConditionModel

    config = {
        "sample_size": 8, "block_out_channels": [32, 32], "cross_attention_dim": 16,
        "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
        "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"], "attention_head_dim": 4,
        "layers_per_block": 1,
    }  # fmt: skip
    with torch.device("meta"):
        network = UNet2DConditionModel.from_config(config)
    shapes = {"sample": (1, 4, 8, 8), "timestep": (1,), "encoder_hidden_states": (1, 5, 16)}
    counted = count(network, lambda: {name: torch.empty(s) for name, s in shapes.items()}).saved
    with torch.random.fork_rng():
        real = UNet2DConditionModel.from_config(config)
    inputs = {name: torch.zeros(shape) for name, shape in shapes.items()}
    assert counted.plain() == pytest.approx(kept(real, inputs), rel=0.05)
    # With checkpointing a block is run again as a whole: what it keeps then is not in this count.
    real.enable_gradient_checkpointing()
    left = counted.checkpointed() - counted.largest_block
    assert left == pytest.approx(kept(real, inputs), rel=0.05)


def kept(network: nn.Module, inputs: dict[str, torch.Tensor]) -> int:
    """Bytes that a forward pass on the CPU keeps, weights aside."""
    seen: dict[int, torch.Tensor] = {}
    own = {p.untyped_storage().data_ptr() for p in network.parameters()}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in own:
            seen[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        network(**inputs)
    return sum(t.untyped_storage().nbytes() for t in seen.values())
