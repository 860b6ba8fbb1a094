"""What became of one run of a study."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mtlcli.config import Experiment
from mtlcli.studies.compare.measured import MEASURED
from mtlcli.studies.compare.plan import Method
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

    @property
    def done(self) -> bool:
        return self.error is None


def outcome_of(run: StudyRun) -> Outcome | None:
    """The outcome of a run that is in its folder, completed and measured; None where there is none."""
    summary = finished(run.folder, run.experiment)
    if summary is None or not (run.folder / MEASURED).is_file():
        return None
    measured = read_json(run.folder / MEASURED)
    metrics = {split: _numbers(tasks) for split, tasks in summary["metrics"].items()}
    cost = {
        "parameters": summary["parameters"]["total"],
        "checkpoint_bytes": measured["checkpoint_bytes"],
        "flops": measured["flops"],
        "seconds_per_epoch": statistics.median(summary["seconds_per_epoch"]),
        "peak_memory_bytes": summary["peak_memory_bytes"],
    }
    splits = list(metrics)
    return Outcome(
        run,
        split=splits[-1],
        test=metrics[splits[-1]],
        val=metrics[splits[0]],
        train=_numbers(measured["train"]),
        value=_number(summary["best"]["value"]),
        best_epoch=summary["best"]["epoch"],
        epochs=summary["epochs"],
        cost={name: float(cost[name]) for name in COSTS},
    )


def _numbers(tasks: Mapping[str, Mapping[str, Any]]) -> Metrics:
    return {task: {metric: _number(value) for metric, value in values.items()} for task, values in tasks.items()}


def _number(value: float | None) -> float:
    return math.nan if value is None else value
