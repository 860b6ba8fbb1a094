"""Remarks for the log on what a schedule does in a run."""

from __future__ import annotations

from mtlcli.config import Experiment
from mtlcli.training.parameter_groups import ABSOLUTE
from mtlcli.training.schedule import Schedule, has_derived_length


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
