"""Learning rate schedules: torch's and our own, by name."""

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
from mtlcli.training.assembly.optimizers import ABSOLUTE, scaled_rates
from mtlcli.training.run import Run

LENGTH_OPTIONS = {"CosineAnnealingLR": "T_max", "OneCycleLR": "total_steps", "PolynomialLR": "total_iters"}
# What a schedule keeps in the optimizer's groups, computed from the configuration and never changed by a step.
GROUP_KEYS = ("initial_lr", "max_lr", "min_lr", "base_momentum", "max_momentum")
# Schedulers without a `_get_closed_form_lr` whose rates depend on nothing but the number of their steps.
FUNCTIONS_OF_THE_COUNT = (OneCycleLR, CyclicLR, CosineAnnealingWarmRestarts, LambdaLR)
MOST_EPOCHS = 10_000  # to look ahead


class Schedule:
    """A scheduler, or none, stepped after each epoch or each optimizer step, as its `interval` says.

    The learning rates are a function of the number of steps the schedule has made: torch's closed form is used where
    there is one, instead of its recursion, which multiplies the rate of the step before. So a resumed run whose length
    has changed has the rates that a run of the new length has at this step. ReduceLROnPlateau and the schedulers of
    plugins without a closed form keep their state instead.
    """

    def __init__(self, scheduler: LRScheduler | None, per_step: bool) -> None:
        self.scheduler = scheduler
        self.per_step = per_step
        self._closed_form: Callable[[], list[float]] | None = getattr(scheduler, "_get_closed_form_lr", None)
        groups = [] if scheduler is None else scheduler.optimizer.param_groups
        self._own = [{key: group[key] for key in GROUP_KEYS if key in group} for group in groups]

    def after_step(self) -> None:
        """Call this after a step of the optimizer, but not after one that was skipped."""
        if self.per_step:
            self._advance()

    def after_epoch(self, monitored: float) -> bool:
        """Call this after an epoch in which the optimizer made a step.

        monitored: the epoch's monitored value, which ReduceLROnPlateau goes by. NaN, which it would count as an epoch
        without improvement, leaves the rate and the count of such epochs as they are.
        Returns whether there was a value to go by.
        """
        if isinstance(self.scheduler, ReduceLROnPlateau):
            if math.isnan(monitored):
                return False
            self.scheduler.step(monitored)
        elif not self.per_step:
            self._advance()
        return True

    def zero_epochs(self, done: int, epochs: int, steps: int) -> list[int]:
        """The numbers (from 1) of the epochs to come in which every learning rate is 0, so that they train nothing.

        done: epochs done. epochs: in the run. steps: optimizer steps in an epoch.
        """
        if self.scheduler is None or self._closed_form is None:
            return []
        now, length = self.scheduler.last_epoch, steps if self.per_step else 1
        found = []
        for epoch in range(done, min(epochs, done + MOST_EPOCHS)):
            first = now + (epoch - done) * length
            if not any([*self._rates(first), *self._rates(first + length - 1)]):  # then those in between are 0 too
                found.append(epoch + 1)
        self.scheduler.last_epoch = now
        return found

    def state_dict(self) -> dict[str, Any]:
        return {} if self.scheduler is None else dict(self.scheduler.state_dict())

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue after as many steps as `state` had made, with this run's length and rates.

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
            with warnings.catch_warnings(action="ignore"):  # that the optimizer has made no step in this process
                scheduler.step()
            scheduler._step_count = state["_step_count"]  # part of its state, so that a resumed run has the same bits
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
        """Set the learning rates of the schedule after `count` steps."""
        assert self.scheduler is not None
        for group, rate in zip(self.scheduler.optimizer.param_groups, self._rates(count), strict=True):
            group["lr"] = rate

    def _rates(self, count: int) -> list[float]:
        """The closed form after `count` steps, where the schedule then stands."""
        assert self.scheduler is not None and self._closed_form is not None
        self.scheduler.last_epoch = count
        return self._closed_form()


def make_schedule(run: Run, optimizer: Optimizer, steps: int | None, direction: str) -> Schedule:
    """The scheduler, with its length taken from the run where the YAML leaves it out, for all groups of parameters.

    steps: optimizer steps in an epoch; None where only the options are to be checked. direction: whether more (`max`)
    or less of the monitored value is better.
    Raises ValueError, TypeError or ArithmeticError, with torch's words, for options it refuses.
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
            raise ValueError("ReduceLROnPlateau goes by the monitored value, so it steps after epochs: interval: epoch")
        options["mode"] = direction
    options |= scaled_rates(run.experiment, optimizer)
    supplied: list[Any] = [optimizer]
    if _takes_length(entry.name):
        if not per_step:
            raise ValueError(f"{entry.name} counts steps of the optimizer: interval: step")
        supplied.append(length if steps is not None else sys.maxsize)
    scheduler = registry.schedulers[entry.name].target(*supplied, **options)
    if getattr(scheduler, "total_steps", length) < length:  # OneCycleLR refuses to go on after its end
        raise ValueError(f"its total_steps are {scheduler.total_steps}, and the run has {length}")
    return Schedule(scheduler, per_step)


def has_derived_length(experiment: Experiment) -> bool:
    """Return whether the YAML leaves out the scheduler's length, which is then the run's."""
    entry = experiment.scheduler
    if entry is None or entry.name not in LENGTH_OPTIONS:
        return entry is not None and _takes_length(entry.name)
    return entry.options.get(LENGTH_OPTIONS[entry.name]) is None and entry.options.get("epochs") is None


def _takes_length(name: str) -> bool:
    """Return whether a scheduler takes the run's number of steps, in addition to the optimizer."""
    return getattr(registry.schedulers[name].target, "takes_length", False)


def idle_note(schedule: Schedule, experiment: Experiment, done: int, steps: int) -> str | None:
    """A warning that names the epochs to come in which every learning rate is 0; None where there are none.

    done: epochs done. steps: optimizer steps in an epoch.
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
        f"{experiment.scheduler.name}: the learning rate is 0 in {where} of {epochs}, so nothing is trained there; "
        f"give the schedule the length of the run, or leave its length out"
    )


def _sets_rates(experiment: Experiment) -> bool:
    """Return whether the scheduler sets the learning rates regardless of the optimizer's."""
    return experiment.scheduler is not None and experiment.scheduler.name in ABSOLUTE


def shortfall_note(experiment: Experiment, updates: int, steps: int) -> str | None:
    """A remark that a schedule by the step won't reach its end; None where it will, or nearly.

    updates: optimizer steps made in an epoch. steps: those in the schedule's length.
    """
    entry = experiment.scheduler
    if entry is None or entry.interval != "step" or not has_derived_length(experiment) or updates >= 0.9 * steps:
        return None
    return (
        f"{entry.name}: {updates} of the epoch's {steps} steps changed the parameters, the others had no label or were "
        f"skipped; the schedule counts only those, so that it won't reach its end. interval: epoch would"
    )


def new_length_note(experiment: Experiment, before: int, done: int) -> str | None:
    """A remark that the schedule's end has moved with the run's; None where it hasn't, or nothing is left to train.

    before: epochs of the run when it was started. done: epochs done.
    """
    entry, epochs = experiment.scheduler, experiment.training.epochs
    if entry is None or epochs == before or done >= epochs or not has_derived_length(experiment):
        return None
    return f"{entry.name} now ends with epoch {epochs}, as in a run of that length from the start"
