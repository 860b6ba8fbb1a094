"""Early stopping: a run ends where the monitored value hasn't improved for `training.early_stopping` epochs."""

from __future__ import annotations

from mtlcli.config import Experiment
from mtlcli.training.state import Progress


def stopped_early(experiment: Experiment, progress: Progress) -> bool:
    """Return whether there has been no improvement for as many epochs as `training.early_stopping` says."""
    patience = experiment.training.early_stopping
    return patience is not None and progress.epoch - progress.best_epoch >= patience


def stopped_note(experiment: Experiment, progress: Progress) -> str | None:
    """A warning that a resumed run stays ended although its epochs aren't done; None where it does not."""
    training = experiment.training
    if progress.epoch >= training.epochs or not stopped_early(experiment, progress):
        return None
    return (
        f"the run stopped early after epoch {progress.epoch}, since epoch {progress.best_epoch} was the best and "
        f"training.early_stopping is {training.early_stopping}; training.epochs: {training.epochs} doesn't change "
        f"that. To continue, raise training.early_stopping above {progress.epoch - progress.best_epoch} or set it to "
        f"null"
    )
