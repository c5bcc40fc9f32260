"""What every reward model is: a card that says exactly what is computed, and a scorer."""

from abc import ABC, abstractmethod
from collections.abc import Hashable, Sequence
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import field_validator

from bench.rewards.kit.shared import Shared
from bench.rewards.kit.weights import Found, Weights, find
from trainers.errors import UserError
from trainers.files import canonical_json, sha256_text
from trainers.input.checked import Checked
from trainers.machine.precision import BYTES, Matmul
from trainers.registry import code_identity

Scores = NDArray[np.float32]


def check_lengths(images: Sequence[Image.Image], prompts: Sequence[str]) -> None:
    """Refuse images and prompts that are not pairs."""
    if len(images) != len(prompts):
        raise UserError(
            f"expected one prompt for each image, got {len(images)} images and {len(prompts)} "
            "prompts: repeat the prompt of several images"
        )


class Card(Checked):
    """Everything but the weights' bytes that decides a score, and what a reader should know."""

    name: str
    direction: Literal["higher", "lower"] = "higher"
    scale: str
    """What the number is, e.g. ``100*cosine``."""
    range: tuple[float, float]
    """Values to expect, for sanity checks and figures; not a clip."""
    weights: tuple[Weights, ...]
    """Where files are read from. No file name occurs twice."""
    preprocessing: str
    text: str | None
    """Tokenizer and length, or None if the prompt is not used."""
    dtype: str = "float32"
    """Precision of the model; features are compared in float64."""
    parameters: int = 0
    """Number of parameters of the model, for estimates of memory."""
    trained_on: tuple[str, ...]
    """Data sets whose labels or images shaped the reward, e.g. ``Pick-a-Pic/train``: tables mark
    a reward that is compared on prompts of one of them."""
    answers: str = ""
    """The question that its scores answer, and what they are blind to, in a sentence or two."""
    licence: str
    origin: Literal["official", "miniature", "rule"]
    version: int = 1
    """Raised when the code of the reward changes any score."""

    @field_validator("name", "scale", "dtype")
    @classmethod
    def _part_of_a_signature(cls, value: str) -> str:
        if "|" in value or not value.isprintable():
            raise ValueError("stands in signatures and tables: leave '|' and line breaks out")
        return value


_DESCRIPTION = {"range", "parameters", "trained_on", "answers", "licence"}
"""Fields of a card that decide no score."""


def miniature(
    card: Card,
    name: str,
    files: tuple[str, ...],
    *,
    span: tuple[float, float],
    text: str | None,
    parameters: int,
) -> Card:
    """The card of the reward ``mini-<name>``: what ``card`` says, on the miniature world.

    Args:
        card: That of the reward it is a miniature of.
        name: Folder of its shipped files.
        files: Names of these.
        span: Values to expect.
        text: Tokenizer and length, or None if the prompt is not used.
        parameters: Number of parameters.
    """
    weights = Weights(id=f"package:bench.mini/weights/rewards/{name}", files=files)
    return card.model_copy(
        update={
            "name": f"mini-{name}",
            "range": span,
            "weights": (weights,),
            "text": text,
            "trained_on": ("mini-world/train",),
            "licence": "as the project",
            "origin": "miniature",
            "parameters": parameters,
        }
    )


class Reward(ABC):
    """A reward model. Making one is cheap; :meth:`load` reads the weights."""

    card: Card

    def __init_subclass__(cls, **more: object) -> None:
        """Refuse a class whose card is none, where it is written."""
        super().__init_subclass__(**more)
        if not isinstance(card := vars(cls).get("card"), Card | property | None):
            raise TypeError(f"{cls.__name__}.card: expected a Card, got {type(card).__name__}")

    dtypes: ClassVar[tuple[str, ...]] = ()
    """Precisions it can be asked for; a reward without any has that of its card."""
    batch_size: int = 16
    """Images per forward pass, where there is one. Scores depend on it by rounding only."""
    matmul: Matmul = "float32"
    """How a GPU multiplies float32 values while it scores; see ``bench.rewards.engine.run``."""

    def __init__(
        self,
        weights: Path | str | None = None,
        device: str = "cpu",
        dtype: str | None = None,
        download: bool = False,
        shared: Shared | None = None,
    ) -> None:
        """Create the reward.

        Args:
            weights: Where every file of the card's weights is read from instead of the card's own
                places: a local folder, or a repository of the Hub as ``owner/name@revision``.
            device: A torch device.
            dtype: Precision of the model, one of ``dtypes``; None for that of the card. It is part
                of the signature. Ignored by rewards that have only one.
            download: Allow downloads, as the environment variable DPO_BENCH_ALLOW_DOWNLOAD=1 does.
            shared: What it shares with other rewards; None for nothing.

        Raises:
            UserError: If ``dtype`` is not known.
        """
        if dtype is not None and dtype not in BYTES:
            raise UserError(f"expected a dtype of {', '.join(BYTES)}, got {dtype!r}")
        if dtype in self.dtypes:
            self.card = self.card.model_copy(update={"dtype": dtype})
        self.weights = weights
        self.device = device
        self.download = download
        self.shared = shared or Shared()

    @property
    def model_key(self) -> Hashable:
        """What identifies the loaded model: rewards of one ``Shared`` with equal keys share it."""
        return self.signature

    @property
    def memory(self) -> int:
        """Bytes that the loaded model takes, activations aside."""
        return self.card.parameters * BYTES.get(self.card.dtype, 0)

    @cached_property
    def files(self) -> Found:
        """The weights' files, found, hashed and compared with the hashes that are known.

        Raises:
            UserError: If one is missing or is not the pinned one; the message says the mend.
        """
        return find(self.card.weights, self.weights, self.download)

    @property
    def signature(self) -> str:
        """Identity of the scores, e.g. ``clip|official|100*cosine|float32|1f2e3d4c5b6a``.

        The digest covers what the card says about the score and the sha256 of every file read, for
        a reward of another package that of its module, too, so scores whose signatures are equal
        were computed alike. ``given`` stands for the origin where a local folder holds other bytes
        than the known ones, and ``float32, tf32`` for the precision of a GPU that rounds products.
        Needs the files, but does not load the model.
        """
        card, files = self.card, self.files
        described = card.model_dump(mode="json", exclude=_DESCRIPTION)
        identity = {"card": described, "sha256": files.sha256, **code_identity(type(self))}
        origin = card.origin if files.genuine else "given"
        digest = sha256_text(canonical_json(identity))[:12]
        dtype = card.dtype if self.matmul == "float32" else f"{card.dtype}, {self.matmul}"
        return f"{card.name}|{origin}|{card.scale}|{dtype}|{digest}"

    @abstractmethod
    def load(self) -> None:
        """Read the weights, unless they have been read.

        Raises:
            UserError: If they are missing, are not the pinned ones or do not fit the model.
        """

    @abstractmethod
    def score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> Scores:
        """Score image ``i`` against prompt ``i``: ``float32[n]``, NaN where there is no score.

        Loads the weights if need be. Raises a UserError for an image or prompt it cannot read.
        """
