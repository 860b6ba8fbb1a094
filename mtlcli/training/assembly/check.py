"""Check of a whole experiment without training, on the device `meta`."""

from __future__ import annotations

import math
import warnings
from dataclasses import replace
from typing import Any

import torch
from torch.optim import Optimizer

from mtlcli import registry
from mtlcli.config import Experiment
from mtlcli.config.locations import Problems
from mtlcli.config.options import options_of
from mtlcli.error_origin import blame_options
from mtlcli.training.assembly.assemble import add_regularizers, assemble, start_trunk
from mtlcli.training.assembly.data_checks import (
    SAMPLED,
    Datasets,
    check_batch_norm,
    check_files,
    nominal_sampler,
    open_datasets,
)
from mtlcli.training.assembly.model_size import within_memory
from mtlcli.training.assembly.optimizers import make_optimizer
from mtlcli.training.assembly.schedules import Schedule, make_schedule
from mtlcli.training.assembly.trial import is_small, try_model_parts, try_plugins
from mtlcli.training.device import choose_device
from mtlcli.training.evaluate import Monitor
from mtlcli.training.run import Run


def check_experiment(experiment: Experiment) -> list[str]:
    """Check that an experiment can work.

    Of datasets that are read one example at a time, at most 1,000 files each are checked.

    Args:
        experiment: The experiment.

    Returns:
        Notes for the user (see `Run.notes`).

    Raises:
        ConfigError: Lists all problems.
    """
    choose_device(experiment)
    opened = open_datasets(experiment)
    run = check(experiment, opened)
    check_files(experiment, opened, SAMPLED)
    return run.notes()


def check(experiment: Experiment, opened: Datasets) -> Run:
    """Build a run on the device `meta` and try its parts.

    Args:
        experiment: The experiment.
        opened: The datasets, from `open_datasets`.

    Returns:
        The run, on `meta`.

    Raises:
        ConfigError: Lists all problems.
    """
    with within_memory():
        return _check(experiment, opened)


def _check(experiment: Experiment, opened: Datasets) -> Run:
    run = assemble(experiment, torch.device("meta"), opened)
    problems = Problems(experiment)
    for alias, (dataset, spec) in opened.items():
        with problems.at(f"datasets.{alias}.augment"):
            dataset.check_augment(spec)
    with (
        problems.at("trunk.init_from"),
        warnings.catch_warnings(action="ignore"),
    ):  # tensors on meta have no memory to copy to
        start_trunk(run)
    _try_out(run, opened, problems)
    check_optimizer(run, problems)
    with problems.at("evaluation.monitor"):
        Monitor(experiment, run.kinds)
    for split in dict.fromkeys(["train", experiment.evaluation.split]):
        with problems.at("evaluation.split"):
            if split not in run.splits():
                raise ValueError(
                    f"not every dataset has a split {split!r}; all have: {', '.join(run.splits()) or 'none'}. Name "
                    f"another in evaluation.split, or set training examples aside with the dataset option `val: 0.1`"
                )
    problems.check()
    check_batch_norm(run, nominal_sampler(run))
    return run


def _try_out(run: Run, opened: Datasets, problems: Problems) -> None:
    """Add the regularizers and run one step on blank examples.

    A failure on `meta`, where tensors have no values, counts only if it also occurs on the CPU. For a model that is too
    large for the CPU, failures that mention `meta` are ignored.
    """
    trial = _tried(run)
    if trial.collected and is_small(run):
        with torch.random.fork_rng(devices=[]):
            trial = _tried(assemble(run.experiment, torch.device("cpu"), opened))
    elif trial.collected:
        trial.collected = [problem for problem in trial.collected if "meta" not in problem.message]
    try_plugins(run, trial)
    problems.collected += trial.collected


def _tried(run: Run) -> Problems:
    """Return the problems of a step on blank examples, without regularizers and then with them."""
    problems = Problems(run.experiment)
    try_model_parts(run, problems)
    if not problems.collected and run.experiment.regularizers:
        with problems.at("regularizers"):
            add_regularizers(run)
            try_model_parts(run, problems)
    return problems


MOST_STEPS = 100  # maximum number of steps that are tried


def check_optimizer(run: Run, problems: Problems) -> None:
    """Collect the options that the optimizer, its groups or the scheduler reject."""
    created: list[Optimizer] = []
    with problems.at("optimizer"):
        options = run.experiment.optimizer.options
        blame_options(lambda **options: _optimizer(_with(run, "optimizer", options, groups={})), options, sole=True)
        created.append(_optimizer(run))
    if (entry := run.experiment.scheduler) is None:
        return
    with problems.at("scheduler"):
        # a schedule can be judged with any optimizer
        optimizer = created[0] if created else _optimizer(_with(run, "optimizer", {}, groups={}))
        accepted = options_of(registry.schedulers[entry.name]).values()
        required = [option.name for option in accepted if option.required]
        blame_options(
            lambda **options: _try_schedule(_with(run, "scheduler", options), optimizer),
            entry.options,
            required,
            sole=True,
        )


def _optimizer(run: Run) -> Optimizer:
    return make_optimizer(run, light=True)


def _with(run: Run, key: str, options: dict[str, Any], **more: Any) -> Run:
    """Return the run with other options of its optimizer or scheduler."""
    entry = replace(getattr(run.experiment, key), options=options, **more)
    return replace(run, experiment=run.experiment.model_copy(update={key: entry}))


def _try_schedule(run: Run, optimizer: Optimizer) -> None:
    """Advance the schedule by some steps; ValueError for a learning rate that is negative or not finite."""
    before = [dict(group) for group in optimizer.param_groups]
    try:
        schedule = make_schedule(run, optimizer, steps=None, direction="max")
        for step in range(1, min(run.experiment.training.epochs, MOST_STEPS) + 1):
            _check_rates(optimizer, before, step)
            with warnings.catch_warnings(action="ignore"):  # the optimizer makes no steps here
                _advance(schedule)
    finally:
        for group, old in zip(optimizer.param_groups, before, strict=True):
            group.clear()
            group.update(old)


def _advance(schedule: Schedule) -> None:
    if schedule.per_step:
        schedule.after_step()
    else:
        schedule.after_epoch(0.0)


def _check_rates(optimizer: Optimizer, before: list[dict[str, Any]], step: int) -> None:
    for group, first in zip(optimizer.param_groups, before, strict=True):
        rate, largest = float(group["lr"]), abs(float(first["lr"]))
        if not math.isfinite(rate) or rate < -1e-6 * largest:  # a cosine may end at a rounding error below 0
            raise ValueError(f"gives a learning rate of {rate:g} at step {step} of the schedule")
