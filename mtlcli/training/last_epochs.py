"""Means of the metrics over the last epochs of a run (`evaluation.last`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from statistics import fmean
from typing import Any

from mtlcli.training.evaluate import TaskMetrics, measure
from mtlcli.training.history import table_md
from mtlcli.training.run import Run
from mtlcli.training.state import TrainerState


def measure_other_splits(run: Run, epoch: int, last: int, poll: Callable[[], None]) -> dict[str, TaskMetrics]:
    """Evaluate the split `test` after one of the last epochs, if it isn't evaluated after each epoch anyway.

    Args:
        run: the run, with the model to evaluate.
        epoch: the epoch, from 1.
        last: number of the last epochs, `evaluation.last`.
        poll: called before each batch; an exception it raises ends the evaluation.

    Returns:
        Split → task → metric → value; empty for earlier epochs, and if the data has no `test`.
    """
    if epoch <= run.experiment.training.epochs - last:
        return {}
    splits = {"test"} & set(run.splits()) - {run.experiment.evaluation.split}
    return {split: measure(run, split, poll=poll).metrics for split in splits}


def average_last_epochs(state: TrainerState, last: int) -> dict[str, Any]:
    """Average the metrics of the last epochs, from the history.

    Args:
        state: the state of the run, whose last epoch is trained.
        last: number of the last epochs; a shorter run has fewer.

    Returns:
        `epochs`, the number of averaged epochs, and `metrics`: split → task → metric → mean over them, for the splits
        of the final tables. A metric that is undefined in one of the epochs is NaN.
    """
    run, progress = state.run, state.progress
    first = max(progress.epoch - last, 0) + 1
    names = {task: {"loss", *kind.reported} for task, kind in run.kinds.items()}
    values: dict[tuple[str, str, str], dict[int, float]] = {}
    for epoch, _, split, task, metric, value in state.history.rows:
        # the rows of an epoch on `train` are those of its steps; if it is evaluated, those of the evaluation follow
        if epoch >= first and split in state.examples and metric in names.get(task, ()):
            values.setdefault((split, task, metric), {})[epoch] = value
    metrics: dict[str, TaskMetrics] = {}
    for (split, task, metric), by_epoch in values.items():
        metrics.setdefault(split, {}).setdefault(task, {})[metric] = fmean(by_epoch.values())
    return {"epochs": progress.epoch - first + 1, "metrics": metrics}


def last_epochs_md(summary: Mapping[str, Any]) -> str:
    """Format the means of the last epochs as Markdown, to follow the table of the best epoch.

    Args:
        summary: `best`, `last` and `examples` of a run, as in `summary.json`.

    Returns:
        A sentence that names the epochs of both tables, and the table of the means.
    """
    return f"\n{caption(summary)}\n\n{table_md(summary['last']['metrics'], summary['examples'])}"


def caption(summary: Mapping[str, Any]) -> str:
    """Return the sentence between the table of the best epoch and that of the last epochs."""
    best, last = summary["best"], summary["last"]
    epochs = "epoch" if last["epochs"] == 1 else f"{last['epochs']} epochs"
    return (
        f"Above: the model of epoch {best['epoch']}, the best by {best['monitor']}. "
        f"Below: the mean of the metrics over the last {epochs}."
    )
