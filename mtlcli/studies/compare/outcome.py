"""What became of one run of a study."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mtlcli.config import Experiment
from mtlcli.studies.compare.measured import MEASURED
from mtlcli.studies.compare.plan import Method
from mtlcli.studies.current_data import CurrentData
from mtlcli.studies.runs import finished, read_json

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
