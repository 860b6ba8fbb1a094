"""Runs that end in the middle, as a crash would end them."""

from __future__ import annotations

from collections.abc import Mapping

from mtlcli.training.observer import Observer


class KilledError(KeyboardInterrupt):
    """Passes through a run as it is, where another exception of a caller's code would be reported as an MtlError."""


class Killer(Observer):
    """Ends the run after so many steps; never, where there are none left from the beginning."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    def step(self, examples: int, losses: Mapping[str, float]) -> None:
        self.left -= 1
        if self.left == 0:
            raise KilledError
