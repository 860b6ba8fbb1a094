"""Learning rate schedules: torch's and those registered here, by name."""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Callable, Mapping
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import (
    CosineAnnealingWarmRestarts,
    CyclicLR,
    LambdaLR,
    LRScheduler,
    OneCycleLR,
    ReduceLROnPlateau,
)

from mtlcli import registry
from mtlcli.config import Experiment
from mtlcli.training.run import Run

LENGTH_OPTIONS = {"CosineAnnealingLR": "T_max", "OneCycleLR": "total_steps", "PolynomialLR": "total_iters"}
# Keys that a schedule stores in the parameter groups, which follow from the configuration and never change.
GROUP_KEYS = ("initial_lr", "max_lr", "min_lr", "base_momentum", "max_momentum")
# Schedulers without `_get_closed_form_lr` whose rates depend only on the number of their steps.
FUNCTIONS_OF_THE_COUNT = (OneCycleLR, CyclicLR, CosineAnnealingWarmRestarts, LambdaLR)
# Options of schedulers that replace the learning rate of the optimizer.
ABSOLUTE = {"OneCycleLR": ("max_lr",), "CyclicLR": ("base_lr", "max_lr")}
MOST_EPOCHS = 10_000  # maximum look-ahead


class Schedule:
    """A scheduler, or none, that steps after each epoch or each optimizer step.

    The learning rates are a function of the number of steps that the schedule has made: torch's closed form is used
    where there is one, instead of its recursion, which multiplies the previous rate. A resumed run whose length has
    changed therefore has the rates of a run of the new length. ReduceLROnPlateau and schedulers of plugins without a
    closed form restore their state instead.

    Args:
        scheduler: The scheduler; None for constant rates.
        per_step: Whether it steps after each optimizer step instead of each epoch.
    """

    def __init__(self, scheduler: LRScheduler | None, per_step: bool) -> None:
        self.scheduler = scheduler
        self.per_step = per_step
        self._closed_form: Callable[[], list[float]] | None = getattr(scheduler, "_get_closed_form_lr", None)
        groups = [] if scheduler is None else scheduler.optimizer.param_groups
        self._own = [{key: group[key] for key in GROUP_KEYS if key in group} for group in groups]

    def after_step(self) -> None:
        """Advance after an optimizer step that was not skipped, if the schedule is per step."""
        if self.per_step:
            self._advance()

    def after_epoch(self, monitored: float) -> bool:
        """Advance after an epoch with at least one optimizer step, if the schedule is per epoch.

        Args:
            monitored: The monitored value of the epoch, for ReduceLROnPlateau. NaN, which it would count as an epoch
                without improvement, leaves its rate and its count unchanged.

        Returns:
            False if ReduceLROnPlateau had no value to use.
        """
        if isinstance(self.scheduler, ReduceLROnPlateau):
            if math.isnan(monitored):
                return False
            self.scheduler.step(monitored)
        elif not self.per_step:
            self._advance()
        return True

    def zero_epochs(self, done: int, epochs: int, steps: int) -> list[int]:
        """Find the remaining epochs in which all learning rates are 0.

        Args:
            done: Number of completed epochs.
            epochs: Number of epochs of the run.
            steps: Optimizer steps per epoch.

        Returns:
            Their numbers, from 1.
        """
        if self.scheduler is None or self._closed_form is None:
            return []
        now, length = self.scheduler.last_epoch, steps if self.per_step else 1
        zero = []
        for epoch in range(done, min(epochs, done + MOST_EPOCHS)):
            first = now + (epoch - done) * length
            if not any([*self._rates(first), *self._rates(first + length - 1)]):  # then those in between are 0 as well
                zero.append(epoch + 1)
        self.scheduler.last_epoch = now
        return zero

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the scheduler."""
        return {} if self.scheduler is None else dict(self.scheduler.state_dict())

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue after as many steps as in `state`, with the length and the rates of this run.

        The optimizer must have loaded its state before.
        """
        scheduler = self.scheduler
        if scheduler is None:
            return
        if isinstance(scheduler, ReduceLROnPlateau):
            scheduler.load_state_dict(dict(state))
            return
        for group, own in zip(scheduler.optimizer.param_groups, self._own, strict=True):
            group.update(own)
        count = state["last_epoch"]
        if self._closed_form is not None:
            self._set(count)
        elif isinstance(scheduler, FUNCTIONS_OF_THE_COUNT):
            if isinstance(scheduler, CosineAnnealingWarmRestarts):
                scheduler.T_cur, scheduler.T_i = state["T_cur"] - 1, state["T_i"]
            scheduler.last_epoch = min(count, getattr(scheduler, "total_steps", count)) - 1
            with warnings.catch_warnings(action="ignore"):  # the optimizer has made no step in this process
                scheduler.step()
            scheduler._step_count = state["_step_count"]  # part of its state: keeps a resumed run bit-identical
        else:
            scheduler.load_state_dict({key: value for key, value in state.items() if key != "base_lrs"})

    def _advance(self) -> None:
        if self.scheduler is None:
            return
        if self._closed_form is None:
            self.scheduler.step()
        else:
            self._set(self.scheduler.last_epoch + 1)

    def _set(self, count: int) -> None:
        """Set the learning rates to those after `count` steps."""
        assert self.scheduler is not None
        for group, rate in zip(self.scheduler.optimizer.param_groups, self._rates(count), strict=True):
            group["lr"] = rate

    def _rates(self, count: int) -> list[float]:
        """Return the closed form after `count` steps and move the schedule there."""
        assert self.scheduler is not None and self._closed_form is not None
        self.scheduler.last_epoch = count
        return self._closed_form()


def make_schedule(run: Run, optimizer: Optimizer, steps: int | None, direction: str) -> Schedule:
    """Create the schedule, with the length of the run unless the YAML sets one.

    Args:
        run: The run.
        optimizer: The optimizer, with all parameter groups.
        steps: Optimizer steps per epoch; None to check the options only.
        direction: `max` if higher monitored values are better, else `min`.

    Returns:
        The schedule.

    Raises:
        ValueError: With the message of torch, for options that it rejects, as TypeError and ArithmeticError are.
    """
    entry = run.experiment.scheduler
    if entry is None:
        return Schedule(None, per_step=False)
    per_step = entry.interval == "step"
    options = dict(entry.options)
    length = run.experiment.training.epochs * ((steps or 1) if per_step else 1)
    if entry.name in LENGTH_OPTIONS and has_derived_length(run.experiment):
        options[LENGTH_OPTIONS[entry.name]] = length
    if entry.name == "ReduceLROnPlateau":
        if per_step:
            raise ValueError("ReduceLROnPlateau depends on the monitored value of an epoch: set `interval: epoch`")
        options["mode"] = direction
    options |= _scaled_rates(run.experiment, optimizer)
    supplied: list[Any] = [optimizer]
    if _takes_length(entry.name):
        if not per_step:
            raise ValueError(f"{entry.name} counts optimizer steps: set `interval: step`")
        supplied.append(length if steps is not None else sys.maxsize)
    scheduler = registry.schedulers[entry.name].target(*supplied, **options)
    if getattr(scheduler, "total_steps", length) < length:  # OneCycleLR raises an error after its end
        raise ValueError(f"total_steps is {scheduler.total_steps}, but the run has {length} steps")
    return Schedule(scheduler, per_step)


def has_derived_length(experiment: Experiment) -> bool:
    """Return whether the length of the schedule is that of the run, because the YAML does not set it."""
    entry = experiment.scheduler
    if entry is None or entry.name not in LENGTH_OPTIONS:
        return entry is not None and _takes_length(entry.name)
    return entry.options.get(LENGTH_OPTIONS[entry.name]) is None and entry.options.get("epochs") is None


def _takes_length(name: str) -> bool:
    """Return whether a scheduler takes the number of steps of the run as a second positional argument."""
    return getattr(registry.schedulers[name].target, "takes_length", False)


def _scaled_rates(experiment: Experiment, optimizer: Optimizer) -> dict[str, list[float]]:
    """Return the options of the scheduler that are learning rates, scaled to each parameter group.

    With `{name: OneCycleLR, max_lr: 0.01}`, a group with a tenth of the optimizer's `lr` reaches 0.001. Lists, and
    experiments without `groups`, are left unchanged.
    """
    entry = experiment.scheduler
    if entry is None or not experiment.optimizer.groups:
        return {}
    given = {name: entry.options[name] for name in ABSOLUTE.get(entry.name, ())}
    rates = [group["lr"] / optimizer.defaults["lr"] for group in optimizer.param_groups]
    return {name: [value * rate for rate in rates] for name, value in given.items() if not isinstance(value, list)}


def idle_note(schedule: Schedule, experiment: Experiment, done: int, steps: int) -> str | None:
    """Return a warning that lists remaining epochs with learning rate 0.

    Args:
        schedule: The schedule.
        experiment: The experiment.
        done: Number of completed epochs.
        steps: Optimizer steps per epoch.

    Returns:
        The warning; None if there are no such epochs.
    """
    epochs = experiment.training.epochs
    own = [experiment.optimizer.options, *experiment.optimizer.groups.values()]
    if all(options.get("lr", 0) == 0 for options in own) and "lr" in own[0] and not _sets_rates(experiment):
        return "optimizer.lr is 0, so nothing is trained"
    idle = schedule.zero_epochs(done, epochs, steps)
    if not idle or experiment.scheduler is None:
        return None
    where = f"epochs {idle[0]} to {idle[-1]}" if len(idle) > 1 else f"epoch {idle[0]}"
    return (
        f"{experiment.scheduler.name}: the learning rate is 0 in {where} of {epochs}, which train nothing; set the "
        f"length of the schedule to that of the run, or remove it"
    )


def _sets_rates(experiment: Experiment) -> bool:
    """Return whether the scheduler sets the learning rates independently of the optimizer's."""
    return experiment.scheduler is not None and experiment.scheduler.name in ABSOLUTE


def shortfall_note(experiment: Experiment, updates: int, steps: int) -> str | None:
    """Return a note that a schedule per step will not reach its end.

    Args:
        experiment: The experiment.
        updates: Optimizer steps made in an epoch.
        steps: Steps per epoch in the length of the schedule.

    Returns:
        The note; None if the schedule nearly reaches its end.
    """
    entry = experiment.scheduler
    if entry is None or entry.interval != "step" or not has_derived_length(experiment) or updates >= 0.9 * steps:
        return None
    return (
        f"{entry.name}: only {updates} of the {steps} steps of the epoch changed the parameters; the others had no "
        f"label or were skipped. The schedule counts only these, and will not reach its end; `interval: epoch` would"
    )


def new_length_note(experiment: Experiment, before: int, done: int) -> str | None:
    """Return a note that the end of the schedule has moved with that of the run.

    Args:
        experiment: The experiment.
        before: Number of epochs when the run was started.
        done: Number of completed epochs.

    Returns:
        The note; None if the end has not moved.
    """
    entry, epochs = experiment.scheduler, experiment.training.epochs
    if entry is None or epochs == before or done >= epochs or not has_derived_length(experiment):
        return None
    return f"{entry.name} now ends at epoch {epochs}, as in a run of that length"
