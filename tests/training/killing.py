"""Runs that end in the middle, as a crash ends them."""

from __future__ import annotations

from mtlcli.training.backward.base import StepResult
from mtlcli.training.callbacks import Callback
from mtlcli.training.state import TrainerState


class KilledError(KeyboardInterrupt):
    """An error that a run passes on unchanged; other exceptions of a callback are reported as an MtlError."""


class Killer(Callback):
    """Ends the run after `steps` steps; never, if that is negative."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    def on_step_end(self, state: TrainerState, result: StepResult | None) -> None:
        self.left -= 1
        if self.left == 0:
            raise KilledError
