"""What all Stable Diffusion models share: a network on latents, conditioned by CLIP."""

import json
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import CLIPTokenizer

from trainers.backbones.base import ADAPTER_FILE, Backbone, Moments, Skeleton
from trainers.backbones.folders import build_part, load_part, save_part, variant, weight_files
from trainers.errors import UserError
from trainers.machine.precision import Precision, torch_dtype

TOKENIZER_SUFFIXES = (".json", ".txt", ".model")
"""Of the files that a tokenizer is read from: settings, vocabulary, merges, sentencepiece."""


class LatentModel(Backbone):
    """A folder in the diffusers layout, whose parts are read once they are needed."""

    title: ClassVar[str]
    """What such a model is called in messages."""
    parts: ClassVar[tuple[str, ...]]
    """Folders that must be there."""
    network_class: ClassVar[Any]
    encoders: ClassVar[dict[str, Any]]
    """Classes of the other parts with weights, by folder; one that is no required part may lack."""
    pipeline_class: ClassVar[Any]
    published: ClassVar[Mapping[str, dict[str, Any]]] = {}
    """See :func:`trainers.backbones.folders.published`."""

    def __init__(self, folder: Path, device: str = "cpu") -> None:
        """See the base class."""
        self.folder = folder
        self.device = device
        self._loaded: dict[str, Any] = {}
        if missing := [part for part in self.parts if not (folder / part).is_dir()]:
            raise UserError(
                f"expected a {self.title} folder in the diffusers layout at {folder}, but "
                f"{', '.join(missing)} is missing: give a folder written by save_pretrained"
            )
        self._expect(self.network_part, in_channels=self._config("vae")["latent_channels"])
        self._encoders = {p: k for p, k in self.encoders.items() if (folder / p).is_dir()}
        for part in (self.network_part, *self._encoders):
            variant(folder / part)

    def files(self) -> dict[str, Path]:
        """See the base class; what else lies in the folder is not read, and may change."""
        found = [self.folder / "model_index.json", self.folder / "scheduler/scheduler_config.json"]
        for part in (self.network_part, *self._encoders):
            found += [self.folder / part / "config.json", *weight_files(self.folder / part)]
        for part in self._encoders:
            if part.startswith("text_encoder"):
                texts = self.folder / part.replace("text_encoder", "tokenizer")
                found += [path for path in texts.glob("*") if path.suffix in TOKENIZER_SUFFIXES]
        return {path.relative_to(self.folder).as_posix(): path for path in found if path.is_file()}

    @classmethod
    def skeleton(cls, base: str, folder: Path | None) -> Skeleton:
        """See the base class."""
        name = base.rstrip("/").rsplit("/", 1)[-1].split("@")[0]
        kinds = {cls.network_part: cls.network_class, **cls.encoders}
        if folder is not None:
            there = [p for p in kinds if p in cls.parts or (folder / p).is_dir()]
            configs: dict[str, Any] = {p: cls._read(folder / p) for p in there}
            configs["source"] = str(folder)
        elif name in cls.published:
            configs = cls.published[name]
        else:
            raise UserError(
                f"cannot plan for the base model {base!r}: give the path of a diffusers folder, "
                f"or one that ends in {', '.join(cls.published)}"
            )
        parts = {p: build_part(k, configs[p]) for p, k in kinds.items() if p in configs}
        network, vae = parts[cls.network_part], parts["vae"].config
        return Skeleton(
            name, configs["source"], network, partial(cls._dummy_inputs, parts), parts["vae"],
            tuple(part for name, part in parts.items() if name.startswith("text_encoder")),
            vae.latent_channels, network.config.sample_size,
            2 ** (len(vae.block_out_channels) - 1), vae.block_out_channels[0],
        )  # fmt: skip

    @classmethod
    @abstractmethod
    def _dummy_inputs(cls, parts: Mapping[str, Any], side: int) -> dict[str, Any]:
        """Arguments of the network for one latent, given all parts by folder."""

    def _config(self, part: str, name: str = "config.json") -> dict[str, Any]:
        return self._read(self.folder / part, name)

    @classmethod
    def _read(cls, folder: Path, name: str = "config.json") -> dict[str, Any]:
        path = folder / name
        if not path.is_file():
            raise UserError(
                f"expected a {cls.title} folder in the diffusers layout, but there is no {path}: "
                "give a folder written by save_pretrained"
            )
        config: dict[str, Any] = json.loads(path.read_text())
        return config

    def _expect(self, part: str, **wanted: Any) -> None:
        """Refuse a part of another make; a key that its config lacks counts as None."""
        config = self._config(part)
        for key, value in wanted.items():
            if (got := config.get(key)) != value:
                raise UserError(
                    f"{self.folder / part}: {self.title} has {key} {value!r}, but this has "
                    f"{got!r}: name the backbone that it is made for, or another folder"
                )

    def _frozen(self, part: str, precision: Precision) -> Any:
        """An encoder that is loaded in a precision, and in no other at the same time."""
        dtype = torch_dtype(precision)
        if part not in self._loaded or self._loaded[part].dtype != dtype:
            model = load_part(self._encoders[part], self.folder / part, dtype)
            self._loaded[part] = model.to(self.device).eval().requires_grad_(False)
        return self._loaded[part]

    def release(self) -> None:
        """See the base class."""
        self._loaded.clear()

    def _tokens(
        self,
        part: str,
        prompts: Sequence[str],
        kind: Any = CLIPTokenizer,
        length: int | None = None,
    ) -> Tensor:
        """Prompts padded and cut to ``length``, by default the tokenizer's own: ``int64[n, L]``."""
        if part not in self._loaded:
            path = self.folder / part
            self._loaded[part] = kind.from_pretrained(path, local_files_only=True)
        ids: Tensor = self._loaded[part](
            list(prompts),
            padding="max_length",
            max_length=length,
            truncation=True,
            return_tensors="pt",
        ).input_ids
        return ids.to(self.device)

    @torch.no_grad()
    def encode_images(self, pixels: Tensor) -> Moments:
        """See the base class; latents are shifted, then scaled, by the autoencoder's config.

        Always in float32: autoencoders overflow in half precision, SDXL's foremost.
        """
        vae = self._frozen("vae", "float32")
        posterior = vae.encode(pixels.to(self.device)).latent_dist
        scale, shift = vae.config.scaling_factor, vae.config.shift_factor or 0.0
        return Moments(scale * (posterior.mean - shift), scale * posterior.std)

    def load_network(self) -> nn.Module:
        """See the base class."""
        network: nn.Module = self._network(None, torch.float32)
        return network.to(self.device)

    def _network(self, trained: Path | None, dtype: torch.dtype) -> Any:
        return load_part(self.network_class, (trained or self.folder) / self.network_part, dtype)

    def load_pipeline(self, trained: Path | None, precision: Precision) -> Any:
        """See the base class."""
        dtype = torch_dtype(precision)
        adapter = trained if trained and (trained / ADAPTER_FILE).is_file() else None
        encoders = {p: load_part(k, self.folder / p, dtype) for p, k in self._encoders.items()}
        pipeline = self.pipeline_class.from_pretrained(
            self.folder,
            **{self.network_part: self._network(None if adapter else trained, dtype)},
            **encoders,
            **self._pipeline_options(),
            dtype=dtype,
            local_files_only=True,
        )
        if adapter is not None:
            pipeline.load_lora_weights(adapter, weight_name=ADAPTER_FILE)
        return pipeline.to(self.device)

    def _pipeline_options(self) -> dict[str, Any]:
        return {}

    def save_network(self, network: nn.Module, folder: Path) -> None:
        """See the base class."""
        assert isinstance(network, self.network_class)
        save_part(network, folder / self.network_part)
