"""What ``bench ablate`` does: the trials of a spec first, if it has any, then the experiment."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import typer
from rich.console import Console

from bench.estimate.disk import check_space
from bench.experiment import run
from bench.experiment.folder import STORE
from bench.experiment.prepare import Experiment, prepare
from bench.experiment.show import held, print_plan
from bench.experiment.tuning import choose
from bench.report.folder import FORMATS, render
from bench.report.terminal import print_results
from bench.results.protocol import Tuning
from bench.spec.model import Spec
from bench.spec.tuning import trials_spec
from bench.stages.store import Store


@dataclass(frozen=True)
class Job:
    """A spec, and how it is run."""

    spec: Spec
    out: Path
    workers: int
    console: Console
    collect: bool = False
    """Run nothing, and write the tables of what is done."""

    def plan(self, as_json: bool) -> None:
        """Print what would run; arms are tuned once all trials are made."""
        experiment, trials = prepare(self.spec), self._trials()
        if trials is not None and not run.missing_stages(trials, Store(self.out / STORE)):
            experiment = prepare(self.spec, self._choose(self._finish(trials)[0]))
        print_plan(experiment, self.out, self.workers, as_json, trials)

    def run(self, notes: bool, as_json: bool) -> int:
        """Run it, print its tables, and give the exit code."""
        experiment, trials = prepare(self.spec), self._trials()
        gaps: list[str] = []
        if trials is not None:  # What is wrong with the experiment was told before they begin.
            folder, gaps = self._finish(trials)
            experiment = prepare(self.spec, self._choose(folder))
        folder, more = self._finish(experiment)
        results = render(folder)
        if as_json:
            typer.echo(FORMATS["json"](results), nl=False)
        else:
            print_results(results, folder, notes)
        self.console.print(f"written to {folder}", soft_wrap=True)
        self.console.print(held(folder, experiment), soft_wrap=True)
        for gap in (gaps := [*gaps, *more]):
            self.console.print(gap, style="red", soft_wrap=True)
        return 2 if gaps else 0

    def _trials(self) -> Experiment | None:
        if self.spec.tuning is None:
            return None
        with self.spec.named():
            return prepare(trials_spec(self.spec))

    def _choose(self, folder: Path) -> Tuning:
        render(folder)
        with self.spec.named():
            return choose(self.spec, folder)

    def _finish(self, experiment: Experiment) -> tuple[Path, list[str]]:
        """Make what is missing, unless it is only to be collected; give the folder and gaps."""
        if self.collect:
            folder, missing = run.collect_done(experiment, self.out)
            gaps = [f"{len(missing)} stages are missing: run it without --collect"]
            gaps = gaps if missing else []
        else:
            fits = partial(check_space, experiment.spec)
            folder, outcome = run.ablate(experiment, self.out, self.workers, self.console, fits)
            gaps = [f"failed: {error}" for error in outcome.failed.values()]
        return folder, gaps + run.unscored_images(experiment, Store(self.out / STORE))
