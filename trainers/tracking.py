"""Trackers of accelerate (TensorBoard, Weights & Biases, ...), told of every step as it is made.

Nothing is imported unless a run asks for one. They see the columns of :mod:`trainers.steps`, those
of ten numbers one by one (``decile_correct/0`` to ``/9``), and change nothing of a run.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from trainers.config import TrainConfig
from trainers.errors import UserError, listed
from trainers.metrics import StepMetrics
from trainers.steps import columns_of_step

PROJECT = "dpo-bench"
OF_PROJECT = {"wandb": "name", "trackio": "name", "swanlab": "experiment_name"}
"""Trackers that are opened by the name of a project, and how they take that of the run."""
Track = Callable[[int, StepMetrics], None]


def check_trackers(names: Sequence[str]) -> None:
    """Refuse trackers that accelerate does not know, or whose package is not installed.

    Raises:
        UserError: Naming those that there are.
    """
    if not names:
        return
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers

    available = {str(name) for name in get_available_trackers()}
    for name in names:
        if name not in LOGGER_TYPE_TO_CLASS:
            known = listed(sorted(LOGGER_TYPE_TO_CLASS))
            raise UserError(f"training.log_with: expected some of {known}, got {name!r}")
        if name not in available and LOGGER_TYPE_TO_CLASS[name].__module__.startswith("accelerate"):
            raise UserError(
                f"training.log_with: {name!r} needs a package that is not installed: install it, "
                "or leave that tracker out"
            )


@contextmanager
def tracked(
    names: Sequence[str], config: TrainConfig, folder: Path, on_step: Track
) -> Iterator[Track]:
    """Open trackers for a run; gives what is to be called after every step, ``on_step`` in it.

    Args:
        names: As accelerate has them.
        config: The run: its settings are what trackers call its configuration.
        folder: For those that write files.
        on_step: What else is told.

    Raises:
        UserError: If a tracker fails; the run goes on where it stopped when it is run again.
    """
    trackers = []
    for name in names:
        with _failing(name):
            trackers.append((name, _start(name, run_name(config), folder, config)))

    def track(step: int, metrics: StepMetrics) -> None:
        values = dict(_plain(columns_of_step(asdict(metrics))))
        for name, tracker in trackers:
            with _failing(name):
                tracker.log(values, step=step)
        on_step(step, metrics)

    try:
        yield track
    finally:
        for name, tracker in trackers:
            with _failing(name):
                tracker.finish()


def run_name(config: TrainConfig) -> str:
    """What a run is called there: in words, and never as another."""
    rule = f"{config.objective.name}-{config.reference.name}"
    return f"{rule}-seed{config.seed}-{config.run_id()[:8]}"


def _start(name: str, run: str, folder: Path, config: TrainConfig) -> Any:
    from accelerate import PartialState
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS

    PartialState(cpu=True)  # Trackers ask it who is first; where several were launched it is there.
    kind = LOGGER_TYPE_TO_CLASS[name]
    place = [str(folder)] if kind.requires_logging_directory else []
    key = OF_PROJECT.get(name)
    tracker = kind(PROJECT, **{key: run}) if key else kind(run, *place)
    tracker.start()
    tracker.store_init_configuration(dict(_settings(config.model_dump(mode="json"))))
    return tracker


def _settings(values: dict[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys of settings, in the kinds of values that every tracker takes."""
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _settings(value, f"{above}{key}.")
        else:
            yield above + key, value if isinstance(value, bool | int | float | str) else str(value)


def _plain(columns: dict[str, Any]) -> Iterator[tuple[str, float | str]]:
    """What was computed: numbers, and words."""
    for name, value in columns.items():
        if isinstance(value, list):
            yield from ((f"{name}/{place}", number) for place, number in enumerate(value))
        elif value is not None:
            yield name, value


@contextmanager
def _failing(name: str) -> Iterator[None]:
    """Say which tracker it was, whatever it raises."""
    try:
        yield
    except Exception as error:
        said = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(
            f"tracker {name!r} failed ({said}): mend that, or run the same command again without "
            "it in training.log_with: training goes on where it stopped"
        ) from error
