"""An experiment made concrete: its arms, its stages, and where each score will come from."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from bench.assets import folder_sha256, model_folder, pairs_source
from bench.rewards.engine import make_reward
from bench.rewards.kit.shared import Shared
from bench.spec.matrix import BASE, CONTROL, Matrix, build_matrix
from bench.spec.model import Spec
from bench.spec.prompts import PromptSet, load_prompts
from bench.stages.kinds import EncodeStage, GenerateStage, ScoreStage, Stage, TrainStage
from trainers.backbones import BACKBONES
from trainers.data.select import select
from trainers.data.settings import DataSettings
from trainers.errors import UserError
from trainers.files import canonical_json
from trainers.machine.batches import split_batch


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
    sets: tuple[ImageSet, ...]
    cards: dict[str, dict[str, Any]]
    """The card of each reward, its signature included."""

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
                yield train.latents
                yield train
            yield entry.images
            yield from entry.scores


def prepare(spec: Spec) -> Experiment:
    """Check all that a spec names and lay out its stages. Nothing expensive is started.

    Raises:
        UserError: If a model, pair set, prompt set, reward or setting is missing or wrong.
    """
    base, source = model_folder(spec.base), pairs_source(spec.data)
    BACKBONES.get(spec.backbone)(base)
    if source.sequential and not spec.encoding.cache:
        raise UserError(
            "'encoding: {cache: false}' reads images at every step, and the data is streamed: "
            "keep encodings, or download the data"
        )
    rows = source.open()
    base_sha256, data_sha256 = folder_sha256(base), rows.sha256()
    matrix = build_matrix(spec, base_sha256, data_sha256)
    prompts = load_prompts(spec.prompts, spec.prompt_limit, spec.prompt_files)
    shared = Shared()
    rewards = {name: make_reward(name, spec.scoring, shared) for name in spec.rewards}
    signatures = {name: reward.signature for name, reward in rewards.items()}
    cards = {
        name: {**reward.card.model_dump(mode="json"), "signature": signatures[name]}
        for name, reward in rewards.items()
    }
    encoders: dict[str, EncodeStage] = {}

    def encoder(settings: DataSettings) -> EncodeStage:
        """One stage for all runs whose pairs are encoded alike."""
        key = canonical_json(settings.encoding_key())
        if key not in encoders:
            label = f"latents {len(encoders) + 1}" if encoders else "latents"
            encoders[key] = EncodeStage(
                label, spec.backbone, base, base_sha256, source, data_sha256, settings,
                len(select(rows, settings).rows), spec.encoding,
            )  # fmt: skip
        return encoders[key]

    def image_set(arm: str, seed: int | None, train: TrainStage | None, first: int) -> ImageSet:
        label = arm if seed is None else f"{arm} seed {seed}"
        images = GenerateStage(
            f"images of {label}", spec.generate, first, prompts.items, spec.backbone,
            base, base_sha256, train,
        )  # fmt: skip
        scores = tuple(
            ScoreStage(f"{name} of {label}", name, signature, images, spec.scoring)
            for name, signature in signatures.items()
        )
        return ImageSet(arm, seed, images, scores)

    sets = [image_set(BASE, None, None, 0)]
    for arm in matrix.arms:
        for seed, config in arm.configs.items():
            split_batch(config.batch_size, config.accumulation, spec.training.processes)
            train = TrainStage(
                f"training {arm.name} seed {seed}",
                config,
                base,
                encoder(config.data),
                spec.training,
            )
            sets.append(image_set(arm.name, seed, train, 0))
    step = spec.generate.images_per_prompt
    for pair in range(spec.statistics.control_pairs):
        for side, name in enumerate((f"{CONTROL}'", CONTROL)):
            sets.append(image_set(name, pair, None, (1 + 2 * pair + side) * step))
    first = select(rows, next(iter(matrix.arms[0].configs.values())).data)
    return Experiment(spec, matrix, prompts, len(first.rows), first.ties, tuple(sets), cards)
