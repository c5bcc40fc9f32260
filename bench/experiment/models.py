"""Whether the base model of a spec can be read, before any work begins."""

from collections.abc import Iterable

from bench.assets import model_folder
from bench.spec.model import Spec
from bench.stages.base import Stage
from bench.stages.encode import EncodeStage
from bench.stages.score import ScoreStage
from bench.terminal import silence_libraries
from trainers.backbones import BACKBONES


def check_model(spec: Spec, stages: Iterable[Stage]) -> None:
    """Read every part of the base model once, as the stages will, unless these only score.

    Raises:
        UserError: If a part is damaged, or overflows in the precision that it is to be used in.
    """
    work = [stage for stage in stages if not isinstance(stage, ScoreStage)]
    encoding = {stage.settings.precision for stage in work if isinstance(stage, EncodeStage)}
    if work:
        silence_libraries()
        model = BACKBONES.get(spec.backbone)(model_folder(spec.base))
        model.check(spec.generate.dtype, *encoding)
