"""Experiment → everything a run is made of."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from mtlcli.config import Experiment
from mtlcli.data.placement import Placement
from mtlcli.errors import ConfigError
from mtlcli.models.warm_start import find_mismatches, find_not_finite, join_problems
from mtlcli.specs import DatasetSpec
from mtlcli.training.assembly.assemble import add_regularizers, assemble, open_datasets, start_trunk, try_model
from mtlcli.training.assembly.check import check
from mtlcli.training.assembly.model_size import within_memory
from mtlcli.training.assembly.regularization import fit_ranks
from mtlcli.training.data_changes import data_records
from mtlcli.training.device import choose_device, prepare_device
from mtlcli.training.problems import Problems
from mtlcli.training.run import Run
from mtlcli.weighting.relation_matrix import Relations, read_relations

LOG = logging.getLogger("mtl")


def build(experiment: Experiment, given: Mapping[str, Any] | None = None) -> Run:
    """Everything the experiment names, checked, initialized by its seed, on its device.

    given: alias → data passed from Python, see `Dataset.attach`.
    Raises ConfigError for what can't work, before any data is read.
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
            "weighting %r sets the tasks' weights itself: their `weight:` is not used", experiment.weighting.name
        )
    return run


def rebuild(
    experiment: Experiment,
    payload: Mapping[str, Any],
    data: bool = True,
    prepare: bool = True,
    given: Mapping[str, Any] | None = None,
) -> Run:
    """The run of a checkpoint's payload, with its trained model. `experiment` may name other data or another device.

    It is to be evaluated or used, not trained: its weighting has no state. data: whether it is to be evaluated; no
    file of the datasets is looked at otherwise. prepare: whether threads, random generators and other settings of this
    process are set as for a training. given: alias → data passed from Python. ConfigError, before anything takes
    memory, where the parts don't fit each other, this machine, or the weights in the checkpoint, and where those aren't
    finite.
    """
    device = choose_device(experiment)
    stored = {
        alias: DatasetSpec.from_dict(spec, f"the checkpoint's specs.{alias}")
        for alias, spec in payload["specs"].items()
    }
    weights = payload["model"]
    with within_memory():
        # on meta nothing is drawn or fetched (pretrained weights) only to be overwritten
        records = data_records(payload) if data else None
        opened = open_datasets(experiment, stored, data=data, records=records, given=given)
        run = assemble(experiment, torch.device("meta"), opened)
        add_regularizers(run)
        fit_ranks(run.model, weights)
    if differing := find_mismatches(run.model.state_dict(), weights):
        raise ConfigError(f"the checkpoint holds another model: {join_problems(differing)}")
    if wrong := find_not_finite(weights):
        raise ConfigError(f"the checkpoint's model can't be used: {join_problems(wrong)}")
    run.model.load_state_dict(weights, assign=True)
    for note in run.notes() if data else ():
        LOG.warning("%s", note)
    if prepare:
        prepare_device(experiment, device)
    placement = Placement(device, experiment.training.loading, experiment.training.workers)
    return replace(run, device=device, placement=placement, model=run.model.to(device))


def self_contained(experiment: Experiment) -> Experiment:
    """The experiment with the numbers of its `weighting.matrix`, where that names a file.

    So the run's `config.yaml` gives the same run, and its checkpoints need nothing else, whatever becomes of the file.
    ConfigError for a file that can't be read, and where `weighting.from` isn't measured yet.
    """
    if experiment.weighting.name != "relation":
        return experiment
    matrix, measure = (experiment.weighting.options[key] for key in ("matrix", "from"))
    if matrix is None and measure is not None:
        message = (
            f"{measure!r} isn't measured yet. `mtl train` does that first; from Python, measure it "
            f"(`mtl relate --measure {measure}`) and give its relation.csv as `matrix`, in the place of `from`"
        )
        raise ConfigError(experiment.problem("weighting.from", message))
    if measure is not None or not isinstance(matrix, str):  # both is an error of the weighting's own
        return experiment
    with Problems(experiment).now("weighting.matrix"):
        relations = read_relations(matrix)
    return with_relations(experiment, relations)


def with_relations(experiment: Experiment, relations: Relations) -> Experiment:
    """The experiment with these numbers, {task: {task: number}}, for its `weighting.matrix`, and no `from`."""
    weighting = experiment.weighting
    options = {**weighting.options, "matrix": relations, "from": None}
    return experiment.model_copy(update={"weighting": replace(weighting, options=options)})
