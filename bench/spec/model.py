"""What an experiment is: a YAML file, checked as a whole before anything runs."""

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from bench.assets import specs_folder
from trainers.errors import UserError
from trainers.machine.precision import Matmul, Precision
from trainers.registry import explain

_Frozen = ConfigDict(frozen=True, extra="forbid")
Overrides = dict[str, Any]
"""Dotted keys of ``train`` to new values, e.g. ``{"objective.beta": 1000}``."""


class Component(BaseModel):
    """An ingredient that is on or off: what it changes in ``train`` when it is on."""

    model_config = _Frozen
    label: str
    set: Overrides = Field(min_length=1)


class Control(BaseModel):
    """A further arm, compared with an arm it is derived from."""

    model_config = _Frozen
    of: str
    """The arm it starts from and is compared with."""
    set: Overrides = Field(min_length=1)


class Generate(BaseModel):
    """How images are made. Each field is part of an image's identity but ``EXECUTION``."""

    model_config = _Frozen
    EXECUTION: ClassVar[frozenset[str]] = frozenset({"batch_size", "device"})
    sampler: str = "ddim"
    """One of ``bench.images.samplers`` that fits the backbone."""
    steps: int = Field(50, ge=1)
    guidance: float = Field(7.5, ge=0)
    eta: float = Field(0.0, ge=0, le=1)
    """Share of fresh noise in each step, for a sampler that takes it."""
    height: int | None = Field(None, ge=16, multiple_of=16)
    width: int | None = Field(None, ge=16, multiple_of=16)
    """Pixels; None takes the size that the model was trained for."""
    dtype: Precision = "float32"
    """Precision of the models."""
    matmul: Matmul = "float32"
    """How a GPU multiplies float32 values."""
    images_per_prompt: int = Field(1, ge=1)
    seed: int = 0
    batch_size: int = Field(25, ge=1)
    device: str = "cpu"
    """A torch device. Noise comes from the CPU whatever the device."""


class Encoding(BaseModel):
    """How pairs are encoded. Execution only: no field changes what a run learns."""

    model_config = _Frozen
    cache: bool = True
    """Keep the encodings of images and prompts in the store; otherwise every step makes its own."""
    batch_size: int = Field(32, ge=1)
    """Images per forward pass, where encodings are kept."""
    device: str = "cpu"
    """A torch device."""


class Training(BaseModel):
    """Where runs are trained. Execution only; other devices and process counts round otherwise."""

    model_config = _Frozen
    device: str = "cpu"
    """A torch device; with several processes its kind, of which each process takes one."""
    processes: int = Field(1, ge=1)
    """Processes that share the batches of a run."""
    checkpoint_every: int = Field(50, ge=1)
    """Optimiser steps between two checkpoints: what an interruption may cost."""
    keep_checkpoint: bool = True
    """Whether a store keeps the last one, from which a run of more steps goes on."""


class Scoring(BaseModel):
    """How rewards run. What decides a score is in its signature; the rest is execution."""

    model_config = _Frozen
    device: str = "cpu"
    """A torch device."""
    dtype: Precision | None = None
    """Precision of the models; None takes that of each card."""
    matmul: Matmul = "float32"
    """How a GPU multiplies float32 values; part of a signature unless it is ``float32``."""
    batch_size: int | None = Field(None, ge=1)
    """Images per forward pass; None takes what each reward suggests."""
    weights: dict[str, str] = {}
    """Where a reward's files lie, by its name: a folder, or ``owner/name@revision`` on the Hub."""


class Equivalence(BaseModel):
    """The bound within which a difference counts as none: a share of a gain, or absolute."""

    model_config = _Frozen
    share: float | None = Field(None, gt=0, lt=1)
    """Of the gain ``of``, which must itself be established."""
    of: str | None = None
    """A comparison of the family, e.g. ``DPO - base``; None for the first objective's with the base
    model."""
    bound: float | None = Field(None, gt=0)
    """In units of the primary metric."""

    @model_validator(mode="after")
    def _one_form(self) -> "Equivalence":
        if (self.share is None) == (self.bound is None) or (self.of and self.bound is not None):
            raise ValueError("give a share (and 'of', whose gain it is a share of), or a bound")
        return self


class Interaction(BaseModel):
    """A further comparison: what the first component does with the second on, less without it."""

    model_config = _Frozen
    interaction: tuple[str, str]
    of: str
    """The objective."""


class Statistics(BaseModel):
    """The analysis that was declared beforehand."""

    model_config = _Frozen
    alpha: float = Field(0.05, gt=0, lt=0.5)
    equivalence: Equivalence = Equivalence(share=0.2)
    """What differences count as none."""
    tie: float = Field(0.0, ge=0)
    """Scores closer than this are a tie."""
    control_pairs: int = Field(3, ge=2)
    """Pairs of image sets of the base model, with different noises, in the A/A control."""


class Cost(BaseModel):
    """Seconds on one core per unit of work, for the estimate of ``--plan`` only."""

    model_config = _Frozen
    pair: float = Field(gt=0)
    """Of Diffusion-DPO; other objectives count by their passes through a network."""
    image: float = Field(gt=0)
    score: float = Field(gt=0)
    start: float = Field(gt=0)


class Spec(BaseModel):
    """An experiment. Unknown keys are refused everywhere."""

    model_config = _Frozen
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    title: str
    label: str
    """What the results are to be taken for, printed under every table."""
    base: str
    """A model shipped with the package, or a folder in the diffusers layout."""
    backbone: str = "stable-diffusion"
    data: str | dict[str, Any]
    """Preference pairs: a set shipped with the package, a path, or a source by ``name`` with its
    settings; see ``trainers.data.sources``. What is made of them is ``train.data``."""
    encoding: Encoding = Encoding()
    training: Training = Training()
    labelled_by: tuple[str, ...] = ()
    """Rewards that the preferences of the pairs were made from: tables mark them."""
    train: dict[str, Any]
    """Settings of every arm with all components off; see ``trainers.config.TrainConfig``."""
    objectives: dict[str, Overrides] = Field(min_length=1)
    """Arms with all components off, by name: what each changes in ``train``."""
    components: dict[str, Component] = {}
    controls: dict[str, Control] = {}
    comparisons: tuple[str | Interaction, ...] = ()
    """Further ones of the declared family, after those that objectives, components and controls
    make; one arm against another is written ``DPO+A - SFT``."""
    seeds: tuple[int, ...] = Field(min_length=1)
    generate: Generate = Generate()
    prompts: str
    """A set by name, or the path of a file; see ``bench.spec.prompts``."""
    prompt_files: str | None = None
    """Where the files of a known set that is not shipped are, if not where its card says."""
    prompt_limit: int | None = Field(None, ge=1)
    rewards: tuple[str, ...] = Field(min_length=1)
    primary: str
    scoring: Scoring = Scoring()
    statistics: Statistics = Statistics()
    cost: Cost
    quick: Overrides = {}
    """Dotted keys of the whole spec that ``--quick`` replaces."""

    @model_validator(mode="after")
    def _consistent(self) -> "Spec":
        if self.primary not in self.rewards:
            raise ValueError(f"primary {self.primary!r} is not among the rewards")
        if len(set(self.seeds)) != len(self.seeds) or len(set(self.rewards)) != len(self.rewards):
            raise ValueError("seeds and rewards must each be distinct")
        if clash := set(self.objectives) & set(self.controls):
            raise ValueError(f"an objective and a control are both called {sorted(clash)[0]!r}")
        return self


def shipped() -> dict[str, Path]:
    """The specs of the package by name."""
    return {path.stem: path for path in sorted(specs_folder().glob("*.yaml"))}


def load_spec(
    source: str,
    quick: bool = False,
    seeds: tuple[int, ...] | None = None,
    changes: Overrides | None = None,
) -> Spec:
    """Read a shipped spec by name, or a YAML file by path.

    Args:
        source: The name or the path.
        quick: Take the smaller version that its ``quick`` section describes.
        seeds: Training seeds in place of its own, and of those of ``quick``.
        changes: Dotted keys of the whole spec to replace, after ``quick``.

    Raises:
        UserError: If there is no such spec, it is not YAML, or it does not say what a spec must.
    """
    raw = _read(source)
    spec = parse_spec(raw, source)
    if quick:
        if not spec.quick:
            raise UserError(f"{source} has no 'quick' section: run it without --quick, or add one")
        raw = override(raw, {**spec.quick, "name": f"{spec.name}-quick"})
    raw = override(raw, changes or {})
    if seeds is not None:
        raw = override(raw, {"seeds": list(seeds)})
    return parse_spec(raw, source)


def _read(source: str, folder: Path = Path(), children: tuple[Path, ...] = ()) -> dict[str, Any]:
    """The keys of a spec; one that ``extends`` another gives dotted keys to replace in it.

    A path is relative to ``folder``, which for a spec that is extended is that of the other.
    """
    path = shipped().get(source, folder / source)
    if not path.is_file():
        near = difflib.get_close_matches(source, shipped(), n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise UserError(
            f"no spec {source!r}: {hint}give the path of a YAML file, or one of "
            f"{', '.join(shipped())}"
        )
    try:
        raw = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(raw, dict):
        raise UserError(f"{path}: expected keys such as name, train and prompts, got {raw!r}")
    if (parent := raw.pop("extends", None)) is None:
        return raw
    line = (*children, path.resolve())
    found = shipped().get(parent, path.parent / parent) if isinstance(parent, str) else path
    if found.resolve() in line:
        raise UserError(f"{path}: 'extends' must name another spec, got {parent!r}")
    try:
        return override(_read(parent, path.parent, line), raw)
    except UserError as error:
        raise UserError(str(error) if str(path) in str(error) else f"{path}: {error}") from error


def parse_spec(raw: Mapping[str, Any], where: str) -> Spec:
    """Check a spec that has been read.

    Raises:
        UserError: With every fault in one line.
    """
    try:
        return Spec.model_validate(dict(raw))
    except ValidationError as error:
        raise UserError(f"{where}: {explain(error)}") from error


def override(values: Mapping[str, Any], changes: Overrides) -> dict[str, Any]:
    """A copy of ``values`` with dotted keys replaced.

    A mapping replaces what it finds whole: settings of one plug-in make no sense for another. A
    section that is not there is begun; what it may hold is checked with the whole.

    Raises:
        UserError: If a key leads through something that is not a mapping.
    """
    result = dict(values)
    for key, value in changes.items():
        head, _, rest = key.partition(".")
        if not rest:
            result[head] = value
            continue
        inner = result.get(head)
        if inner is None:
            inner = {}
        if not isinstance(inner, Mapping):
            raise UserError(
                f"cannot set {key!r}: there is no section {head!r} to set it in, but {inner!r}"
            )
        result[head] = override(inner, {rest: value})
    return result
