"""A single step of a run without any output file, for `mtl train --dry-run`."""

from __future__ import annotations

from typing import Any

import torch

from mtlcli.data.loader import Loader
from mtlcli.data.samplers.base import epoch_amounts
from mtlcli.training.data_report import data_report
from mtlcli.training.run import Run
from mtlcli.training.step import Step


def rehearse(run: Run, loader: Loader, step: Step, steps_per_epoch: int) -> dict[str, Any]:
    """Make one step, which changes the model, and describe the run.

    Args:
        run: the run.
        loader: batches of the training split.
        step: makes an optimizer step.
        steps_per_epoch: number of optimizer steps in an epoch.

    Returns:
        The description, as plain data.
    """
    run.model.train()
    step([next(loader.epoch(0))])
    return {
        "name": run.experiment.name,
        "device": str(run.device),
        "threads": torch.get_num_threads(),
        "examples": run.sizes(),
        "data": data_report(run, fetch=True),
        "loading": loader.route,
        "epochs": run.experiment.training.epochs,
        "steps_per_epoch": steps_per_epoch,
        "examples_per_epoch": epoch_amounts(loader.sampler, run.sizes()["train"]),
        "parameters": run.model.count_parameters(),
        "weighting": {"name": run.experiment.weighting.name, **step.backward.describe()},
    }
