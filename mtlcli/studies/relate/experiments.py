"""Experiments that a study of relations trains: a joint run of all tasks, and single-task baselines."""

from __future__ import annotations

from dataclasses import dataclass

from mtlcli.config import ComponentConfig, Evaluation, Experiment, Monitor, SamplingConfig, WeightingConfig
from mtlcli.studies.runs import keep_task
from mtlcli.training.assembly.stems import fix_stem_shapes


@dataclass(frozen=True)
class Budget:
    """Size of a study of relations.

    Attributes:
        seeds: number of single-task baselines of each task.
        epochs: largest number of epochs of each run.
        networks: largest number of networks that the tasks are divided among.
        jobs: number of baselines that are trained at the same time, in processes if more than one.
        encoder: sentence encoder of `semantic`; None: TF-IDF.
    """

    seeds: int = 3
    epochs: int = 3
    networks: int = 2
    jobs: int = 1
    encoder: str | None = None


def make_joint(experiment: Experiment, epochs: int) -> Experiment:
    """Derive the experiment of the joint run: all tasks on one shared trunk.

    It has `hard` sharing, the sum of the losses as the objective, no regularizers, no early stopping and no `after`.
    Tasks and datasets are sorted by name, so that their order in the YAML file does not affect the measures.
    `round_robin` sampling is replaced by `uniform`, because with one dataset per step the gradients of tasks on
    different datasets could not be compared.

    Args:
        experiment: the experiment.
        epochs: largest number of epochs.

    Returns:
        The experiment of the joint run.
    """
    if experiment.stems:
        experiment = fix_stem_shapes(experiment)
    tasks = {
        name: task.model_copy(update={"weight": 1.0, "description": "", "after": None, "stop": None})
        for name, task in sorted(experiment.tasks.items())
    }
    training = experiment.training
    sampling = training.sampling
    if sampling.name == "round_robin":
        sampling = SamplingConfig("uniform", limit=sampling.limit)
    changed = {
        "epochs": min(training.epochs, epochs),
        "early_stopping": None,
        "compile": False,  # takes longer than it saves in a run this short
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
            "evaluation": _with_monitor(experiment.evaluation, "loss"),  # which all kinds have
        }
    )


def make_single_task(joint: Experiment, task: str, seed: int) -> Experiment:
    """Derive the experiment of a task's baseline from that of the joint run.

    Random numbers depend neither on the name nor on the position of the task, so copies of a task have bit-identical
    baselines.

    Args:
        joint: the experiment of the joint run.
        task: the task.
        seed: seed of the baseline.

    Returns:
        The experiment of the baseline.
    """
    update = {"name": task, "seed": seed, "evaluation": _with_monitor(joint.evaluation, "primary")}
    return keep_task(joint, task).model_copy(update=update)


def _with_monitor(evaluation: Evaluation, metric: str) -> Evaluation:
    return evaluation.model_copy(update={"monitor": Monitor(metric=metric)})
