"""Weightings that draw random numbers from a generator of their own."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mtlcli.weighting.base import GramianWeighting, WeightedTask, Weighting


class SeededMixin(Weighting):
    """Mix-in for methods with random numbers: a generator that is seeded by the run and saved with the state.

    List it before the base class: `class GradDrop(SeededMixin, JacobianWeighting)`.

    Args:
        tasks: The T tasks, see `Weighting`.

    Attributes:
        generator: Random generator on the CPU, so that all devices see the same numbers.
    """

    generator: torch.Generator

    def __init__(self, tasks: Sequence[WeightedTask | str]) -> None:
        super().__init__(tasks)
        self.generator = torch.Generator()
        self.generator.manual_seed(0)

    def seed(self, seed: int) -> None:
        """Seed the generator.

        Args:
            seed: Seed of the run.
        """
        self.generator.manual_seed(seed)

    def get_extra_state(self) -> Tensor:
        """Return the state of the generator, which `state_dict` includes."""
        return self.generator.get_state()

    def set_extra_state(self, state: Tensor) -> None:
        """Restore the generator.

        Args:
            state: State from `get_extra_state`.
        """
        self.generator.set_state(state.cpu())


class SequentialProjection(SeededMixin, GramianWeighting):
    """Base class of methods that adjust each gradient against those of the other tasks, in random order (PCGrad).

    Args:
        tasks: The T tasks, see `Weighting`.
    """

    def __init__(self, tasks: Sequence[WeightedTask | str]) -> None:
        super().__init__(tasks)
        self._keys: Tensor | None = None

    def start_step(self) -> None:
        """Draw the orders of the step, as [T, T] random keys that are sorted by row; a task is last in its own row."""
        keys = torch.rand(len(self.tasks), len(self.tasks), generator=self.generator, dtype=torch.float64)
        self._keys = keys.fill_diagonal_(2.0)

    def get_orders(self, present: Sequence[int]) -> Tensor:
        """Return the order in which each present task meets the others in this step.

        Absent tasks do not change the order of those present.

        Args:
            present: Indices of the t present tasks, ascending.

        Returns:
            [t−1, t] on the CPU: column i lists the positions in `present` of the other tasks.
        """
        assert self._keys is not None, "call start_step() before each step: it draws the orders"
        keys = self._keys
        if len(present) < len(self.tasks):
            index = torch.tensor(present)
            keys = keys[index[:, None], index]
        return keys.argsort(1)[:, :-1].T.contiguous()
