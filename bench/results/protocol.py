"""The protocol of a result: what was declared before the scores were seen, as typed data.

It says everything that the analysis needs and that a reader is told about the numbers. No sentence
is kept: a report words what stands here.
"""

from collections.abc import Iterator
from typing import Any, Literal

from pydantic import SerializerFunctionWrapHandler, model_serializer, model_validator

from trainers.input.checked import Checked


class Record(Checked):
    """Part of a file in a result folder."""


class Arm(Record):
    """An arm as the analysis sees it."""

    name: str
    """Its name in tables, and in the column ``arm`` of the scores."""
    seeds: tuple[int | None, ...]
    """Training seeds; the one seed None for the base model, numbers of pairs for the control."""
    same_as: str | None = None
    """An earlier arm whose runs are its own, because all settings that count are equal."""
    prompt_prefix: str = ""
    """What stands before every prompt that its images are made of."""

    @model_serializer(mode="wrap")
    def _as_before(self, serialise: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """No prefix is not told: files of before there were any stay as they are."""
        data: dict[str, Any] = serialise(self)
        if not self.prompt_prefix:
            del data["prompt_prefix"]
        return data


class Comparison(Record):
    """A paired difference of the declared family of tests: scores of ``on`` less of ``off``."""

    name: str
    """As tables have it, e.g. ``DPO+A - DPO``."""
    on: tuple[str, ...]
    """Names of the arms that count for it: one, or two for an interaction."""
    off: tuple[str, ...]
    """Names of as many arms that count against it."""
    question: str
    """What the difference answers, in words."""


class Prompts(Record):
    """The prompts that every arm made images of."""

    name: str
    """Name of the set."""
    split: str
    """Split of its data set, e.g. ``test``; ``unstated`` where nothing says so."""
    sha256: str
    """Of the set's files."""
    repeated: int
    """Rows left out because their prompt was there before."""
    ids: tuple[str, ...]
    """Ids in the order of the set, as in the column ``prompt_id`` of the scores."""


class Images(Record):
    """How images were made; see ``bench.spec.model.Generate``."""

    per_prompt: int
    """Images of each prompt, each with a noise of its own."""
    sampler: str
    """Name of the sampler."""
    steps: int
    """Its steps."""
    guidance: float
    """Scale of classifier-free guidance."""
    eta: float
    """Share of fresh noise in each step, 0 to 1."""
    height: int | None
    """Pixels; None is the size that the model was trained for."""
    width: int | None
    """Likewise."""
    seed: int
    """Base seed of the noise."""
    dtype: str
    """Precision of the models."""
    matmul: str
    """How a GPU multiplied float32 values: ``float32`` or ``tf32``."""


class Mark(Record):
    """Why a reward is no independent judge here."""

    kind: Literal["labelled", "same-set", "same-source"]
    """It made the preferences of the training pairs; it was trained on data sets that the prompts
    come from; or on other parts of these."""
    datasets: tuple[str, ...] = ()
    """The data sets it was trained on, e.g. ``Pick-a-Pic/train``; none for ``labelled``."""


class Reward(Record):
    """A reward that scored every image."""

    name: str
    """Its name, as in the column ``reward`` of the scores."""
    direction: Literal["higher", "lower"]
    """Which scores are better."""
    signature: str
    """Identity of its scores: weights, scale, preprocessing and precision."""
    marks: tuple[Mark, ...] = ()
    """Why it is no independent judge of these images; empty if it is one."""


class Statistics(Record):
    """How differences are judged; see :mod:`bench.stats`."""

    alpha: float
    """Level of the family of tests; intervals are those of ``1 - alpha``."""
    gain: str | None
    """Name of the comparison that differences are held against; None without any."""
    share: float | None
    """Share of that gain within which a difference counts as none, in (0, 1)."""
    bound: float | None
    """That bound in units of the primary reward, where it is no share."""
    tie: float
    """Scores that differ by no more than this are a tie."""


class Pictures(Record):
    """Which images are there as pictures, of base and of every arm; see ``bench.spec.model``."""

    prompts: int
    """The first so many."""
    seeds: int
    """The first so many training seeds."""
    per_prompt: int
    """The first so many images of a prompt."""
    limit_mb: float
    """Megabytes of all of them at most."""


class Pairs(Record):
    """The preference pairs of the training."""

    data: str | dict[str, Any]
    """Name of the set, its path, or a source by name with its settings."""
    kept: int
    """Pairs that were trained on, but for those with damaged images."""
    ties: int
    """Ties that were left out."""
    labelled_by: tuple[str, ...]
    """Rewards that the preferences were made from."""
    shared_prompts: int = 0
    """Prompts of the evaluation that are captions of these pairs, too, spelling aside."""

    @model_serializer(mode="wrap")
    def _as_before(self, serialise: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """None that are shared are not told: files of before they were counted stay as they are."""
        data: dict[str, Any] = serialise(self)
        if not self.shared_prompts:
            del data["shared_prompts"]
        return data


class Trial(Record):
    """A setting that was tried for an arm before the experiment."""

    arm: str
    """Name of the arm it was tried for."""
    settings: dict[str, Any]
    """Dotted keys of ``train``, and what they were set to."""
    score: float | None
    """Mean of the primary reward; None where the trial failed or a score is missing."""
    chosen: bool
    """Whether the arm ``<arm> tuned`` is this one."""


class Tuning(Record):
    """How settings were chosen, on prompts and training seeds that the experiment has not."""

    prompts: str
    """Name of the prompt set."""
    prompts_sha256: str
    """Of its files."""
    n_prompts: int
    """How many of them every trial drew."""
    seeds: tuple[int, ...]
    """Training seeds of every trial."""
    trials: tuple[Trial, ...]
    """All of them, arm by arm."""

    def chosen(self) -> dict[str, dict[str, Any]]:
        """The settings that were chosen, by arm."""
        return {trial.arm: trial.settings for trial in self.trials if trial.chosen}


class Protocol(Record):
    """The analysis that was declared before the scores were seen."""

    title: str
    """Of the experiment."""
    label: str
    """What the results are to be taken for."""
    bench: str
    """Version of dpo-bench."""
    arms: tuple[Arm, ...]
    """The base model first, with the one seed None."""
    control: tuple[Arm, Arm]
    """The two sides of the A/A control; their seeds number the pairs."""
    comparisons: tuple[Comparison, ...]
    """The declared family of tests, in the order of the tables."""
    prompts: Prompts
    """What was drawn."""
    images: Images
    """How it was drawn."""
    rewards: tuple[Reward, ...]
    """What scored it, in the order of the tables."""
    primary: str
    """Name of the reward that verdicts rest on."""
    statistics: Statistics
    """How differences are judged."""
    pairs: Pairs
    """What was trained on."""
    tuning: Tuning | None = None
    """The trials that settings of arms were chosen by."""
    pictures: Pictures | None = None
    """None in results of before there were any."""

    @model_serializer(mode="wrap")
    def _as_before(self, serialise: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """What there is none of is not told: files of before it stay as they are."""
        data: dict[str, Any] = serialise(self)
        for name in ("tuning", "pictures"):
            if getattr(self, name) is None:
                del data[name]
        return data

    @model_validator(mode="after")
    def _consistent(self) -> "Protocol":
        names = [arm.name for arm in self.all_arms()]
        rewards = [reward.name for reward in self.rewards]
        for what, found in (("arms", names), ("rewards", rewards), ("ids", self.prompts.ids)):
            if len(set(found)) < len(found):
                raise ValueError(f"two {what} have one name")
        if self.primary not in rewards:
            raise ValueError(f"primary {self.primary!r} is not among the rewards")
        if lost := {n for c in self.comparisons for n in (*c.on, *c.off)} - set(names):
            raise ValueError(f"a comparison names {sorted(lost)[0]!r}, which is no arm")
        _check_seeds(self)
        declared = self.statistics
        if not 0 < declared.alpha < 0.5 or declared.tie < 0 or self.images.per_prompt < 1:
            raise ValueError("expected alpha in (0, 0.5), tie >= 0 and an image of each prompt")
        if declared.gain not in {None, *(c.name for c in self.comparisons)}:
            raise ValueError(f"the gain {declared.gain!r} is no comparison")
        if declared.share is not None and (declared.bound is not None or declared.gain is None):
            raise ValueError("a bound of equivalence is a share of a gain, or absolute, not both")
        return self

    def all_arms(self) -> tuple[Arm, ...]:
        """Arms and both sides of the control."""
        return (*self.arms, *self.control)

    def training_seeds(self) -> Iterator[int]:
        """Every training seed of any arm, once."""
        seeds = dict.fromkeys(seed for arm in self.arms for seed in arm.seeds)
        return (seed for seed in seeds if seed is not None)


def _check_seeds(protocol: Protocol) -> None:
    """Refuse arms that cannot be paired: their scores are subtracted seed by seed."""
    if not protocol.arms or protocol.arms[0].seeds != (None,):
        raise ValueError("the first arm is not the base model, with the one seed None")
    seeds = {arm.name: arm.seeds for arm in protocol.all_arms()}
    if twice := [name for name, own in seeds.items() if len(set(own)) < len(own) or not own]:
        raise ValueError(f"{twice[0]!r} has no seeds, or one of them twice")
    if len({len(arm.seeds) for arm in protocol.control}) > 1:
        raise ValueError("the two sides of the control have different numbers of pairs")
    for comparison in protocol.comparisons:
        several = {len(seeds[name]) for name in (*comparison.on, *comparison.off)} - {1}
        if len(several) > 1:
            raise ValueError(f"{comparison.name!r} compares arms of different numbers of seeds")
