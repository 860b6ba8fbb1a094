"""An experiment cut down to one of its tasks."""

from __future__ import annotations

from dataclasses import replace

from mtlcli.config import Experiment


def one_task(experiment: Experiment, task: str) -> Experiment:
    """The same with that task and its dataset alone."""
    alias = experiment.tasks[task].dataset
    others = experiment.tasks.keys() - {task}
    groups = {name: group for name, group in experiment.optimizer.groups.items() if name not in others}
    return experiment.model_copy(
        update={
            "datasets": {alias: experiment.datasets[alias]},
            "tasks": {task: experiment.tasks[task]},
            "optimizer": replace(experiment.optimizer, groups=groups),
        }
    )
