"""Base of the schedules that begin with a warm-up."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import ClassVar

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler


class Warmup(LRScheduler):
    """A schedule that raises the learning rate linearly from 0, then lowers it to 0 at the end of the run.

    optimizer: whose groups' learning rates are those reached after the warm-up. steps: optimizer steps in the run.
    warmup: those of the warm-up, as a share (below 1) of `steps` or as a number. ValueError where the run is shorter.
    """

    takes_length: ClassVar[bool] = True  # the builder supplies `steps`

    def __init__(self, optimizer: Optimizer, steps: int, *, warmup: float) -> None:
        # a share such as 0.07 of 100 steps is 7, not the 8 that rounding errors make of it
        self.warmup = warmup if isinstance(warmup, int) else math.ceil(warmup * steps - 1e-9)
        self.steps = steps
        if self.warmup > steps:
            raise ValueError(f"a warm-up of {self.warmup} steps is longer than the run, which has {steps}")
        super().__init__(optimizer)

    @abstractmethod
    def decay(self, progress: float) -> float:
        """Factor on the learning rate after a part of the steps behind the warm-up, 0 ≤ progress ≤ 1."""

    def factor(self, step: int) -> float:
        """Factor on the learning rate of step `step`, counted from 0."""
        if step < self.warmup:
            return step / self.warmup
        return self.decay(min(1.0, (step - self.warmup) / max(1, self.steps - self.warmup)))

    def get_lr(self) -> list[float]:  # type: ignore[override]
        return self._get_closed_form_lr()

    def _get_closed_form_lr(self) -> list[float]:
        return [float(rate) * self.factor(self.last_epoch) for rate in self.base_lrs]
