"""When a checkpoint is due within an epoch."""

from __future__ import annotations

import time
from collections.abc import Callable


class Rhythm:
    """`checkpoint.every`: `epoch`, `500 steps` or `10 minutes`.

    clock: seconds, never going back.
    """

    def __init__(self, every: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock, self.saved = clock, clock()
        amount, _, unit = every.partition(" ")
        self.steps = int(amount) if unit.startswith("step") else None
        self.seconds = 60 * int(amount) if unit.startswith("minute") else None

    def due(self, step: int) -> bool:
        """Whether to save after `step` steps of the epoch."""
        if self.steps is not None:
            return step % self.steps == 0
        if self.seconds is not None and self.clock() - self.saved >= self.seconds:
            self.saved = self.clock()
            return True
        return False
