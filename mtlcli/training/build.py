"""Experiment → everything a run is made of."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from mtlcli.config import Experiment
from mtlcli.data.placement import Placement
from mtlcli.models.warm_start import mismatches
from mtlcli.specs import DatasetSpec
from mtlcli.training.assemble import add_regularizers, assemble, open_datasets, start_trunk, try_model
from mtlcli.training.check import check
from mtlcli.training.compression import fit_ranks
from mtlcli.training.device import choose_device, prepare_device
from mtlcli.training.problems import Problems
from mtlcli.training.run import Run
from mtlcli.training.self_contained import self_contained

LOG = logging.getLogger("mtl")


def build(experiment: Experiment) -> Run:
    """Everything the experiment names, checked, initialized by its seed, on its device.

    Raises ConfigError for what can't work, before any data is read.
    """
    experiment = self_contained(experiment)
    device = choose_device(experiment)
    opened = open_datasets(experiment)
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


def rebuild(experiment: Experiment, payload: Mapping[str, Any]) -> Run:
    """The run of a checkpoint's payload, with its trained model. `experiment` may name other data or another device.

    It is to be evaluated or used, not trained: its weighting has no state. ConfigError where it doesn't fit the
    checkpoint.
    """
    device = choose_device(experiment)
    prepare_device(experiment, device)
    stored = {alias: DatasetSpec.from_dict(spec) for alias, spec in payload["specs"].items()}
    # on meta nothing is drawn or fetched (pretrained weights) only to be overwritten
    run = assemble(experiment, torch.device("meta"), open_datasets(experiment, stored))
    add_regularizers(run)
    fit_ranks(run.model, payload["model"])
    with Problems(experiment).now("trunk"):
        if differing := mismatches(run.model.state_dict(), payload["model"]):
            raise ValueError(f"the checkpoint holds another model: {'; '.join(differing)}")
        run.model.load_state_dict(payload["model"], assign=True)
    placement = Placement(device, experiment.training.loading, experiment.training.workers)
    return replace(run, device=device, placement=placement, model=run.model.to(device))
