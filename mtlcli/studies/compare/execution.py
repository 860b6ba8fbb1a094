"""Runs of a comparison and their outcomes: trained, or read from the study folder."""

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
from mtlcli.studies.runs import CurrentData, completed_summary, read_json, read_summary
from mtlcli.studies.study_callback import StudyCallback
from mtlcli.studies.worker import Work

Metrics = Mapping[str, Mapping[str, float]]
MERGED = "merged.json"  # in the folder of a merged model: its coefficients, and those that were tried
COSTS = ("parameters", "checkpoint_bytes", "flops", "seconds_per_epoch", "peak_memory_bytes")


@dataclass(frozen=True, eq=False)
class StudyRun:
    """A run of a comparison. Its `str` is its name in messages.

    Attributes:
        method: its method, or baseline.
        tuned: label of its point of the `--tune` grid; empty if nothing is tuned.
        seed: its seed.
        experiment: the experiment that it trains.
        folder: its run folder.
        work: what its process does in place of training; None to train.
    """

    method: Method
    tuned: str
    seed: int
    experiment: Experiment
    folder: Path
    work: Work | None = None

    def __str__(self) -> str:
        return ", ".join([str(self.method), *([self.tuned] if self.tuned else []), f"seed {self.seed}"])


@dataclass(frozen=True)
class Outcome:
    """Outcome of a run that has completed or failed.

    Attributes:
        run: the run.
        error: the error of a failed run; None for a completed one.
        split: the final split: `test`, or the evaluated split if the data has no `test`.
        test: task → metric → value on the final split, at the best epoch.
        val: the same on the evaluated split.
        train: the same on `train`.
        last: means of the metrics on the final split over the last epochs, with `evaluation.last`.
        value: value of the monitored metric.
        best_epoch: the best epoch.
        epochs: number of epochs trained.
        cost: value of each of COSTS.
        examples: task → number of labelled examples in the final split.
        resampled: task → metric → values on bootstrap samples of these examples.
        environment: versions, as in the run folder.
        coefficients: of a merged model, name of each single-task run → the coefficient that was chosen.
    """

    run: StudyRun
    error: str | None = None
    split: str = "test"
    test: Metrics = field(default_factory=dict)
    val: Metrics = field(default_factory=dict)
    train: Metrics = field(default_factory=dict)
    last: Metrics = field(default_factory=dict)
    value: float = math.nan
    best_epoch: int = 0
    epochs: int = 0
    cost: Mapping[str, float] = field(default_factory=dict)
    examples: Mapping[str, int] = field(default_factory=dict)
    resampled: Mapping[str, Mapping[str, Sequence[float]]] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)
    coefficients: Mapping[str, float] = field(default_factory=dict)

    @property
    def completed(self) -> bool:
        """True if the run has completed."""
        return self.error is None


def read_outcome(run: StudyRun, data: CurrentData) -> Outcome | None:
    """Read the outcome of a run from its folder.

    Args:
        run: the run.
        data: the current data, which must be that of the run.

    Returns:
        The outcome; None if the run has not completed, or was not measured.
    """
    summary = completed_summary(run.folder, run.experiment, data)
    if summary is None or not (run.folder / MEASURED).is_file():
        return None
    measured = read_json(run.folder / MEASURED)
    metrics = {split: _to_floats(tasks) for split, tasks in summary["metrics"].items()}
    first, last = next(iter(metrics)), list(metrics)[-1]
    cost = {
        "parameters": summary["parameters"]["total"],
        "checkpoint_bytes": measured["checkpoint_bytes"],
        "flops": measured["flops"],
        "seconds_per_epoch": statistics.median(summary["seconds_per_epoch"]),
        "peak_memory_bytes": _to_float(measured.get("memory_bytes")),  # missing in runs of earlier versions
    }
    resampled = measured.get("resampled", {"split": None})
    environment, merged = run.folder / "environment.json", run.folder / MERGED
    return Outcome(
        run,
        split=last,
        test=metrics[last],
        val=metrics[first],
        train=_to_floats(measured["train"]),
        last=_to_floats(summary["last"]["metrics"].get(last, {})) if "last" in summary else {},
        value=_to_float(summary["best"]["value"]),
        best_epoch=summary["best"]["epoch"],
        epochs=summary["epochs"],
        cost={name: float(cost[name]) for name in COSTS},
        examples=summary.get("examples", {}).get(last, {}),
        resampled=_to_samples(resampled["values"]) if resampled["split"] == last else {},
        environment=read_json(environment) if environment.is_file() else {},
        coefficients=read_json(merged)["coefficients"] if merged.is_file() else {},
    )


def _to_samples(tasks: Mapping[str, Mapping[str, Sequence[Any]]]) -> dict[str, dict[str, list[float]]]:
    return {
        task: {name: [_to_float(value) for value in values] for name, values in metrics.items()}
        for task, metrics in tasks.items()
    }


def _to_floats(tasks: Mapping[str, Mapping[str, Any]]) -> Metrics:
    return {task: {metric: _to_float(value) for metric, value in values.items()} for task, values in tasks.items()}


def _to_float(value: float | None) -> float:
    return math.nan if value is None else value


Train = Callable[[Sequence[StudyRun]], Iterator[tuple[StudyRun, str | None]]]
"""Trains and measures runs; yields each when it ends, with its error, or None."""


class RunStore:
    """Runs of a study folder, each of which is trained once.

    Args:
        root: folder of the run folders.
        train: trains runs.
        callback: called for each run that has ended.
    """

    def __init__(self, root: Path, train: Train, callback: StudyCallback) -> None:
        self._folders, self._train, self._callback = RunFolders(root), train, callback
        self._data = CurrentData()
        self._outcomes: dict[Path, Outcome] = {}
        self._current: dict[Path, StudyRun] = {}  # runs of the latest call of `complete`

    def make_run(self, method: Method, candidate: Candidate, seed: int) -> StudyRun:
        """Make a run, without training it.

        Args:
            method: its method, or baseline.
            candidate: its point of the `--tune` grid.
            seed: its seed.

        Returns:
            The run.
        """
        experiment = candidate.experiment.model_copy(update={"seed": seed})
        label = " ".join([str(method), *([candidate.point.label] if candidate.point.label else [])])
        folder = self._folders.find(label, experiment)
        return StudyRun(method, candidate.point.label, seed, experiment, folder)

    def complete(self, runs: Sequence[StudyRun]) -> list[Outcome]:
        """Train the runs that the study folder lacks.

        Args:
            runs: the runs.

        Returns:
            The outcome of each run.
        """
        self._current = {run.folder: run for run in runs}
        new = [run for folder, run in self._current.items() if folder not in self._outcomes]
        missing = [run for run in new if not self._reuse(run)]
        for run, error in self._train(missing) if missing else ():
            outcome = read_outcome(run, self._data) if error is None else Outcome(run, error=error)
            assert outcome is not None
            self._add(outcome, reused=False)
        return [self._outcomes[run.folder] for run in runs]

    def _reuse(self, run: StudyRun) -> bool:
        """Add the outcome of a run that the folder holds; return whether it does."""
        outcome = read_outcome(run, self._data)
        if outcome is not None:
            self._add(outcome, reused=True)
        return outcome is not None

    def _add(self, outcome: Outcome, reused: bool) -> None:
        run = outcome.run
        self._outcomes[run.folder] = outcome
        if outcome.error is None:
            self._callback.on_run_end(str(run), read_summary(run.folder), reused)
        else:
            self._callback.on_run_failure(str(run), outcome.error)
        self._callback.on_means(self._primary_means())

    def _primary_means(self) -> dict[str, dict[str, tuple[float, int]]]:
        """Label → task → (mean of its primary metric on `val`, number of completed runs).

        The baselines share a label. During tuning, each grid point has its own.
        """
        values: dict[str, dict[str, list[float]]] = {}
        runs = self._current.values()
        tuning = len({(run.method, run.tuned) for run in runs}) > len({run.method for run in runs})
        for folder, run in self._current.items():
            label = run.method.label if run.method.task is None else BASELINE
            row = values.setdefault(f"{label}, {run.tuned}" if tuning and run.tuned else label, {})
            outcome = self._outcomes.get(folder)
            for task, metrics in outcome.val.items() if outcome else ():
                row.setdefault(task, []).append(next(value for name, value in metrics.items() if name != "loss"))
        return {
            label: {task: (math.fsum(numbers) / len(numbers), len(numbers)) for task, numbers in row.items()}
            for label, row in values.items()
        }
