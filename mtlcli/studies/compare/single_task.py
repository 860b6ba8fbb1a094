"""The baseline of a task: the task alone, with a trunk of its own and the same training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from mtlcli.config import ComponentConfig, Experiment, Monitor, WeightingConfig
from mtlcli.errors import ConfigError
from mtlcli.studies.compare.axes import Axis
from mtlcli.studies.runs import one_task
from mtlcli.training.assembly.assemble import add_regularizers, assemble
from mtlcli.training.assembly.data_checks import Datasets

DROPPED = ("sharing", "weighting", "regularizers")  # what is about several tasks: not the baselines' to tune


def single_task(experiment: Experiment, task: str, opened: Datasets) -> Experiment:
    """The experiment with that task, its dataset, one trunk and the task's head; its loss is the objective.

    Everything about the training is the experiment's. The best epoch is picked by the experiment's monitored metric,
    where that is this task's or a mean over all; else by the task's primary one. Regularizers that need several tasks
    are left out. opened: the experiment's datasets.
    """
    alone = one_task(experiment, task)
    monitor = experiment.evaluation.monitor
    kept = Monitor(metric=monitor.metric if monitor.task in ("mean", task) else "primary")
    plain = alone.model_copy(
        update={
            "name": task,
            "tasks": {task: alone.tasks[task].model_copy(update={"weight": 1.0})},
            "sharing": ComponentConfig("hard"),
            "weighting": WeightingConfig("uniform"),
            "regularizers": [],
            "evaluation": alone.evaluation.model_copy(update={"monitor": kept}),
        }
    )
    entries = [replace(entry, as_task=False) for entry in alone.regularizers]
    return plain.model_copy(update={"regularizers": [entry for entry in entries if _works_alone(plain, entry, opened)]})


def relevant(axes: Sequence[Axis]) -> list[Axis]:
    """Those of the tuned axes that make a difference to a baseline."""
    return [axis for axis in axes if axis.key.partition(".")[0] not in DROPPED]


def _works_alone(plain: Experiment, entry: ComponentConfig, opened: Datasets) -> bool:
    """Whether a regularizer has anything to do where there is one task."""
    experiment = plain.model_copy(update={"regularizers": [entry]})
    try:
        add_regularizers(assemble(experiment, torch.device("meta"), {a: opened[a] for a in plain.datasets}))
    except ConfigError:
        return False
    return True
