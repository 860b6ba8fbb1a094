"""What became of one run of a study."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mtlcli.config import Experiment
from mtlcli.studies.compare.identity import RunFolders
from mtlcli.studies.compare.measured import MEASURED
from mtlcli.studies.compare.plan import BASELINE, Candidate, Method
from mtlcli.studies.runs import CurrentData, finished, read_json, summary_of
from mtlcli.studies.study_observer import StudyObserver

Metrics = Mapping[str, Mapping[str, float]]
COSTS = ("parameters", "checkpoint_bytes", "flops", "seconds_per_epoch", "peak_memory_bytes")


@dataclass(frozen=True, eq=False)
class StudyRun:
    """One run of a study. tuned: the point of the `--tune` grid it is at, in words; empty where there is none."""

    method: Method
    tuned: str
    seed: int
    experiment: Experiment
    folder: Path

    def __str__(self) -> str:
        return ", ".join([str(self.method), *([self.tuned] if self.tuned else []), f"seed {self.seed}"])


@dataclass(frozen=True)
class Outcome:
    """A run that is done, or has failed.

    error: why it failed. test, train: task → metric → value of the best epoch's model; split: what `test` is of, where
    the data has no such split. val: the same of the evaluated split. value: the monitored one. cost: as in COSTS.
    examples: task → labelled examples that `test` is computed over. resampled: task → metric → its values on bootstrap
    samples of these. environment: as the run folder has it.
    """

    run: StudyRun
    error: str | None = None
    split: str = "test"
    test: Metrics = field(default_factory=dict)
    val: Metrics = field(default_factory=dict)
    train: Metrics = field(default_factory=dict)
    value: float = math.nan
    best_epoch: int = 0
    epochs: int = 0
    cost: Mapping[str, float] = field(default_factory=dict)
    examples: Mapping[str, int] = field(default_factory=dict)
    resampled: Mapping[str, Mapping[str, Sequence[float]]] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)

    @property
    def done(self) -> bool:
        return self.error is None


def outcome_of(run: StudyRun, data: CurrentData) -> Outcome | None:
    """The outcome of a run that is in its folder, completed and measured; None where there is none."""
    summary = finished(run.folder, run.experiment, data)
    if summary is None or not (run.folder / MEASURED).is_file():
        return None
    measured = read_json(run.folder / MEASURED)
    metrics = {split: _numbers(tasks) for split, tasks in summary["metrics"].items()}
    first, last = next(iter(metrics)), list(metrics)[-1]
    cost = {
        "parameters": summary["parameters"]["total"],
        "checkpoint_bytes": measured["checkpoint_bytes"],
        "flops": measured["flops"],
        "seconds_per_epoch": statistics.median(summary["seconds_per_epoch"]),
        "peak_memory_bytes": _number(measured.get("memory_bytes")),  # earlier versions have none
    }
    resampled = measured.get("resampled", {"split": None})
    environment = run.folder / "environment.json"
    return Outcome(
        run,
        split=last,
        test=metrics[last],
        val=metrics[first],
        train=_numbers(measured["train"]),
        value=_number(summary["best"]["value"]),
        best_epoch=summary["best"]["epoch"],
        epochs=summary["epochs"],
        cost={name: float(cost[name]) for name in COSTS},
        examples=summary.get("examples", {}).get(last, {}),
        resampled=_samples(resampled["values"]) if resampled["split"] == last else {},
        environment=read_json(environment) if environment.is_file() else {},
    )


def _samples(tasks: Mapping[str, Mapping[str, Sequence[Any]]]) -> dict[str, dict[str, list[float]]]:
    return {task: {name: [_number(v) for v in values] for name, values in m.items()} for task, m in tasks.items()}


def _numbers(tasks: Mapping[str, Mapping[str, Any]]) -> Metrics:
    return {task: {metric: _number(value) for metric, value in values.items()} for task, values in tasks.items()}


def _number(value: float | None) -> float:
    return math.nan if value is None else value


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
