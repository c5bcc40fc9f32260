"""What an experiment is: a YAML file, checked as a whole before anything runs."""

import difflib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, PrivateAttr, model_validator

from bench.assets import specs_folder
from bench.spec.launch import Launch
from trainers.errors import UserError
from trainers.files import canonical_json
from trainers.input.checked import Checked, check, key_text, refuse_odd, shown
from trainers.input.paths import there
from trainers.input.text import read_yaml
from trainers.machine.precision import Matmul, Precision
from trainers.seeds import MANY, Seed

DEEPEST = 20
"""Specs in a line of which each extends the next, at most."""
_OTHER = f"'extends' must name another spec, in a line of at most {DEEPEST}, got {{}}"
Overrides = dict[str, Any]
"""Dotted keys of ``train`` to new values, e.g. ``{"objective.beta": 1000}``."""
Space = dict[str, tuple[Any, ...]]
"""Dotted keys of ``train`` to the values that are tried, in all combinations."""


class Component(Checked):
    """An ingredient that is on or off: what it changes in ``train`` when it is on."""

    label: str
    set: Overrides = Field(min_length=1)


class Control(Checked):
    """A further arm, compared with an arm it is derived from."""

    of: str | None = None
    """The arm it starts from and is compared with. Without one it is a rival: it starts from the
    first objective, and is compared with the base model and with all components of it, too."""
    set: Overrides = Field(min_length=1)


class Generate(Checked):
    """How images are made. Each field is part of an image's identity but ``EXECUTION``."""

    EXECUTION: ClassVar[frozenset[str]] = frozenset({"batch_size", "device"})
    sampler: str = "ddim"
    """One of ``bench.images.samplers`` that fits the backbone."""
    steps: int = Field(50, ge=1, le=1000)
    """Not more than the timesteps that the model was trained with."""
    guidance: float = Field(7.5, ge=0, le=1000)
    eta: float = Field(0.0, ge=0, le=1)
    """Share of fresh noise in each step, for a sampler that takes it."""
    height: int | None = Field(None, ge=16, le=8192, multiple_of=16)
    width: int | None = Field(None, ge=16, le=8192, multiple_of=16)
    """Pixels; None takes the size that the model was trained for."""
    dtype: Precision = "float32"
    """Precision of the models."""
    matmul: Matmul = "float32"
    """How a GPU multiplies float32 values."""
    images_per_prompt: int = Field(1, ge=1, le=1000)
    seed: Seed = 0
    batch_size: int = Field(25, ge=1, le=10**6)
    device: str = "cpu"
    """A torch device. Noise comes from the CPU whatever the device."""


class Encoding(Checked):
    """How pairs are encoded. Execution only: no field changes what a run learns."""

    cache: bool = True
    """Keep the encodings of images and prompts in the store; otherwise every step makes its own."""
    batch_size: int = Field(32, ge=1, le=10**6)
    """Images per forward pass, where encodings are kept."""
    device: str = "cpu"
    """A torch device."""


class Training(Checked):
    """Where runs are trained. Execution only; other devices and process counts round otherwise."""

    device: str = "cpu"
    """A torch device; with several processes its kind, of which each process takes one."""
    processes: int = Field(1, ge=1, le=1024)
    """Processes that share the batches of a run."""
    checkpoint_every: int = Field(50, ge=1)
    """Optimiser steps between two checkpoints: what an interruption may cost."""
    keep_checkpoint: bool = True
    """Whether a store keeps the last one, from which a run of more steps goes on."""
    share_reference: bool = True
    """Compute errors of the pretrained network once for all runs that would compute the same."""
    log_with: tuple[str, ...] = ()
    """Trackers of accelerate that are told of every step, e.g. ``tensorboard``."""
    log_to: str = "trackers"
    """Folder for trackers that write files."""


class Scoring(Checked):
    """How rewards run. What decides a score is in its signature; the rest is execution."""

    device: str = "cpu"
    """A torch device."""
    dtype: Precision | None = None
    """Precision of the models; None takes that of each card."""
    matmul: Matmul = "float32"
    """How a GPU multiplies float32 values; part of a signature unless it is ``float32``."""
    batch_size: int | None = Field(None, ge=1, le=10**6)
    """Images per forward pass; None takes what each reward suggests."""
    weights: dict[str, str] = Field(default_factory=dict)
    """Where a reward's files lie, by its name: a folder, or ``owner/name@revision`` on the Hub."""


class Pictures(Checked):
    """Which images a result folder holds as pictures, of the base model and of every arm."""

    prompts: int = Field(24, ge=0, le=10**6)
    """The first so many; 0 for no pictures at all."""
    seeds: int = Field(1, ge=1, le=MANY)
    """The first so many training seeds."""
    per_prompt: int = Field(1, ge=1, le=1000)
    """The first so many images of a prompt."""
    limit_mb: float = Field(8.0, gt=0, le=10**6)
    """Megabytes (10^6 bytes) of all pictures at most: fewer prompts have some where it is less."""


class Equivalence(Checked):
    """The bound within which a difference counts as none: a share of a gain, or absolute."""

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


class Interaction(Checked):
    """A further comparison: what the first component does with the second on, less without it."""

    interaction: tuple[str, str]
    of: str
    """The objective."""


class Statistics(Checked):
    """The analysis that was declared beforehand."""

    alpha: float = Field(0.05, ge=1e-6, lt=0.5)
    equivalence: Equivalence = Equivalence(share=0.2)
    """What differences count as none."""
    tie: float = Field(0.0, ge=0)
    """Scores closer than this are a tie."""
    control_pairs: int = Field(3, ge=2, le=1000)
    """Pairs of image sets of the base model, with different noises, in the A/A control."""


class Tuning(Checked):
    """How settings are chosen for arms before the experiment; see :mod:`bench.spec.tuning`."""

    prompts: str
    """A set by name, or the path of a file; none of its prompts may be one of the experiment."""
    prompt_limit: int | None = Field(None, ge=1)
    seeds: tuple[Seed, ...] = Field(min_length=1, max_length=MANY)
    """None of them may be one of the experiment."""
    space: Space = Field(default_factory=dict)
    """Of every arm that has none of its own."""
    spaces: dict[str, Space] = Field(default_factory=dict)
    """By objective or arm; that of an arm comes before that of its objective."""
    trials: int | None = Field(None, ge=1, le=MANY)
    """Points of each space that are tried; None tries all, which must be as many for each arm."""
    arms: tuple[str, ...] = ()
    """Arms that are tuned; none stands for every objective with every set of components."""

    @model_validator(mode="after")
    def _consistent(self) -> "Tuning":
        for name, space in {"space": self.space, **self.spaces}.items():
            if empty := [key for key, values in space.items() if not values]:
                raise ValueError(f"{shown(name)} has no values for {shown(empty[0])}")
            for key, values in space.items():
                if len({canonical_json(value) for value in values}) < len(values):
                    raise ValueError(f"{shown(name)} has a value of {shown(key)} twice")
        if len(set(self.seeds)) != len(self.seeds) or len(set(self.arms)) != len(self.arms):
            raise ValueError("seeds and arms must each be distinct")
        return self


class Cost(Checked):
    """Seconds on one core per unit of work, for the estimate of ``--plan`` only."""

    pair: float = Field(gt=0)
    """Of Diffusion-DPO; other objectives count by their passes through a network."""
    image: float = Field(gt=0)
    score: float = Field(gt=0)
    start: float = Field(gt=0)

    @property
    def network_pass(self) -> float:
        """Of an image through the network: a pair of Diffusion-DPO makes 8, a backward pass two."""
        return self.pair / 8


class Spec(Checked):
    """An experiment. Unknown keys are refused everywhere."""

    _file: str | None = PrivateAttr(None)
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$", max_length=100)
    title: str = Field(max_length=1000)
    label: str = Field(max_length=1000)
    """What the results are to be taken for, printed under every table."""
    base: str
    """A model shipped with the package, or a folder in the diffusers layout."""
    backbone: str = "stable-diffusion"
    data: str | dict[str, Any]
    """Preference pairs: a set shipped with the package, a path, or a source by ``name`` with its
    settings; see ``trainers.data.sources``. What is made of them is ``train.data``."""
    encoding: Encoding = Encoding()
    training: Training = Training()
    launch: Launch = Field(Launch(), exclude=True)
    """What a cluster gives each kind of stage. Execution only, and in no manifest."""
    labelled_by: tuple[str, ...] = ()
    """Rewards that the preferences of the pairs were made from: tables mark them."""
    train: dict[str, Any]
    """Settings of every arm with all components off; see ``trainers.config.TrainConfig``."""
    objectives: dict[str, Overrides] = Field(min_length=1)
    """Arms with all components off, by name: what each changes in ``train``."""
    components: dict[str, Component] = Field(default_factory=dict)
    controls: dict[str, Control] = Field(default_factory=dict)
    comparisons: tuple[str | Interaction, ...] = ()
    """Further ones of the declared family, after those that objectives, components and controls
    make; one arm against another is written ``DPO+A - SFT``."""
    seeds: tuple[Seed, ...] = Field(min_length=1, max_length=MANY)
    generate: Generate = Generate()
    prompts: str
    """A set by name, or the path of a file; see ``bench.spec.prompts``."""
    prompt_files: str | None = None
    """Where the files of a known set that is not shipped are, if not where its card says."""
    prompt_limit: int | None = Field(None, ge=1)
    allow_shared_prompts: float = Field(0.01, ge=0, le=1)
    """Share of the prompts that may be captions of training pairs, spelling aside."""
    rewards: tuple[str, ...] = Field(min_length=1)
    measures: tuple[Literal["diversity"], ...] = ()
    """Scores that no reward gives: how different the images of a prompt are, where several are
    made of each (``bench.stages.diversity``)."""
    primary: str
    scoring: Scoring = Scoring()
    statistics: Statistics = Statistics()
    tuning: Tuning | None = None
    pictures: Pictures = Pictures()
    cost: Cost
    quick: Overrides = Field(default_factory=dict)
    """Dotted keys of the whole spec that ``--quick`` replaces."""

    @model_validator(mode="after")
    def _consistent(self) -> "Spec":
        if self.primary not in self.rewards:
            raise ValueError(f"primary {shown(self.primary)} is not among the rewards")
        if len(set(self.seeds)) != len(self.seeds) or len(set(self.rewards)) != len(self.rewards):
            raise ValueError("seeds and rewards must each be distinct")
        if self.measures and self.generate.images_per_prompt == 1:
            raise ValueError("diversity is of several images: set generate.images_per_prompt")
        if self.tuning and (both := set(self.tuning.seeds) & set(self.seeds)):
            raise ValueError(f"tuning and the experiment share the training seed {min(both)}")
        if clash := set(self.objectives) & set(self.controls):
            raise ValueError(f"an objective and a control are both called {shown(min(clash))}")
        return self

    def origin(self, control: Control) -> str:
        """The arm that a control starts from."""
        return next(iter(self.objectives)) if control.of is None else control.of

    @contextmanager
    def named(self) -> Iterator[None]:
        """Let what is wrong with the experiment be told with the file that it was read from."""
        try:
            yield
        except UserError as error:
            raise _of_file(self._file, error) from error


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
    spec = parse_spec(raw, source)
    spec._file = None if source in shipped() else source
    return spec


def _of_file(path: str | None, error: UserError) -> UserError:
    """An error that names a file, if there is one, and no more than once."""
    known = path is None or str(error).startswith(path)
    return error if known else UserError(f"{path}: {error}")


def _read(source: str, folder: Path = Path(), children: tuple[Path, ...] = ()) -> dict[str, Any]:
    """The keys of a spec; one that ``extends`` another gives dotted keys to replace in it.

    A path is relative to ``folder``, which for a spec that is extended is that of the other.
    """
    path = shipped().get(source, folder / source)
    if not there(path):
        near = difflib.get_close_matches(source, shipped(), n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise UserError(
            f"no spec {shown(source)}: {hint}give the path of a YAML file, or one of "
            f"{', '.join(shipped())}"
        )
    if path.resolve() in children:
        raise UserError(_OTHER.format(shown(source)))
    raw = read_yaml(path)
    if not isinstance(raw, dict):
        raise UserError(
            f"{path}: expected keys such as name, train and prompts, got {type(raw).__name__}"
        )
    refuse_odd(raw, str(path))
    if (parent := raw.pop("extends", None)) is None:
        return raw
    try:
        line = (*children, path.resolve())
        if not isinstance(parent, str) or len(line) > DEEPEST:
            raise UserError(_OTHER.format(shown(parent)))
        return override(_read(parent, path.parent, line), raw)
    except UserError as error:
        raise _of_file(str(path), error) from error


def parse_spec(raw: Mapping[str, Any], where: str) -> Spec:
    """Check a spec that has been read.

    Raises:
        UserError: With the faults in one line.
    """
    refuse_odd(raw, where)
    return check(Spec, raw, f"{where}: ")


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
                f"cannot set {key_text(key)!r}: there is no section {key_text(head)!r} to set it "
                f"in, but {shown(inner)}"
            )
        result[head] = override(inner, {rest: value})
    return result
