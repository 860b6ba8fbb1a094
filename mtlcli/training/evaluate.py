"""Evaluation on a split, and the metric that selects the best epoch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from mtlcli import metric_names, registry
from mtlcli.config import MEAN, Experiment
from mtlcli.data.example_weights import LabelWeights
from mtlcli.data.examples import Examples, StreamedExamples
from mtlcli.data.loader import Batch, evaluation_batches
from mtlcli.models.sharing.base import SharingRecord, SharingStats
from mtlcli.specs import TargetSpec, at_least_float32
from mtlcli.tasks.base import TaskKind
from mtlcli.training.checkpoint.file import rng_state, set_rng_state
from mtlcli.training.run import Run
from mtlcli.training.text_generation import add_texts

BATCH_SIZE = 256  # of an evaluation
TaskMetrics = dict[str, dict[str, float]]
Amounts = dict[str, int]  # task → number of labelled examples
Receive = Callable[[str, Tensor, Tensor, Tensor | None], None]
"""Receives a task's name, predictions [B, outputs] in float32, targets [B, …] and weights in the metrics [B] (None for
equal weights) of a batch."""


def of_all_classes(metrics: Iterable[str]) -> list[str]:
    """Return the metrics without those of single classes, such as `precision[cat]`."""
    return [name for name in metrics if not ("[" in name and name.endswith("]"))]


@dataclass(frozen=True)
class Evaluation:
    """Result of evaluating a model on a split.

    Attributes:
        metrics: task → metric → value.
        examples: task → number of labelled examples whose weight isn't 0; for labels of pixels, that of the images with
            such labels.
    """

    metrics: TaskMetrics
    examples: Amounts


def evaluate(
    run: Run, split: str = "test", stats: SharingStats | None = None, poll: Callable[[], None] | None = None
) -> TaskMetrics:
    """Evaluate every task on a split.

    Args:
        run: the run, with the model to evaluate.
        split: name of the split.
        stats: receives statistics of the sharing.
        poll: called before each batch; an exception it raises ends the evaluation.

    Returns:
        Task → metric → value, see `measure`.
    """
    return measure(run, split, stats, poll).metrics


def measure(
    run: Run,
    split: str | Mapping[str, str] = "test",
    stats: SharingStats | None = None,
    poll: Callable[[], None] | None = None,
    receive: Receive | None = None,
    in_order: bool = False,
    most: Mapping[str, int] | None = None,
) -> Evaluation:
    """Evaluate every task on a split, over all labelled examples.

    The model computes in the experiment's precision. The states of all random generators are restored afterwards, so
    that an evaluation never changes the training that follows. A dataset without the split raises ConfigError.

    Args:
        run: the run, with the model to evaluate.
        split: name of the split of all datasets, or alias → name; `all` means the examples of all splits.
        stats: receives statistics of the sharing.
        poll: called before each batch; an exception it raises ends the evaluation.
        receive: called with the predictions, targets and weights of each task in each batch.
        in_order: whether texts are evaluated in their own order, rather than in that of their length.
        most: alias → maximum number of examples, evenly spaced over the split; None for all examples.

    Returns:
        The metrics, `loss` among them, and the numbers of examples; a metric is NaN for a task without labels.
    """
    random_state = rng_state()
    metrics = {task: kind.create_metrics(run.device) for task, kind in run.kinds.items()}
    exact = torch.float32 if run.device.type == "mps" else torch.float64  # MPS has no float64
    sums = dict.fromkeys(run.kinds, torch.zeros((), dtype=exact, device=run.device))
    amounts: dict[str, float] = dict.fromkeys(run.kinds, 0)
    counts: Amounts = dict.fromkeys(run.kinds, 0)
    weights, size = label_weights(run), evaluation_batch_size(run.experiment, run.kinds)
    in_order = in_order or any(kind.generates for kind in run.kinds.values())  # which may need the first examples only
    examples = run.examples(split)
    if most is not None:
        examples = {alias: _space_evenly(each, most[alias]) for alias, each in examples.items()}
    maps = map_targets(run)
    batches = evaluation_batches(examples, run.label_sources, run.placement, size, weights, in_order, maps)
    was_training = run.model.training
    run.model.eval()
    record = SharingRecord(stats=stats)
    try:
        for batch in batches:
            if poll is not None:
                poll()
            with torch.inference_mode():
                _add_batch(run, batch, record, metrics, sums, amounts, counts, receive)
    finally:
        run.model.train(was_training)
        set_rng_state(random_state)
    values = {
        task: {"loss": float(sums[task]) / amounts[task] if amounts[task] else math.nan, **metrics[task].compute()}
        for task in run.kinds
    }
    set_rng_state(random_state)
    return Evaluation(values, counts)


def _space_evenly(examples: Examples, most: int) -> Examples:
    """Return at most `most` examples, evenly spaced over the split; all if they can only be read in sequence."""
    size = len(examples)
    if size <= most or isinstance(examples, StreamedExamples):
        return examples
    chosen = torch.arange(most) * size // most
    return replace(examples, rows=chosen if examples.rows is None else examples.rows[chosen])


def _add_batch(
    run: Run,
    batch: Batch,
    record: SharingRecord,
    metrics: Mapping[str, Any],
    sums: dict[str, Tensor],
    amounts: dict[str, float],
    counts: Amounts,
    receive: Receive | None,
) -> None:
    """Add a batch to the metrics, to the sums of losses and of their weights, and to the counts of labels."""
    labelled = {**batch.counts, **batch.labelled}
    names = [task for task, count in labelled.items() if count]
    with run.autocast():
        predictions = run.model(batch.inputs, names, record)
    for task in names:
        prediction = at_least_float32(predictions[task])
        weight = batch.metric_weights.get(task)
        metrics[task].update(prediction, batch.targets[task], *(() if weight is None else (weight,)))
        if run.kinds[task].generates:
            add_texts(run, task, batch, metrics[task])
        loss = run.loss(task, prediction, batch)
        sums[task] = sums[task] + loss.to(sums[task].dtype) * batch.counts[task]
        amounts[task] += batch.counts[task]
        counts[task] += int(labelled[task])
        if receive is not None:
            receive(task, prediction, batch.targets[task], weight)


def label_weights(run: Run) -> dict[str, LabelWeights]:
    """Return the weights in the loss that follow from labels.

    Args:
        run: the run.

    Returns:
        Task → weight of each class, or the function of labels that returns the weight of each example.
    """
    own = {task: kind.label_weights for task, kind in run.kinds.items() if kind.weighs_labels}
    return {**own, **run.class_weights}


def map_targets(run: Run) -> dict[str, TargetSpec]:
    """Return task → specification of its target, for the tasks of a run whose targets are maps."""
    return {task: kind.target for task, kind in run.kinds.items() if kind.target.is_map}


def evaluation_batch_size(experiment: Experiment, kinds: Mapping[str, TaskKind]) -> int:
    """Return the number of examples in a batch of an evaluation.

    Args:
        experiment: the experiment.
        kinds: task → its kind.

    Returns:
        `evaluation.batch_size`; by default that of training if tasks have labels for pixels, which take much memory.
    """
    if experiment.evaluation.batch_size is not None:
        return experiment.evaluation.batch_size
    return experiment.training.batch_size if any(kind.target.is_map for kind in kinds.values()) else BATCH_SIZE


def primary_metric(experiment: Experiment, task: str) -> str:
    """Return the name of a task's primary metric, without building its kind."""
    entry = experiment.tasks[task]
    kind = registry.kinds[entry.kind.name].target
    return metric_names.primary_metric(kind, entry.kind.options, entry.metrics, entry.primary)


class Monitor:
    """The metrics that `evaluation.monitor` selects, and their mean.

    Args:
        experiment: the experiment.
        kinds: task → its kind.

    Attributes:
        split: the evaluated split.
        metrics: task → its monitored metric.
        direction: whether a larger (`max`) or a smaller (`min`) value is better.
        name: the value's name in reports, such as `val digit accuracy` or `val mean primary`.

    Raises:
        ValueError: if a task has no such metric, or the mean is of metrics with opposite directions.
    """

    def __init__(self, experiment: Experiment, kinds: Mapping[str, TaskKind]) -> None:
        task, metric = experiment.evaluation.monitor.task, experiment.evaluation.monitor.metric
        self.split = experiment.evaluation.split
        self.name = f"{self.split} {task} {metric}"
        tasks = list(kinds) if task == MEAN else [task]
        self.metrics = {name: kinds[name].primary if metric == "primary" else metric for name in tasks}
        for name, chosen in self.metrics.items():
            if chosen not in kinds[name].reported:
                raise ValueError(f"task {name!r} has no metric {chosen!r}; it has: {', '.join(kinds[name].reported)}")
        directions = {name: kinds[name].reported[chosen] for name, chosen in self.metrics.items()}
        if len(set(directions.values())) > 1:
            opposed = ", ".join(f"{name} {self.metrics[name]} ({way})" for name, way in directions.items())
            raise ValueError(
                f"the mean of metrics with opposite directions is meaningless: {opposed}; monitor the mean loss, "
                f"{{metric: loss}}, or one task, such as {{task: {tasks[0]}}}"
            )
        self.direction = next(iter(directions.values()))

    def value(self, metrics: TaskMetrics) -> float:
        """Return the mean of the monitored metrics that are finite; NaN if none is."""
        finite = [value for task, metric in self.metrics.items() if math.isfinite(value := metrics[task][metric])]
        return sum(finite) / len(finite) if finite else math.nan

    def is_better(self, value: float, best: float) -> bool:
        """Return whether a value is better than the best so far. Any value is better than NaN; NaN is never better."""
        if math.isnan(best):
            return True
        return value > best if self.direction == "max" else value < best

    def undefined_note(self, metrics: TaskMetrics) -> str | None:
        """Return a warning with the tasks whose monitored metric has no value; None if all have one."""
        undefined = [task for task, metric in self.metrics.items() if not math.isfinite(metrics[task][metric])]
        if not undefined:
            return None
        all_of_them = len(undefined) == len(self.metrics)
        consequence = "the latest epoch counts as best" if all_of_them else "the mean is over the other tasks"
        return (
            f"{', '.join(undefined)}: no value to monitor (no labels in {self.split}, or all of them the same?); "
            f"{consequence}"
        )
