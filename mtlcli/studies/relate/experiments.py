"""The experiments a study trains: one trunk shared by all tasks, or by one alone."""

from __future__ import annotations

from dataclasses import dataclass

from mtlcli.config import ComponentConfig, Evaluation, Experiment, Monitor, WeightingConfig
from mtlcli.studies.runs import one_task


def canonical(experiment: Experiment, epochs: int) -> Experiment:
    """The experiment that the measures are of: what doesn't belong to the tasks and their trunk is taken out of it.

    Tasks and datasets stand in the order of their names, so that no order in the YAML changes a number: one trunk
    (`hard` sharing), the plain sum of the losses, no regularizers, at most `epochs` epochs. `round_robin` sampling
    becomes `uniform`: with one dataset a step, there are never two tasks' gradients to compare.
    """
    tasks = {
        name: task.model_copy(update={"weight": 1.0, "description": ""})
        for name, task in sorted(experiment.tasks.items())
    }
    training = experiment.training
    sampling = training.sampling if training.sampling.name != "round_robin" else ComponentConfig("uniform")
    changed = {
        "epochs": min(training.epochs, epochs),
        "early_stopping": None,
        "compile": False,  # a run this short doesn't earn it back
        "sampling": sampling,
    }
    return experiment.model_copy(
        update={
            "name": "joint",
            "datasets": dict(sorted(experiment.datasets.items())),
            "tasks": tasks,
            "sharing": ComponentConfig("hard"),
            "weighting": WeightingConfig("uniform"),
            "regularizers": [],
            "training": training.model_copy(update=changed),
            "evaluation": _monitoring(experiment.evaluation, "loss"),  # which all kinds have
        }
    )


def single_task(joint: Experiment, task: str, seed: int) -> Experiment:
    """The baseline of one task: the same with that task and its dataset alone.

    seed: of the run. Neither the task's name nor its place goes into anything random, so copies of a task have
    baselines that are the same to the last bit.
    """
    update = {"name": task, "seed": seed, "evaluation": _monitoring(joint.evaluation, "primary")}
    return one_task(joint, task).model_copy(update=update)


def _monitoring(evaluation: Evaluation, metric: str) -> Evaluation:
    return evaluation.model_copy(update={"monitor": Monitor(metric=metric)})


@dataclass(frozen=True)
class Budget:
    """What a study of relations may cost.

    seeds: single-task baselines of each task. epochs: the most that any run trains. networks: the most that the tasks
    may be divided among. jobs: baselines trained at the same time, each in a process of its own where there are
    several. encoder: the sentence encoder of `semantic`; None: TF-IDF.
    """

    seeds: int = 3
    epochs: int = 3
    networks: int = 2
    jobs: int = 1
    encoder: str | None = None
