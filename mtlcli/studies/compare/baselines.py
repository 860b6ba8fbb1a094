"""Single-task baselines of a comparison: each task alone, trained like the methods."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from mtlcli.config import ComponentConfig, Experiment, Monitor, WeightingConfig
from mtlcli.errors import ConfigError
from mtlcli.studies.compare.axes import Axis
from mtlcli.studies.runs import keep_task
from mtlcli.training.assembly.assemble import add_regularizers, assemble
from mtlcli.training.assembly.data_checks import Datasets
from mtlcli.training.assembly.stems import fix_stem_shapes

MULTI_TASK_SECTIONS = ("sharing", "weighting", "regularizers")  # not tuned for baselines


def make_baseline(experiment: Experiment, task: str, opened: Datasets) -> Experiment:
    """Derive the experiment of a task's baseline: the task alone, with `hard` sharing and its loss as the objective.

    The training is that of the experiment. The best epoch is selected by the experiment's monitored metric if it is one
    of this task or a mean over all tasks, else by the task's primary metric. Regularizers that need several tasks are
    left out.

    Args:
        experiment: the experiment with all tasks.
        task: the task.
        opened: the datasets of the experiment.

    Returns:
        The experiment of the baseline.
    """
    if experiment.stems:
        experiment = fix_stem_shapes(experiment, {alias: spec for alias, (_, spec) in opened.items()})
    single = keep_task(experiment, task)
    monitor = experiment.evaluation.monitor
    kept = Monitor(metric=monitor.metric if monitor.task in ("mean", task) else "primary")
    plain = single.model_copy(
        update={
            "name": task,
            "tasks": {task: single.tasks[task].model_copy(update={"weight": 1.0})},
            "sharing": ComponentConfig("hard"),
            "weighting": WeightingConfig("uniform"),
            "regularizers": [],
            "evaluation": single.evaluation.model_copy(update={"monitor": kept}),
        }
    )
    entries = [replace(entry, as_task=False) for entry in single.regularizers]
    kept_entries = [entry for entry in entries if _works_alone(plain, entry, opened)]
    return plain.model_copy(update={"regularizers": kept_entries})


def select_baseline_axes(axes: Sequence[Axis]) -> list[Axis]:
    """Select the tuned axes that apply to baselines.

    Args:
        axes: axes of the `--tune` grid.

    Returns:
        Those whose keys are not of `sharing`, `weighting` or `regularizers`.
    """
    return [axis for axis in axes if axis.key.partition(".")[0] not in MULTI_TASK_SECTIONS]


def _works_alone(plain: Experiment, entry: ComponentConfig, opened: Datasets) -> bool:
    """Return whether a regularizer can be built for a single task."""
    experiment = plain.model_copy(update={"regularizers": [entry]})
    try:
        add_regularizers(assemble(experiment, torch.device("meta"), {a: opened[a] for a in plain.datasets}))
    except ConfigError:
        return False
    return True
