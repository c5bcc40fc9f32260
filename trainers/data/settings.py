"""Which pairs a run learns from, and what is done to their images. Part of a run's identity."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from trainers.machine.precision import Precision
from trainers.registry import OFF, Resolved
from trainers.seeds import Seed

LATER = ("swap_labels", "label_noise", "labels", "temperature", "micro")
"""Fields that change neither which pairs are used nor what is encoded of them."""


class DataSettings(Resolved):
    """What is made of the rows of a source.

    The draws of crops and flips belong to a pair and to ``seed``: they are the same in every epoch
    and for every training seed. So an image has one encoding, and a run that reads encodings from a
    cache is the run that makes them in its loop.
    """

    ties: Literal["drop", "soft"] = "drop"
    """Leave ties out, or keep them with a preference of one half for either image."""
    labels: Annotated[Literal["given", "probability"], OFF] = "given"
    """Take labels as they are; or, as the probability that an image is preferred, what the scores
    of ``bench data label`` make it (``trainers.data.columns``): rows are chosen as before."""
    temperature: Annotated[float, OFF] = 1.0
    """Of these: the difference of scores that makes odds of e to 1, in units of the scores;
    negative where lower scores are better."""
    swap_labels: bool = False
    """Prefer the other image of every pair: a control."""
    label_noise: Annotated[float, Field(ge=0, le=1), OFF] = 0.0
    """Prefer the other image of this share of the pairs, drawn of each by ``seed``: what is turned
    round at a lower share is so at a higher one."""
    per_prompt: int | None = Field(None, ge=1)
    """Keep at most so many pairs of a prompt."""
    dedup_prompts: bool = False
    """Keep one pair of a prompt, where prompts are equal that differ in case, white space or
    Unicode form only."""
    subset: Annotated[int, Field(ge=1)] | Annotated[float, Field(gt=0, le=1)] | None = None
    """Of what is left, keep so many pairs, or this share. A smaller subset is part of a larger."""

    resolution: int | None = Field(None, ge=8, le=8192, multiple_of=8)
    """Height and width that images are brought to, in pixels; None leaves every image as it is,
    and all must be of one size."""
    resize: Literal["bilinear", "bicubic", "lanczos"] = "bilinear"
    """How the shorter side is brought to ``resolution``, always with antialiasing."""
    crop: Literal["centre", "random"] = "centre"
    flip: float = Field(0.0, ge=0, le=1)
    """Probability of a horizontal flip."""
    independent_flip: bool = False
    """Draw the flips of winner and loser apart, as the code of Diffusion-DPO does (Wallace et al.
    2024, arXiv 2311.12908); otherwise a pair is flipped as a whole."""
    micro: Literal["measured", "hard-coded"] = "measured"
    """For backbones conditioned on sizes and crops (Podell et al. 2023, arXiv 2307.01952, section
    2.2): the real ones, or those of an image that never needed a crop, as in that code."""
    precision: Precision = "float32"
    """What text encoders compute in, and what all encodings are rounded to, whether they are stored
    or made in the loop. The autoencoder computes in float32."""
    seed: Seed = 0
    """Of the subset, the choice among the pairs of a prompt, the turned labels, crops and flips."""

    @model_validator(mode="after")
    def _consistent(self) -> "DataSettings":
        if self.dedup_prompts and self.per_prompt not in (None, 1):
            raise ValueError("dedup_prompts keeps one pair of a prompt: leave per_prompt out")
        if self.temperature == 0 or (self.labels == "given" and self.temperature != 1):
            raise ValueError("temperature is of 'labels: probability', and not 0")
        if self.independent_flip and self.flip == 0:
            raise ValueError("independent_flip needs a flip probability above 0")
        if self.crop == "random" and self.resolution is None:
            raise ValueError("a random crop needs a resolution")
        return self

    def encoding_key(self) -> dict[str, object]:
        """The settings that decide which images are encoded, and how."""
        return self.model_dump(mode="json", exclude=set(LATER))
