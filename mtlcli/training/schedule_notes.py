"""Remarks for the log on what a schedule does in a run."""

from __future__ import annotations

from mtlcli.config import Experiment
from mtlcli.training.schedule import Schedule, has_derived_length


def idle_note(schedule: Schedule, experiment: Experiment, done: int, steps: int) -> str | None:
    """A warning that names the epochs to come in which every learning rate is 0; None where there are none.

    done: epochs done. steps: optimizer steps in an epoch.
    """
    epochs = experiment.training.epochs
    idle = schedule.zero_epochs(done, epochs, steps)
    if not idle or experiment.scheduler is None:
        return None
    where = f"epochs {idle[0]} to {idle[-1]}" if len(idle) > 1 else f"epoch {idle[0]}"
    return (
        f"{experiment.scheduler.name}: the learning rate is 0 in {where} of {epochs}, so nothing is trained there; "
        f"give the schedule the length of the run, or leave its length out"
    )


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


def new_length_note(experiment: Experiment, before: int) -> str | None:
    """A remark that the schedule's end has moved with the run's; None where it hasn't.

    before: epochs of the run when it was started.
    """
    entry, epochs = experiment.scheduler, experiment.training.epochs
    if entry is None or epochs == before or not has_derived_length(experiment):
        return None
    return f"{entry.name} now ends with epoch {epochs}, as in a run of that length from the start"
