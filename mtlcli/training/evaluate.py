"""Metrics of a model on a split."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mtlcli import registry
from mtlcli.config import Experiment
from mtlcli.data.loader import Batch, evaluation_batches
from mtlcli.models.sharing.base import SharingRecord, SharingStats
from mtlcli.tasks.base import at_least_float32
from mtlcli.training.checkpoint.file import rng_state, set_rng_state
from mtlcli.training.run import Run

TaskMetrics = dict[str, dict[str, float]]
Amounts = dict[str, int]  # task → number of labelled examples
Receive = Callable[[str, Tensor, Tensor], None]
"""Takes a task's name, its predictions [B, outputs] in float32 and its targets, for one batch."""


@dataclass(frozen=True)
class Evaluation:
    """Result of evaluating a model on a split.

    metrics: task → metric → value. examples: task → number of labelled examples the values are computed over.
    """

    metrics: TaskMetrics
    examples: Amounts


def evaluate(
    run: Run, split: str = "test", stats: SharingStats | None = None, poll: Callable[[], None] | None = None
) -> TaskMetrics:
    """Return task → metric → value on `split`; see `measure`."""
    return measure(run, split, stats, poll).metrics


def measure(
    run: Run,
    split: str | Mapping[str, str] = "test",
    stats: SharingStats | None = None,
    poll: Callable[[], None] | None = None,
    receive: Receive | None = None,
) -> Evaluation:
    """Evaluate every task on `split`, `loss` among its metrics, over all labelled examples; NaN where there are none.

    split: of all datasets, or of each by alias; `all` are the examples of all splits.
    stats: receives statistics of the sharing (gates, stitches, masks).
    poll: called before each batch; may end it all by raising.
    receive: called with the predictions and targets of each task of each batch.
    The model computes in the experiment's precision. Every random generator is left as it was, so that evaluating (and
    what it imports for the first time) never changes a training. ConfigError where a dataset has no such split.
    """
    random_state = rng_state()
    metrics = {task: kind.metrics(run.device) for task, kind in run.kinds.items()}
    exact = torch.float32 if run.device.type == "mps" else torch.float64  # MPS has no float64
    sums = dict.fromkeys(run.kinds, torch.zeros((), dtype=exact, device=run.device))
    counts: Amounts = dict.fromkeys(run.kinds, 0)
    batches = evaluation_batches(run.examples(split), run.sources, run.placement, run.experiment.evaluation.batch_size)
    was_training = run.model.training
    run.model.eval()
    record = SharingRecord(stats=stats)
    try:
        for batch in batches:
            if poll is not None:
                poll()
            with torch.inference_mode():
                _take(run, batch, record, metrics, sums, counts, receive)
    finally:
        run.model.train(was_training)
        set_rng_state(random_state)
    found = {
        task: {"loss": float(sums[task]) / counts[task] if counts[task] else math.nan, **metrics[task].compute()}
        for task in run.kinds
    }
    set_rng_state(random_state)
    return Evaluation(found, counts)


def _take(
    run: Run,
    batch: Batch,
    record: SharingRecord,
    metrics: Mapping[str, Any],
    sums: dict[str, Tensor],
    counts: Amounts,
    receive: Receive | None,
) -> None:
    """Add a batch to the metrics, and to the sums of losses and the counts of labels."""
    names = [task for task, count in batch.counts.items() if count]
    with run.autocast():
        predictions = run.model(batch.inputs, names, record)
    for task in names:
        prediction = at_least_float32(predictions[task])
        metrics[task].update(prediction, batch.targets[task])
        loss = run.kinds[task].loss(prediction, batch.targets[task])
        sums[task] = sums[task] + loss.to(sums[task].dtype) * batch.counts[task]
        counts[task] += batch.counts[task]
        if receive is not None:
            receive(task, prediction, batch.targets[task])


def primary_metric(experiment: Experiment, task: str) -> str:
    """The metric that a task is judged by, without building its kind."""
    kind = experiment.tasks[task].kind
    name: str = kind.options.get("primary") or registry.kinds[kind.name].target.primary
    return name
