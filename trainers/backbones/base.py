"""What a backbone is: it encodes, noises and predicts, and knows its signal-to-noise ratio."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, TypeAlias

from trainers.errors import UserError
from trainers.files import canonical_json, sha256_file, sha256_text
from trainers.machine.precision import Precision

if TYPE_CHECKING:
    from torch import Tensor, nn


class Moments(NamedTuple):
    """Mean and deviation of the latents of images, each ``float32[n, C, H, W]``, scaled."""

    mean: Tensor
    std: Tensor


Condition: TypeAlias = "dict[str, Tensor]"
"""What the network is conditioned on, by name, each ``[n, ...]``: the states of the prompt, and
whatever else a backbone knows about an image."""
ADAPTER_FILE = "pytorch_lora_weights.safetensors"
"""The name under which diffusers looks for an adapter in a folder."""


@dataclass(frozen=True, eq=False)
class Skeleton:
    """A model whose parts are on the meta device: shapes without values, for estimates."""

    name: str
    source: str
    """Where its configs come from."""
    network: nn.Module
    inputs: Callable[[int], dict[str, Any]]
    """Arguments of the network for one latent of a height and width, on the default device."""
    autoencoder: nn.Module
    text_encoders: tuple[nn.Module, ...]
    channels: int
    """Of its latents."""
    side: int
    """Height and width of its latents, at the size it was trained for."""
    factor: int
    """Pixels to a latent, each way."""
    width: int
    """Channels of the autoencoder's maps at full size."""


class Backbone(ABC):
    """A pretrained text-to-image model in the diffusers folder layout."""

    name: ClassVar[str]
    process: ClassVar[Literal["diffusion", "flow"]] = "diffusion"
    """How noise is mixed in, which decides what samplers fit."""
    network_part: ClassVar[str] = "unet"
    """Folder of the denoising network within the model's folder."""
    micro_conditioned: ClassVar[bool] = False
    """Whether conditions must hold "micro", ``float32[n, 6]``: original height and width, top and
    left of the crop, and target height and width, in pixels. Data objects provide it."""
    snr: Tensor
    """Signal-to-noise ratio at each training timestep, ``float64[T]``, at least 0 and falling: a
    larger timestep is a noisier one. That of ``a x_0 + b eps`` is ``a^2 / b^2``."""

    @abstractmethod
    def __init__(self, folder: Path, device: str = "cpu") -> None:
        """Remember where the model lies; parts are read when they are needed.

        Raises:
            UserError: If the folder does not hold such a model.
        """

    @classmethod
    def skeleton(cls, base: str, folder: Path | None) -> Skeleton:
        """The parts of a model without their weights.

        Args:
            base: Path of its folder, or id of its repository.
            folder: That folder, where it is there; its configs are enough.

        Raises:
            UserError: If it is neither there nor known, or such models cannot be estimated.
        """
        raise UserError(f"backbone {cls.name!r} does not say what its models are made of")

    @abstractmethod
    def files(self) -> dict[str, Path]:
        """The files that the model is read from, by their POSIX paths within its folder."""

    def sha256(self) -> str:
        """Identity of the model: one hash over the names and bytes of its files."""
        hashes = {name: sha256_file(path) for name, path in self.files().items()}
        return sha256_text(canonical_json(hashes))

    def check(self, sampling: Precision, *encoding: Precision) -> None:  # noqa: B027
        """Read every part once, so that a damaged one is refused before the work.

        Args:
            sampling: Precision of all parts when images are drawn.
            encoding: Those of the text encoders when pairs are encoded.

        Raises:
            UserError: If a part cannot be read, or not in that precision.
        """

    @abstractmethod
    def load_network(self) -> nn.Module:
        """The pretrained denoising network, in float32, a new copy at each call."""

    @abstractmethod
    def load_pipeline(self, trained: Path | None, precision: Precision) -> Any:
        """The diffusers pipeline that samples from the model; its ``vae.decoder`` gives the pixels.

        Args:
            trained: Folder of :meth:`save_network`, for that network in place of the pretrained.
            precision: That of every part.
        """

    @abstractmethod
    def encode_images(self, pixels: Tensor) -> Moments:
        """Encode pixels in [-1, 1], ``[n, 3, height, width]``, in float32."""

    @abstractmethod
    def encode_prompts(self, prompts: Sequence[str], precision: Precision = "float32") -> Condition:
        """The condition of each prompt, every value ``float32[n, ...]``.

        The pipeline's own encoding; "micro" is no part of it.

        Args:
            prompts: Texts.
            precision: What the text encoders are loaded, and compute, in.
        """

    @abstractmethod
    def release(self) -> None:
        """Free the memory of all that was loaded to encode; encoding loads it again."""

    @abstractmethod
    def add_noise(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """``x_t`` for timesteps ``int64[n]``."""

    @abstractmethod
    def target(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """What the network should predict for ``x_t``."""

    @abstractmethod
    def predict(
        self, network: nn.Module, noisy: Tensor, timesteps: Tensor, condition: Condition
    ) -> Tensor:
        """The network's prediction, of the shape of ``noisy``."""

    @abstractmethod
    def save_network(self, network: nn.Module, folder: Path) -> None:
        """Write the network where a pipeline of this kind would look for it below ``folder``."""
