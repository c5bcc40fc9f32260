"""Whose results a folder holds: those of another spec are never written over."""

from pathlib import Path
from typing import Any

from bench.experiment.collect import make_protocol
from bench.experiment.prepare import Experiment
from bench.results.files import SCORES, read_columns, read_manifest
from bench.spec.model import Generate, Spec, parse_spec
from bench.stages.store import Store
from trainers.differences import differences
from trainers.errors import UserError

STORE = "store"
"""Folder beside the results, of all that was made for them."""
EXECUTION: dict[str, Any] = {
    **dict.fromkeys(("encoding", "training", "pictures", "cost", "quick"), True),
    "scoring": {"device", "batch_size"},
    "generate": set(Generate.EXECUTION),
}
"""Keys of a spec that change no score."""


def check_folder(folder: Path, experiment: Experiment) -> None:
    """Refuse a folder with the results of another spec, or of who knows which, or the store's.

    Raises:
        UserError: Saying what differs, and both ways out.
    """
    if folder.name == STORE:
        raise UserError(
            f"{folder} is where the store lies, and would be that of the results, too: give the "
            "spec another name (--set name=...)"
        )
    if not (folder / SCORES).exists():
        return
    if why := _other(folder, experiment):
        raise UserError(
            f"{folder} holds results of another spec, which would be lost ({why}): give this one "
            "another name (--set name=...) or another --out"
        )


def _other(folder: Path, experiment: Experiment) -> str:
    """How the results in a folder differ from an experiment; nothing if they do not."""
    try:
        spec = parse_spec(read_manifest(folder).spec, str(folder))
    except UserError as error:  # It is missing, damaged, or of another version.
        return "" if _shown(folder, experiment) else f"the manifest does not show it: {error}"
    return differences(_results(spec), _results(experiment.spec))


def _results(spec: Spec) -> dict[str, Any]:
    """What decides the results of a spec."""
    return spec.model_dump(mode="json", exclude=EXECUTION)


def _shown(folder: Path, experiment: Experiment) -> bool:
    """Whether protocol and scores alone show that results are of an experiment."""
    here = make_protocol(experiment)
    try:
        there, scores = read_columns(folder, ["run_id"])
    except UserError:
        return False
    runs = {config.run_id() for arm in experiment.matrix.arms for config in arm.configs.values()}
    known = {*runs, experiment.sets[0].images.base_sha256}
    same = {"bench": here.bench, "pictures": here.pictures}
    return there.model_copy(update=same) == here and known.issuperset(scores["run_id"].to_pylist())


def up_to_date(folder: Path, experiment: Experiment, store: Store) -> bool:
    """Whether a folder has a manifest of this very spec that lacks no stage that is done."""
    try:
        manifest = read_manifest(folder)
    except UserError:  # It is missing, or not of today: it is to be written anew.
        return False
    lacking = {stage.id for stage in manifest.stages if stage.state == "missing"}
    return manifest.spec == experiment.spec.model_dump(mode="json") and not any(
        stage.id in lacking and stage.done(store) for stage in experiment.stages()
    )
