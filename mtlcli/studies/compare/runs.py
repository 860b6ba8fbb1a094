"""The runs of a study, trained as far as its folder doesn't hold them yet."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from mtlcli.studies.compare.identity import RunFolders
from mtlcli.studies.compare.outcome import Outcome, StudyRun, outcome_of
from mtlcli.studies.compare.plan import BASELINE, Candidate, Method
from mtlcli.studies.current_data import CurrentData
from mtlcli.studies.observer import StudyObserver
from mtlcli.studies.runs import summary_of

Train = Callable[[Sequence[StudyRun]], Iterator[tuple[StudyRun, str | None]]]
"""Trains runs and measures them; gives each as it ends, with what went wrong, or None."""


class Runs:
    """root: the folder of run folders. train: how runs are trained."""

    def __init__(self, root: Path, train: Train, observer: StudyObserver) -> None:
        self.folders, self.train, self.observer = RunFolders(root), train, observer
        self.data = CurrentData()
        self.outcomes: dict[Path, Outcome] = {}
        self.stage: dict[Path, StudyRun] = {}  # what is in hand

    def run(self, method: Method, candidate: Candidate, seed: int) -> StudyRun:
        """One run of a method, at one point of the `--tune` grid."""
        experiment = candidate.experiment.model_copy(update={"seed": seed})
        label = " ".join([str(method), *([candidate.point.label] if candidate.point.label else [])])
        folder = self.folders.of(label, experiment)
        return StudyRun(method, candidate.point.label, seed, experiment, folder)

    def get(self, runs: Sequence[StudyRun]) -> list[Outcome]:
        """What became of each run. Those whose outcome isn't known yet are trained, or taken from the folder."""
        self.stage = {run.folder: run for run in runs}
        new = [run for folder, run in self.stage.items() if folder not in self.outcomes]
        left = [run for run in new if not self._known(run)]
        for run, problem in self.train(left) if left else ():
            outcome = outcome_of(run, self.data) if problem is None else Outcome(run, error=problem)
            assert outcome is not None
            self._note(outcome, reused=False)
        return [self.outcomes[run.folder] for run in runs]

    def _known(self, run: StudyRun) -> bool:
        """Whether the folder holds the run, completed; it is noted then."""
        outcome = outcome_of(run, self.data)
        if outcome is not None:
            self._note(outcome, reused=True)
        return outcome is not None

    def _note(self, outcome: Outcome, reused: bool) -> None:
        run = outcome.run
        self.outcomes[run.folder] = outcome
        if outcome.error is None:
            self.observer.run_done(str(run), summary_of(run.folder), reused)
        else:
            self.observer.run_failed(str(run), outcome.error)
        self.observer.standing(self.standing())

    def standing(self) -> dict[str, dict[str, tuple[float, int]]]:
        """How the methods stand: label → task → (mean of its primary metric on `val`, runs that are done).

        The baselines are one line. While there is tuning, a line is one point of the grid.
        """
        values: dict[str, dict[str, list[float]]] = {}
        tuning = len({(run.method, run.tuned) for run in self.stage.values()}) > len(
            {run.method for run in self.stage.values()}
        )
        for folder, run in self.stage.items():
            label = run.method.label if run.method.task is None else BASELINE
            row = values.setdefault(f"{label}, {run.tuned}" if tuning and run.tuned else label, {})
            outcome = self.outcomes.get(folder)
            for task, metrics in outcome.val.items() if outcome else ():
                row.setdefault(task, []).append(next(value for name, value in metrics.items() if name != "loss"))
        return {
            label: {task: (math.fsum(found) / len(found), len(found)) for task, found in row.items()}
            for label, row in values.items()
        }
