"""Base class of schedules with a warm-up."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import ClassVar

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler


class Warmup(LRScheduler):
    """A linear increase of the learning rate from 0, followed by a decay to 0 at the end of the run.

    Args:
        optimizer: Its learning rates are those after the warm-up.
        steps: Optimizer steps of the run.
        warmup: Steps of the warm-up: a share of `steps` (below 1) or a number.

    Raises:
        ValueError: If the warm-up is longer than the run.
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
        """Return the factor of the learning rate at a share of the steps after the warm-up, 0 ≤ progress ≤ 1."""

    def factor(self, step: int) -> float:
        """Return the factor of the learning rate of a step, counted from 0."""
        if step < self.warmup:
            return step / self.warmup
        return self.decay(min(1.0, (step - self.warmup) / max(1, self.steps - self.warmup)))

    def get_lr(self) -> list[float]:  # type: ignore[override]
        """Return the learning rate of each parameter group."""
        return self._get_closed_form_lr()

    def _get_closed_form_lr(self) -> list[float]:
        return [float(rate) * self.factor(self.last_epoch) for rate in self.base_lrs]
