"""What all Stable Diffusion models share: a network on latents, conditioned by CLIP."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from trainers.backbones.adapters import apply_adapter
from trainers.backbones.base import ADAPTER_FILE, Backbone, Moments, Skeleton
from trainers.backbones.configs import defaults, read_config, refusing, shown
from trainers.backbones.folders import (
    CONFIG,
    build_part,
    check_part,
    load_part,
    save_part,
    weight_files,
)
from trainers.backbones.pipelines import (
    INDEX,
    SCHEDULER,
    check_tokenizer,
    expect_pixels,
    load_tokenizer,
    read_index,
    read_scheduler,
)
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
    fixed: ClassVar[Mapping[str, Any]] = {}
    """Settings of the network that every such model has."""
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
        self._encoders = {p: k for p, k in self.encoders.items() if (folder / p).is_dir()}
        self._configs = {part: self._checked(part, kind) for part, kind in self._kinds().items()}
        self._scheduler = read_scheduler(folder / "scheduler", self.process)
        for part, encoder in self._tokenizers().items():
            check_tokenizer(folder / part, self.encoders[encoder])
        self._expect("vae", in_channels=3, out_channels=3)
        channels = self._configs["vae"]["latent_channels"]
        self._expect(self.network_part, in_channels=channels, out_channels=channels)
        self._expect(self.network_part, **self.fixed)
        expect_pixels(folder, self.network_part, self._configs)
        if (folder / INDEX).exists():  # Training does without.
            self._pipeline_index()

    def _pipeline_index(self) -> dict[str, Any]:
        kinds = {self.network_part: self.network_class, **self.encoders}
        return read_index(self.folder, self.pipeline_class, kinds)

    def _kinds(self) -> dict[str, Any]:
        """The class of every part with weights that is there, by folder."""
        return {self.network_part: self.network_class, **self._encoders}

    def _tokenizers(self) -> dict[str, str]:
        """The text encoder that each tokenizer is for."""
        texts = [part for part in self._encoders if part.startswith("text_encoder")]
        return {part.replace("text_encoder", "tokenizer"): part for part in texts}

    def _checked(self, part: str, kind: Any) -> dict[str, Any]:
        """The settings of a part, with what the library takes for those that its config lacks."""
        check_part(kind, self.folder / part)
        config = read_config(path := self.folder / part / CONFIG)
        if hasattr(kind, "from_config"):
            return defaults(kind) | config
        with refusing(path, f"the config of a {kind.__name__}"):
            found: dict[str, Any] = kind.config_class.from_dict(config).to_dict()
        return found

    def files(self) -> dict[str, Path]:
        """See the base class; what else lies in the folder is not read, and may change."""
        found = [self.folder / INDEX, self.folder / "scheduler" / SCHEDULER]
        for part in self._kinds():
            found += [self.folder / part / CONFIG, *weight_files(self.folder / part)]
        for part in self._tokenizers():
            texts = (self.folder / part).glob("*")
            found += [path for path in texts if path.suffix in TOKENIZER_SUFFIXES]
        return {path.relative_to(self.folder).as_posix(): path for path in found if path.is_file()}

    def check(self, sampling: Precision, *encoding: Precision) -> None:
        """See the base class."""
        for part, kind in self._kinds().items():
            text = part.startswith("text_encoder")
            for precision in {sampling, *(encoding if text else ())}:
                load_part(kind, self.folder / part, torch_dtype(precision))
        for part in self._tokenizers():
            self._tokenizer(part)
        self.release()

    @classmethod
    def skeleton(cls, base: str, folder: Path | None) -> Skeleton:
        """See the base class."""
        name = base.rstrip("/").rsplit("/", 1)[-1].split("@")[0]
        kinds = {cls.network_part: cls.network_class, **cls.encoders}
        if folder is not None:
            there = [p for p in kinds if p in cls.parts or (folder / p).is_dir()]
            configs: dict[str, Any] = {p: read_config(folder / p / CONFIG) for p in there}
            configs["source"] = str(folder)
        elif name in cls.published:
            configs = cls.published[name]
        else:
            raise UserError(
                f"cannot plan for the base model {base!r}: give the path of a diffusers folder, "
                f"or one that ends in {', '.join(cls.published)}"
            )
        parts = {
            part: build_part(kind, configs[part], (folder or Path(name)) / part / CONFIG)
            for part, kind in kinds.items()
            if part in configs
        }
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

    def _expect(self, part: str, **wanted: Any) -> None:
        """Refuse a part of another make; a key that its config lacks counts as None."""
        for key, value in wanted.items():
            if (got := self._configs[part].get(key)) != value:
                raise UserError(
                    f"{self.folder / part}: {self.title} has {key} {value!r}, but this has "
                    f"{shown(got)}: name the backbone that it is made for, or another folder"
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

    def _tokenizer(self, part: str) -> Any:
        """A tokenizer, which is loaded once."""
        if part not in self._loaded:
            encoder = self._tokenizers()[part]
            self._loaded[part] = load_tokenizer(
                self.folder / part, self.encoders[encoder], self._configs[encoder]
            )
        return self._loaded[part]

    def _tokens(self, part: str, prompts: Sequence[str], length: int | None = None) -> Tensor:
        """Prompts padded and cut to ``length``, by default the tokenizer's own: ``int64[n, L]``."""
        ids: Tensor = self._tokenizer(part)(
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

    def load_trained(self, trained: Path) -> Any:
        """The network that a run has left in a folder, in float32, an adapter merged into it.

        Raises:
            UserError: If there is none that fits.
        """
        network = self._network(trained, torch.float32)
        if not (trained / self.network_part).is_dir():
            network.fuse_lora()
            network.unload_lora()
        return network

    def _network(self, trained: Path | None, dtype: torch.dtype) -> Any:
        """The network: the pretrained one, or what a run has left in a folder."""
        part = self.network_part
        if trained is None:
            return load_part(self.network_class, self.folder / part, dtype)
        if not (trained / part).is_dir():
            network = load_part(self.network_class, self.folder / part, dtype)
            apply_adapter(network, part, trained / ADAPTER_FILE)
            return network
        own = read_config(trained / part / CONFIG)
        for key, value in self._configs[part].items():
            if not key.startswith("_") and own.get(key, value) != value:
                raise UserError(
                    f"{trained / part}: expected a network trained from {self.folder}, whose {key} "
                    f"is {shown(value)}, got {shown(own[key])}: give the model that it was trained "
                    "from as base"
                )
        return load_part(self.network_class, trained / part, dtype)

    def load_pipeline(self, trained: Path | None, precision: Precision) -> Any:
        """See the base class. Made of the parts, so that nothing is imported by its name."""
        dtype = torch_dtype(precision)
        kind, config = self._scheduler
        self._pipeline_index()
        with refusing(self.folder, f"a {self.title} model"):
            pipeline = self.pipeline_class(
                **{self.network_part: self._network(trained, dtype)},
                **{p: load_part(k, self.folder / p, dtype) for p, k in self._encoders.items()},
                **{part: self._tokenizer(part) for part in self._tokenizers()},
                **self._pipeline_options(),
                scheduler=kind.from_config(config),
            )
        return pipeline.to(self.device)

    def _pipeline_options(self) -> dict[str, Any]:
        return {}

    def save_network(self, network: nn.Module, folder: Path) -> None:
        """See the base class."""
        assert isinstance(network, self.network_class)
        save_part(network, folder / self.network_part)
