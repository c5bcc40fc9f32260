"""What autograd keeps of a network, counted on the meta device: no weights, no arithmetic."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks


@dataclass
class Saved:
    """Bytes that autograd keeps for the backward pass of one image, in float32."""

    total: int = 0
    in_blocks: int = 0
    """Of that, inside of the blocks that gradient checkpointing computes again."""
    largest_block: int = 0
    block_inputs: int = 0

    def plain(self) -> int:
        """Without gradient checkpointing."""
        return self.total

    def checkpointed(self) -> int:
        """With it: the inputs of all blocks, what lies outside of them, and the largest one."""
        return self.total - self.in_blocks + self.block_inputs + self.largest_block


@dataclass
class Network:
    """What decides the memory of a network."""

    shapes: dict[str, tuple[int, ...]]
    """Of every weight, by name."""
    saved: Saved = field(default_factory=Saved)

    @property
    def parameters(self) -> int:
        """Their number."""
        return sum(map(prod, self.shapes.values()))


def count(network: nn.Module, inputs: Callable[[], dict[str, Any]]) -> Network:
    """Run a network on the meta device, once; ``inputs`` makes its arguments for one image."""
    with torch.device("meta"), _fused_attention(), _watch(network) as saved:
        network(**inputs())
    return Network({name: tuple(p.shape) for name, p in network.named_parameters()}, saved)


class _Fused(torch.autograd.Function):
    """An attention kernel that keeps its inputs and its output, as fused ones do."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        out = query.new_empty((*query.shape[:-1], value.shape[-1]))
        ctx.save_for_backward(query, key, value, out)
        return out


@contextmanager
def _fused_attention() -> Iterator[None]:
    """Replace attention: on meta, torch would choose a kernel that keeps all scores."""

    def attention(query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> Tensor:
        out: Tensor = _Fused.apply(query, key, value)  # type: ignore[no-untyped-call]
        return out

    original = F.scaled_dot_product_attention
    F.scaled_dot_product_attention = attention
    try:
        yield
    finally:
        F.scaled_dot_product_attention = original


@contextmanager
def _watch(network: nn.Module) -> Iterator[Saved]:
    """Record what is saved while a network runs, and which of it checkpointing would not keep."""
    saved = Saved()
    own = {id(p) for p in network.parameters()}
    seen: set[int] = set()
    alive: list[Tensor] = []  # So that no storage's address is used twice.

    def pack(tensor: Tensor) -> Tensor:
        key = tensor.untyped_storage()._cdata
        weight = id(tensor) in own or id(tensor._base) in own  # Transposed ones, too.
        if not weight and key not in seen:
            seen.add(key)
            alive.append(tensor)
            saved.total += tensor.untyped_storage().nbytes()
        return tensor

    def block(module: Callable[..., Any], hidden: Tensor, *others: Any) -> Any:
        """Runs one that the network would have checkpointed: it says itself which those are."""
        before = saved.total
        out = module(hidden, *others)
        size = saved.total - before
        saved.in_blocks += size
        saved.largest_block = max(saved.largest_block, size)
        saved.block_inputs += hidden.nbytes
        return out

    if (enable := getattr(network, "enable_gradient_checkpointing", None)) is not None:
        enable(block)
    with saved_tensors_hooks(pack, lambda tensor: tensor):
        yield saved
