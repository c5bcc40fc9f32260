"""What a network costs, counted on the meta device: no weights, no memory, no arithmetic."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from bench.estimate.architectures import Architecture

BLOCKS = ("ResnetBlock2D", "BasicTransformerBlock", "JointTransformerBlock")
"""What gradient checkpointing computes again in the backward pass."""


@dataclass
class Saved:
    """Bytes that autograd keeps for the backward pass of one image, in float32."""

    total: int = 0
    in_blocks: int = 0
    largest_block: int = 0
    block_inputs: int = 0

    def plain(self) -> int:
        """Without gradient checkpointing."""
        return self.total

    def checkpointed(self) -> int:
        """With it: the inputs of all blocks, what lies outside of them, and the largest one."""
        return self.total - self.in_blocks + self.block_inputs + self.largest_block


@dataclass
class Cost:
    """What one image costs a network."""

    parameters: int
    forward_flops: int
    saved: Saved = field(default_factory=Saved)
    shapes: tuple[tuple[str, tuple[int, ...]], ...] = ()
    """Name and shape of every parameter."""


class _Fused(torch.autograd.Function):
    """An attention kernel that keeps its inputs and its output, as fused ones do."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        out = query.new_empty((*query.shape[:-1], value.shape[-1]))
        ctx.save_for_backward(query, key, value, out)
        return out


@contextmanager
def _fused_attention() -> Iterator[list[int]]:
    """Count attention by hand: on meta, torch would choose a kernel that keeps all scores."""
    counted: list[int] = []

    def attention(query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> Tensor:
        *batch, n, d = query.shape
        counted.append(4 * int(torch.Size(batch).numel()) * n * key.shape[-2] * d)
        out: Tensor = _Fused.apply(query, key, value)  # type: ignore[no-untyped-call]
        return out

    original = F.scaled_dot_product_attention
    F.scaled_dot_product_attention = attention
    try:
        yield counted
    finally:
        F.scaled_dot_product_attention = original


@contextmanager
def _watch(network: nn.Module) -> Iterator[Saved]:
    """Record what is saved while a network runs."""
    saved, current = Saved(), [0, 0]  # Depth in blocks, and bytes of the outermost one.
    own = {id(p) for p in network.parameters()}
    seen: set[int] = set()
    alive: list[Tensor] = []  # So that no storage's address is used twice.

    def pack(tensor: Tensor) -> Tensor:
        key = tensor.untyped_storage()._cdata
        if id(tensor) not in own and not _is_view_of(tensor, own) and key not in seen:
            seen.add(key)
            alive.append(tensor)
            size = tensor.untyped_storage().nbytes()
            saved.total += size
            if current[0]:
                current[1] += size
        return tensor

    def enter(_: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        current[0] += 1
        if current[0] == 1:
            tensors = [t for t in (*inputs, *named.values()) if isinstance(t, Tensor)]
            saved.block_inputs += tensors[0].nbytes if tensors else 0

    def leave(*_: Any) -> None:
        current[0] -= 1
        if current[0] == 0:
            saved.in_blocks += current[1]
            saved.largest_block = max(saved.largest_block, current[1])
            current[1] = 0

    handles = []
    for module in network.modules():
        if type(module).__name__ in BLOCKS:
            handles.append(module.register_forward_pre_hook(enter, with_kwargs=True))
            handles.append(module.register_forward_hook(leave))
    try:
        with saved_tensors_hooks(pack, lambda tensor: tensor):
            yield saved
    finally:
        for handle in handles:
            handle.remove()


def _is_view_of(tensor: Tensor, parameters: set[int]) -> bool:
    """Transposed weights are no activations."""
    return tensor._base is not None and id(tensor._base) in parameters


@lru_cache(maxsize=8)
def network_cost(model: Architecture, side: int) -> Cost:
    """The denoising network on one latent of ``side`` x ``side``."""
    network, inputs = denoiser(model), network_inputs(model, side)
    counter = FlopCounterMode(display=False)
    with _fused_attention() as attention, _watch(network) as saved, counter:
        network(**inputs)
    return Cost(
        count(network),
        int(counter.get_total_flops()) + sum(attention),
        saved,
        tuple((name, tuple(p.shape)) for name, p in network.named_parameters()),
    )


def denoiser(model: Architecture) -> nn.Module:
    """The denoising network, without values."""
    import diffusers

    with torch.device("meta"):
        network: nn.Module = getattr(diffusers, model.network).from_config(model.config)
    return network


def network_inputs(model: Architecture, side: int) -> dict[str, Any]:
    """Inputs of the network for one image, without values."""
    config = model.config

    def empty(*shape: int) -> Tensor:
        return torch.empty(shape, device="meta")

    latents = empty(1, config.get("in_channels", 4), side, side)
    if model.network == "SD3Transformer2DModel":
        return {
            "hidden_states": latents,
            "timestep": empty(1),
            "encoder_hidden_states": empty(1, model.tokens, config["joint_attention_dim"]),
            "pooled_projections": empty(1, config["pooled_projection_dim"]),
        }
    inputs: dict[str, Any] = {
        "sample": latents,
        "timestep": empty(1),
        "encoder_hidden_states": empty(1, model.tokens, config["cross_attention_dim"]),
    }
    if config.get("addition_embed_type") == "text_time":
        times = 6 * config["addition_time_embed_dim"]
        pooled = config["projection_class_embeddings_input_dim"] - times
        inputs["added_cond_kwargs"] = {"text_embeds": empty(1, pooled), "time_ids": empty(1, 6)}
    return inputs


@lru_cache(maxsize=8)
def vae_cost(model: Architecture, side: int) -> tuple[int, int, int]:
    """Parameters of the autoencoder, and operations to encode and to decode one image."""
    from diffusers import AutoencoderKL

    with torch.device("meta"):
        vae = AutoencoderKL.from_config(model.vae)
        pixels = torch.empty(1, 3, side * model.factor, side * model.factor)
        latents = torch.empty(1, vae.config.latent_channels, side, side)
    costs = []
    for module, value in ((vae.encoder, pixels), (vae.decoder, latents)):
        counter = FlopCounterMode(display=False)
        with torch.no_grad(), _fused_attention() as attention, counter:
            module(value)
        costs.append(int(counter.get_total_flops()) + sum(attention))
    return count(vae), costs[0], costs[1]


def text_parameters(model: Architecture) -> int:
    """Parameters of all text encoders."""
    import transformers

    total = 0
    for name, config in model.text_encoders:
        kind = getattr(transformers, name)
        with torch.device("meta"):
            total += count(kind(kind.config_class(**config)))
    return total


def count(network: nn.Module) -> int:
    """Number of parameters."""
    return sum(p.numel() for p in network.parameters())
