"""The manifest of a result: what was run, on what, with what. Tables do not depend on it."""

from typing import Any, Literal

from bench.results.protocol import Record

PACKAGES = ("torch", "diffusers", "transformers", "accelerate", "peft", "huggingface_hub",
            "tokenizers", "safetensors", "numpy", "scipy", "pandas", "pyarrow", "pillow",
            "pydantic")  # fmt: skip
"""Packages whose versions a manifest names."""


class Run(Record):
    """A training run that an arm stands for."""

    arm: str
    """Name of the arm."""
    seed: int
    """Training seed."""
    run_id: str
    """Identity of the run; arms of equal settings share it."""
    config: dict[str, Any]
    """Its resolved settings; see ``trainers.config.TrainConfig``."""


class Base(Record):
    """The model that training started from."""

    name: str
    """Its name, or its folder."""
    sha256: str
    """Of the files that a run reads."""


class Pairs(Record):
    """The preference pairs."""

    name: str | dict[str, Any]
    """Name of the set, its path, or a source by name with its settings."""
    kept: int
    """Pairs that were trained on, but for those with damaged images."""
    ties: int
    """Ties that were left out."""


class Prompts(Record):
    """The prompt set."""

    name: str
    """Its name."""
    sha256: str
    """Of its files."""
    n: int
    """Prompts that were used."""
    repeated: int
    """Rows left out because their prompt was there before."""


class Inputs(Record):
    """What the runs were made from."""

    base: Base
    """The model."""
    pairs: Pairs
    """What it was trained on."""
    prompts: Prompts
    """What images were made of."""


class Stage(Record):
    """A piece of work and what it came to."""

    kind: str
    """What was done, e.g. ``train``: a folder of the store."""
    label: str
    """What it was done for, in words."""
    id: str
    """Identity of the work."""
    state: Literal["done", "missing"]
    """Whether its outputs are on record."""
    digest: str | None
    """Hash over all outputs; None if missing."""
    seconds: float | None
    """Time it took; None if missing."""


class Git(Record):
    """State of the code's repository."""

    origin: str | None
    """Address of the remote, without user name and password; None for a local path."""
    commit: str
    """The commit that was checked out."""
    dirty: bool
    """Whether there were uncommitted changes."""
    patch_sha256: str | None
    """Of these changes; None without any."""


class Machine(Record):
    """Hardware and settings on which the last bits of a result depend."""

    python: str
    """Version of Python."""
    system: str
    """Operating system."""
    machine: str
    """Architecture of the processor."""
    cores: int | None
    """Logical processors; None if they cannot be counted."""
    cpu_capability: str
    """Vector instructions that torch uses, e.g. ``AVX2``."""
    threads_per_worker: int
    """Threads of each process."""
    gpus: tuple[str, ...]
    """Names of the GPUs; empty without any."""
    driver: str | None
    """Version of their driver; None without any, or where it cannot be asked for."""
    cuda: str | None
    """Version of CUDA that torch was built for; None where there is no GPU."""
    cudnn: int | None
    """Version of cuDNN; None where there is no GPU."""


class Manifest(Record):
    """Everything needed to say where numbers came from."""

    bench: str
    """Version of dpo-bench."""
    written: str
    """When, in UTC, as ISO 8601."""
    command: tuple[str, ...]
    """The command line."""
    spec: dict[str, Any]
    """The experiment with all that was overridden; see ``bench.spec.model.Spec``."""
    runs: tuple[Run, ...]
    """Every arm and training seed."""
    inputs: Inputs
    """Model, pairs and prompts."""
    rewards: dict[str, dict[str, Any]]
    """Cards by name, the signature included; see ``bench.rewards.base.Card``."""
    stages: tuple[Stage, ...]
    """Every piece of work, each after those it needs."""
    git: Git | None
    """The code; None if it is no checkout."""
    packages: dict[str, str | None]
    """Versions by name; None where one is not installed."""
    machine: Machine
    """Where the manifest was written."""
