"""The training runs of a spec: base model, pairs and arms. Needs no prompts and no rewards."""

from collections.abc import Mapping

from bench.assets import model_folder, pairs_source
from bench.spec.matrix import Arm, build_matrix
from bench.spec.model import Overrides, Spec
from bench.stages.encode import EncodeStage
from bench.stages.train import TrainStage
from trainers.backbones import BACKBONES
from trainers.config import TrainConfig
from trainers.data.columns import require_columns
from trainers.data.select import Selected, normalise, select
from trainers.data.settings import DataSettings
from trainers.errors import UserError
from trainers.files import canonical_json
from trainers.machine.batches import split_batch


class Runs:
    """What a spec trains, made concrete: inputs are found and hashed, and arms resolved."""

    def __init__(self, spec: Spec, tuned: Mapping[str, Overrides] | None = None) -> None:
        """Find and hash the inputs.

        Args:
            spec: The experiment.
            tuned: Settings that were chosen for arms, by name.

        Raises:
            UserError: If a model, pair set or setting is missing or wrong.
        """
        self.spec = spec
        self.base, self.source = model_folder(spec.base), pairs_source(spec.data)
        backbone = BACKBONES.get(spec.backbone)(self.base)
        if self.source.sequential and not spec.encoding.cache:
            raise UserError(
                "'encoding: {cache: false}' reads images at every step, and the data is streamed: "
                "keep encodings, or download the data"
            )
        self._rows = self.source.open()
        self.base_sha256, self.data_sha256 = backbone.sha256(), self._rows.sha256()
        self.matrix = build_matrix(spec, self.base_sha256, self.data_sha256, tuned)
        self._encode: dict[str, EncodeStage] = {}
        self._selected: dict[str, Selected] = {}

    def selected(self, settings: DataSettings) -> Selected:
        """The rows of the data that settings choose.

        Raises:
            UserError: If a label is illegal, or no row is left.
        """
        key = canonical_json(settings.encoding_key())
        if key not in self._selected:
            self._selected[key] = select(self._rows, settings)
        return self._selected[key]

    def captions(self) -> set[str]:
        """Captions of all pairs that any run trains on, normalised."""
        settings = {canonical_json(c.data.encoding_key()): c.data
                    for arm in self.matrix.arms for c in arm.configs.values()}  # fmt: skip
        chosen = (self._rows.prompts.take(self.selected(s).rows) for s in settings.values())
        return {normalise(text) for texts in chosen for text in texts.unique().to_pylist()}

    def train(self, arm: Arm, seed: int) -> TrainStage:
        """One run.

        Raises:
            UserError: If nothing is left to learn from, or the batch cannot be shared by as many
                processes, or cut into the groups that an objective averages over.
        """
        config, training = arm.configs[seed], self.spec.training
        split = split_batch(config.batch_size, config.accumulation, training.processes)
        config.looks_ahead(split)
        chosen = self.selected(config.data).rows
        require_columns(self._rows, chosen, config.objective.columns, config.data)
        label = f"training {arm.name} seed {seed}"
        return TrainStage(label, config, self.base, self._pairs(config), training)

    def _pairs(self, config: TrainConfig) -> EncodeStage:
        """One stage for all runs whose pairs are encoded alike."""
        settings, prefixes = config.data, config.objective.prefixes or ("",)
        key = canonical_json([settings.encoding_key(), list(prefixes)])
        if key not in self._encode:
            number = len(self._encode) + 1
            self._encode[key] = EncodeStage(
                "encodings" if number == 1 else f"encodings {number}",
                self.spec.backbone, self.base, self.base_sha256, self.source, self.data_sha256,
                settings, len(self.selected(settings).rows), self.spec.encoding, prefixes,
                tuple(self._rows.columns),
            )  # fmt: skip
        return self._encode[key]
