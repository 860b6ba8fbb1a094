"""A callback that ends a run after a step as a crash would."""

from __future__ import annotations

from mtlcli.training.backward.base import StepResult
from mtlcli.training.callbacks import Callback
from mtlcli.training.state import TrainerState


class KilledError(KeyboardInterrupt):
    """An error that a run passes on unchanged; other exceptions of a callback are reported as an MtlError."""


class Killer(Callback):
    """Callback that ends the run after `steps` steps; never if `steps` is negative."""

    def __init__(self, steps: int) -> None:
        self.steps_left = steps

    def on_step_end(self, state: TrainerState, result: StepResult | None) -> None:
        self.steps_left -= 1
        if self.steps_left == 0:
            raise KilledError
