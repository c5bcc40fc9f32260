"""An experiment made concrete: its arms, its stages, and where each score will come from."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from bench.experiment.resolve import Runs
from bench.results.protocol import Tuning
from bench.rewards.engine import by_model, make_reward
from bench.rewards.kit.shared import Shared
from bench.spec.matrix import BASE, CONTROL, Matrix
from bench.spec.model import Spec
from bench.spec.prompts import PromptSet, load_prompts
from bench.stages.base import Stage
from bench.stages.diversity import CARD, SIGNATURE, DiversityStage
from bench.stages.generate import GenerateStage
from bench.stages.score import ScoreStage
from bench.stages.train import TrainStage
from trainers.data.select import normalise
from trainers.errors import UserError


@dataclass(frozen=True)
class ImageSet:
    """The images of one arm and training seed."""

    arm: str
    seed: int | None
    """Training seed; None for the base model; number of the pair for the A/A control."""
    images: GenerateStage
    scores: tuple[ScoreStage, ...]


@dataclass(frozen=True)
class Experiment:
    """Everything a spec stands for."""

    spec: Spec
    matrix: Matrix
    prompts: PromptSet
    pairs: int
    """Pairs that the first arm trains on, but for those with damaged images."""
    ties: int
    """Ties that it leaves out."""
    shared_prompts: int
    """Prompts that are captions of training pairs, too."""
    sets: tuple[ImageSet, ...]
    cards: dict[str, dict[str, Any]]
    """The card of each reward, its signature included."""
    tuning: Tuning | None = None
    """The trials that settings of its tuned arms were chosen by."""

    def stages(self) -> list[Stage]:
        """Every distinct stage, each after those it needs. Equal configurations are one run."""
        found: dict[str, Stage] = {}
        for stage in self._all():
            found.setdefault(stage.id, stage)
        return list(found.values())

    def _all(self) -> Iterator[Stage]:
        for entry in self.sets:
            train = entry.images.train
            if train is not None:
                yield train.encode
                yield train
            yield entry.images
        # One model after the other: those that do not fit together are loaded once.
        scores = (stage for entry in self.sets for stage in entry.scores)
        yield from sorted(scores, key=lambda stage: stage.turn)


def prepare(spec: Spec, tuning: Tuning | None = None) -> Experiment:
    """Check all that a spec names and define its stages. Nothing expensive is started.

    Args:
        spec: The experiment.
        tuning: The trials that settings were chosen by; without them no arm is tuned.

    Raises:
        UserError: If a model, pair set, prompt set, reward or setting is missing or wrong; the
            message names the file of the spec.
    """
    with spec.named():
        return _prepare(spec, tuning)


def _prepare(spec: Spec, tuning: Tuning | None) -> Experiment:
    runs = Runs(spec, {} if tuning is None else tuning.chosen())
    prompts = load_prompts(spec.prompts, spec.prompt_limit, spec.prompt_files)
    shared_prompts = _shared_prompts(spec, prompts, runs)
    shared = Shared()
    rewards = {name: make_reward(name, spec.scoring, shared) for name in spec.rewards}
    signatures = {name: reward.signature for name, reward in rewards.items()}
    turns = {name: turn for turn, names in enumerate(by_model(rewards)) for name in names}
    cards = {
        name: {**reward.card.model_dump(mode="json"), "signature": signatures[name]}
        for name, reward in rewards.items()
    }

    if spec.measures:
        cards[CARD.name] = {**CARD.model_dump(mode="json"), "signature": SIGNATURE}

    def image_set(arm: str, seed: int | None, train: TrainStage | None, first: int) -> ImageSet:
        label = arm if seed is None else f"{arm} seed {seed}"
        images = GenerateStage(
            f"images of {label}", spec.generate, first, prompts.items, spec.backbone,
            runs.base, runs.base_sha256, train,
        )  # fmt: skip
        scores = [
            ScoreStage(f"{name} of {label}", name, signature, images, spec.scoring, turns[name])
            for name, signature in signatures.items()
        ]
        scores += [
            DiversityStage(f"{name} of {label}", name, SIGNATURE, images, spec.scoring, len(turns))
            for name in spec.measures
        ]
        return ImageSet(arm, seed, images, tuple(scores))

    sets = [image_set(BASE, None, None, 0)]
    for arm in runs.matrix.arms:
        sets += [image_set(arm.name, seed, runs.train(arm, seed), 0) for seed in arm.configs]
    step = spec.generate.images_per_prompt
    for pair in range(spec.statistics.control_pairs):
        for side, name in enumerate((f"{CONTROL}'", CONTROL)):
            sets.append(image_set(name, pair, None, (1 + 2 * pair + side) * step))
    first = runs.selected(next(iter(runs.matrix.arms[0].configs.values())).data)
    return Experiment(
        spec, runs.matrix, prompts, len(first.rows), first.ties, shared_prompts, tuple(sets), cards,
        tuning,
    )  # fmt: skip


def _shared_prompts(spec: Spec, prompts: PromptSet, runs: Runs) -> int:
    """How many prompts are captions of training pairs.

    Raises:
        UserError: If they are a larger share than the spec allows.
    """
    captions = runs.captions()
    count = sum(normalise(prompt) in captions for _, prompt in prompts.items)
    share = count / len(prompts.items)
    if share > spec.allow_shared_prompts:
        raise UserError(
            f"{count} of the {len(prompts.items)} prompts of {prompts.name!r} ({share:.1%}) are "
            f"captions of training pairs, expected {spec.allow_shared_prompts:.1%} at most: take "
            "other prompts or pairs (of one split each), or set allow_shared_prompts to that share"
        )
    return count
