"""Generation of the texts that tasks predict, in evaluations."""

from __future__ import annotations

from typing import Any

from mtlcli.data.loader import Batch
from mtlcli.specs import has_label
from mtlcli.training.run import Run


def add_texts(run: Run, task: str, batch: Batch, metrics: Any) -> None:
    """Generate texts for the labelled examples of a batch, as far as the metrics need them, and add them.

    Args:
        run: The run, with the model to evaluate.
        task: A task that generates texts.
        batch: The batch, on the device of the model.
        metrics: The metrics of the task.
    """
    remaining, target = metrics.remaining(), batch.targets[task]
    if remaining == 0:
        return
    kind: Any = run.kinds[task]
    rows = has_label(target).nonzero().flatten()[:remaining]
    if not len(rows):
        return
    inputs = batch.inputs[run.sources[task][0]][rows]
    with run.autocast():
        tokens = run.model.generate(task, inputs, kind.max_new_tokens)
    weight = batch.metric_weights.get(task)
    metrics.update_texts(tokens, target[rows], None if weight is None else weight[rows])
