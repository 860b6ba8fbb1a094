"""Fake training: run folders are written without training."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from mtlcli.config import Experiment, dump_yaml, experiment_from_dict
from mtlcli.files import write_text
from mtlcli.studies.compare.execution import StudyRun
from mtlcli.studies.compare.measured import MEASURED
from mtlcli.studies.compare.plan import Load
from mtlcli.studies.study_callback import StudyCallback
from mtlcli.training.run_folder import RunFolder
from tests.studies.fake_data import TRAINING, task

Values = dict[str, float]  # task → value of all its metrics
FakeResult = Callable[[StudyRun], tuple[Values, Values] | str]

TASKS = {"sign": task("sign"), "sum": task("sum")}
LAST = 0.05  # by which the mean over the last epochs is below the value of the best epoch
METRICS = {"sign": ("accuracy", "auroc", "f1"), "sum": ("r2", "mse", "rmse", "mae")}


def make_load(**changes: Any) -> Load:
    """Return a function that loads a small experiment with two tasks, with overrides."""
    plain: dict[str, Any] = {
        "name": "fake",
        "datasets": {"fake": {"name": "fake"}},
        "tasks": TASKS,
        "trunk": {"name": "mlp", "hidden": [4], "features": 3},
        "weighting": "uniform",
        "training": TRAINING,
        **changes,
    }

    def load(overrides: Sequence[str]) -> Experiment:
        return experiment_from_dict(plain, overrides, "fake.yaml")

    return load


class FakeTraining:
    """Replacement for training.

    Args:
        metrics: run → its metrics on `val` and on `test`, or its error.

    Attributes:
        trained: names of the runs, in their order.
    """

    def __init__(self, metrics: FakeResult) -> None:
        self.metrics = metrics
        self.trained: list[str] = []

    def __call__(self, runs: Sequence[StudyRun]) -> Iterator[tuple[StudyRun, str | None]]:
        for run in runs:
            self.trained.append(str(run))
            result = self.metrics(run)
            if isinstance(result, str):
                yield run, result
            else:
                _write(run, *result)
                yield run, None


def _write(run: StudyRun, val: Values, test: Values) -> None:
    folder = RunFolder(run.folder)
    folder.path.mkdir(parents=True)
    write_text(folder.path / "config.yaml", dump_yaml(run.experiment.resolved()))
    tasks = list(run.experiment.tasks)
    alone = len(tasks) == 1
    monitored = sum(val[task] for task in tasks) / len(tasks)
    split = dict.fromkeys(tasks, 50)
    summary: dict[str, Any] = {
        "examples": {"val": split, "test": split},
        "status": "completed",
        "metrics": {"val": _metrics(val, tasks), "test": _metrics(test, tasks)},
        "best": {"epoch": 2, "monitor": "val.mean.primary", "value": monitored},
        "epochs": 2,
        "seconds_per_epoch": [5.0, 1.0, 3.0] if alone else [4.0],
        "peak_memory_bytes": 1000,
        "parameters": {"total": 100 if alone else 120},
    }
    if run.experiment.evaluation.last is not None:
        means = {task: value - LAST for task, value in test.items()}
        summary["last"] = {"epochs": 2, "metrics": {"val": _metrics(val, tasks), "test": _metrics(means, tasks)}}
    folder.write_json("summary.json", summary)
    train = {task: value + 0.25 for task, value in test.items()}
    measured = {
        "train": _metrics(train, tasks),
        "flops": 50,
        "checkpoint_bytes": 2000,
        "memory_bytes": 300 if alone else 450,
        "resampled": {"split": "test", "values": _resampled(test, tasks)},
    }
    folder.write_json(MEASURED, measured)
    folder.write_json("environment.json", {"mtl": "1.2.3", "packages": {"torch": "4.5.6"}})


def _resampled(values: Values, tasks: Sequence[str]) -> dict[str, dict[str, list[float]]]:
    """Return two bootstrap samples, 0.01 below and above the value."""
    return {task: {name: [values[task] - 0.01, values[task] + 0.01] for name in METRICS[task]} for task in tasks}


def _metrics(values: Values, tasks: Sequence[str]) -> dict[str, dict[str, float]]:
    return {task: {"loss": 1.0, **dict.fromkeys(METRICS[task], values[task])} for task in tasks}


class RecordingCallback(StudyCallback):
    """Callback that records its calls."""

    def __init__(self) -> None:
        self.reused: list[str] = []
        self.failed: list[str] = []
        self.amount = 0
        self.rows: dict[str, dict[str, tuple[float, int]]] = {}
        self.all_rows: list[list[str]] = []

    def on_study_start(self, runs: int) -> None:
        self.amount = runs

    def on_run_end(self, name: str, summary: dict[str, Any], reused: bool) -> None:
        if reused:
            self.reused.append(name)

    def on_run_failure(self, name: str, problem: str) -> None:
        self.failed.append(name)

    def on_means(self, rows: Any) -> None:
        self.rows = rows
        self.all_rows.append(list(rows))
