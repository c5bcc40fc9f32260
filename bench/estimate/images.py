"""What encoding, generation and scoring would take: memory, operations, space."""

from collections.abc import Sequence
from dataclasses import dataclass

from bench.estimate.architectures import Architecture
from bench.estimate.network import Cost
from bench.estimate.training import GIB
from bench.rewards import REWARDS as KNOWN
from trainers.machine.precision import BYTES

# Operations per image of known rewards: twice the parameters of a tower times its tokens, which
# are 257 for an image of 224 pixels cut into 14, 197 if cut into 16, 77 for a text.
_CLIP_H = 2 * (632_000_000 * 257 + 302_000_000 * 77)
REWARDS: dict[str, int] = {
    "pickscore": _CLIP_H,
    "hpsv2.0": _CLIP_H,
    "hpsv2.1": _CLIP_H,
    "clip-h14": _CLIP_H,
    "clip": 2 * (304_000_000 * 257 + 85_000_000 * 77),
    "aesthetic": 2 * 304_000_000 * 257,
    "imagereward": 2 * (304_000_000 * 197 + 137_000_000 * 35),
}


def maps_bytes(model: Architecture, side: int, images: int, unit: int) -> int:
    """What an autoencoder holds of some images, either way, with ``unit`` bytes a number.

    Taken to be four maps of its first width at full size for each image.
    """
    maps = 4 * int(model.vae["block_out_channels"][0]) * (side * model.factor) ** 2
    return images * maps * unit


def encoding_memory(
    model: Architecture, vae: int, texts: int, side: int, images: int, precision: str
) -> float:
    """GiB to encode pairs: autoencoder and its maps in float32, text encoders in ``precision``."""
    weights = 4 * vae + BYTES[precision] * texts
    return (weights + maps_bytes(model, side, images, 4)) / GIB


def encoding_space(model: Architecture, side: int, pairs: int, precision: str) -> float:
    """GiB on disk of the means and deviations of the latents of two images a pair."""
    channels = int(model.vae.get("latent_channels", 4))
    return 2 * pairs * 2 * channels * side**2 * BYTES[precision] / GIB


@dataclass(frozen=True)
class Sampling:
    """What of a spec decides the cost of its images."""

    steps: int
    guided: bool
    batch_size: int
    dtype: str


def generation_memory(
    sampling: Sampling, model: Architecture, cost: Cost, others: int, side: int
) -> float:
    """GiB to make images: all weights, and the larger of a block's and the decoder's maps."""
    unit = BYTES[sampling.dtype]
    network = sampling.batch_size * (1 + sampling.guided) * cost.saved.largest_block * unit // 4
    decoder = maps_bytes(model, side, sampling.batch_size, unit)
    return float((cost.parameters + others) * unit + max(network, decoder)) / GIB


def image_flops(sampling: Sampling, cost: Cost, decode: int) -> int:
    """Operations to make one image; guidance runs the network twice a step."""
    return sampling.steps * (1 + sampling.guided) * cost.forward_flops + decode


def scoring_memory(rewards: Sequence[str], dtype: str | None) -> dict[str, float]:
    """GiB of the weights of each reward, in the precision that it is asked for if it has that."""
    sizes = {}
    for name in rewards:
        kind = KNOWN.get(name)
        stored = dtype if dtype in kind.dtypes else kind.card.dtype
        sizes[name] = kind.card.parameters * BYTES.get(stored or "", 0) / GIB
    return sizes
