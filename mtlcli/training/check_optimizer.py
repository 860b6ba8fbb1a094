"""Check of the options of the optimizer and the scheduler, which reports each problem at its own key."""

from __future__ import annotations

import math
import warnings
from dataclasses import replace
from typing import Any

from torch.optim import Optimizer

from mtlcli import registry
from mtlcli.blame import blaming
from mtlcli.config.options import options_of
from mtlcli.training.optimization import make_optimizer
from mtlcli.training.problems import Problems
from mtlcli.training.run import Run
from mtlcli.training.schedule import Schedule, make_schedule

MOST_STEPS = 100  # of a schedule that are tried


def check_optimizer(run: Run, problems: Problems) -> None:
    """Collect what the optimizer, its groups and the scheduler refuse of their options, without a step of training."""
    made: list[Optimizer] = []
    with problems.at("optimizer"):
        options = run.experiment.optimizer.options
        blaming(lambda **options: _optimizer(_with(run, "optimizer", options, groups={})), options, sole=True)
        made.append(_optimizer(run))
    if (entry := run.experiment.scheduler) is None:
        return
    with problems.at("scheduler"):
        # a schedule can be judged with any optimizer
        optimizer = made[0] if made else _optimizer(_with(run, "optimizer", {}, groups={}))
        known = options_of(registry.schedulers[entry.name]).values()
        required = [option.name for option in known if option.required]
        blaming(
            lambda **options: _try_schedule(_with(run, "scheduler", options), optimizer),
            entry.options,
            required,
            sole=True,
        )


def _optimizer(run: Run) -> Optimizer:
    return make_optimizer(run, light=True)


def _with(run: Run, key: str, options: dict[str, Any], **more: Any) -> Run:
    """The run with other options for its optimizer or scheduler."""
    entry = replace(getattr(run.experiment, key), options=options, **more)
    return replace(run, experiment=run.experiment.model_copy(update={key: entry}))


def _try_schedule(run: Run, optimizer: Optimizer) -> None:
    """Make some steps of the schedule. Raises what torch raises, and ValueError for a rate below 0 or not finite."""
    before = [dict(group) for group in optimizer.param_groups]
    try:
        schedule = make_schedule(run, optimizer, steps=None, direction="max")
        for step in range(1, min(run.experiment.training.epochs, MOST_STEPS) + 1):
            _check_rates(optimizer, before, step)
            with warnings.catch_warnings(action="ignore"):  # the optimizer has made no step, and never will
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
            raise ValueError(f"makes the learning rate {rate:g} at step {step} of the schedule")
