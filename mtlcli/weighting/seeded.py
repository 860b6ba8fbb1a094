"""Weightings that draw random numbers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mtlcli.weighting.weighting import WeightedTask, Weighting


class Seeded(Weighting):
    """Mix-in with a generator of the method's own, seeded by the run and saved with the method's state.

    generator: on the CPU, so that every device sees the same numbers.
    """

    def __init__(self, tasks: Sequence[WeightedTask]) -> None:
        super().__init__(tasks)
        self.generator = torch.Generator()
        self.generator.manual_seed(0)

    def seed(self, seed: int) -> None:
        """Start the sequence of numbers that belongs to this seed."""
        self.generator.manual_seed(seed)

    def get_extra_state(self) -> Tensor:
        """The generator's state, for state_dict."""
        return self.generator.get_state()

    def set_extra_state(self, state: Tensor) -> None:
        """Put the generator where `get_extra_state` found it."""
        self.generator.set_state(state.cpu())
