"""Construction of a run from an experiment."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from mtlcli.config import Experiment
from mtlcli.config.locations import Problems
from mtlcli.data.placement import Placement
from mtlcli.errors import ConfigError
from mtlcli.models.warm_start import find_mismatches, find_not_finite, join_problems
from mtlcli.specs import DatasetSpec
from mtlcli.training.assembly.assemble import add_regularizers, assemble, start_trunk, try_model
from mtlcli.training.assembly.check import check
from mtlcli.training.assembly.data_checks import open_datasets
from mtlcli.training.assembly.model_size import within_memory
from mtlcli.training.assembly.regularization import fit_ranks
from mtlcli.training.data_changes import data_records
from mtlcli.training.device import choose_device, prepare_device
from mtlcli.training.run import Run
from mtlcli.weighting.relation_matrix import Relations, read_relations

LOG = logging.getLogger("mtl")


def build(experiment: Experiment, given: Mapping[str, Any] | None = None) -> Run:
    """Build the run of an experiment: checked, initialized from its seed, on its device.

    The model is built twice: first on the device `meta`, where it takes no memory, to find errors before data is read.

    Args:
        experiment: The validated experiment.
        given: alias → data passed from Python (see `Dataset.attach`).

    Returns:
        The run, ready to be trained.

    Raises:
        ConfigError: Lists everything that can't work.
    """
    experiment = self_contained(experiment)
    device = choose_device(experiment)
    opened = open_datasets(experiment, given=given)
    check(experiment, opened)
    prepare_device(experiment, device)
    run = assemble(experiment, device, opened)
    start_trunk(run)
    try_model(run)
    add_regularizers(run)
    if not run.weighting.uses_task_weights and any(task.weight != 1 for task in experiment.tasks.values()):
        LOG.warning(
            "weighting %r determines the task weights itself: `weight:` of the tasks is ignored",
            experiment.weighting.name,
        )
    return run


def rebuild(
    experiment: Experiment,
    payload: Mapping[str, Any],
    data: bool = True,
    prepare: bool = True,
    given: Mapping[str, Any] | None = None,
) -> Run:
    """Build the run of a checkpoint, with its trained model, for evaluation or export.

    The run can't be trained: its weighting has no state.

    Args:
        experiment: The experiment of the checkpoint, possibly with other data or another device.
        payload: Content of the checkpoint.
        data: Whether the run will be evaluated. If False, no file of the datasets is accessed.
        prepare: Whether to set threads, random generators and other process-wide settings as for training.
        given: alias → data passed from Python (see `Dataset.attach`).

    Returns:
        The run.

    Raises:
        ConfigError: If the parts fit neither each other, the machine nor the weights, or if weights are not finite. It
            is raised before memory is allocated.
    """
    device = choose_device(experiment)
    stored = {
        alias: DatasetSpec.from_dict(spec, f"the checkpoint's specs.{alias}")
        for alias, spec in payload["specs"].items()
    }
    weights = payload["model"]
    with within_memory():
        # on meta, nothing is initialized or downloaded only to be overwritten
        records = data_records(payload) if data else None
        opened = open_datasets(experiment, stored, data=data, records=records, given=given)
        run = assemble(experiment, torch.device("meta"), opened)
        add_regularizers(run)
        fit_ranks(run.model, weights)
    if differing := find_mismatches(run.model.state_dict(), weights):
        raise ConfigError(f"the checkpoint holds a different model: {join_problems(differing)}")
    if wrong := find_not_finite(weights):
        raise ConfigError(f"the model in the checkpoint can't be used: {join_problems(wrong)}")
    run.model.load_state_dict(weights, assign=True)
    for note in run.notes() if data else ():
        LOG.warning("%s", note)
    if prepare:
        prepare_device(experiment, device)
    placement = Placement(device, experiment.training.loading, experiment.training.workers)
    return replace(run, device=device, placement=placement, model=run.model.to(device))


def self_contained(experiment: Experiment) -> Experiment:
    """Return the experiment with the numbers of its `weighting.matrix` in place of a file name.

    The `config.yaml` and the checkpoints of the run then do not depend on the file.

    Args:
        experiment: The experiment.

    Returns:
        The experiment, changed if its weighting names a file.

    Raises:
        ConfigError: If the file can't be read, or if `weighting.from` has not been measured.
    """
    if experiment.weighting.name != "relation":
        return experiment
    matrix, measure = (experiment.weighting.options[key] for key in ("matrix", "from"))
    if matrix is None and measure is not None:
        message = (
            f"{measure!r} has not been measured. `mtl train` measures it first; from Python, run "
            f"`mtl relate --measure {measure}` and set `matrix` to its relation.csv instead of `from`"
        )
        raise ConfigError(experiment.problem("weighting.from", message))
    if measure is not None or not isinstance(matrix, str):  # the weighting reports an error if both are set
        return experiment
    with Problems(experiment).now("weighting.matrix"):
        relations = read_relations(matrix)
    return with_relations(experiment, relations)


def with_relations(experiment: Experiment, relations: Relations) -> Experiment:
    """Return the experiment with these relations, {task: {task: number}}, as its `weighting.matrix`."""
    weighting = experiment.weighting
    options = {**weighting.options, "matrix": relations, "from": None}
    return experiment.model_copy(update={"weighting": replace(weighting, options=options)})
