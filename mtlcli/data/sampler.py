"""How the examples of several datasets make up the steps of an epoch."""

from __future__ import annotations

from abc import ABC, abstractmethod


class Sampler(ABC):
    """Base of the samplers. Each dataset is an endless stream of passes, every pass a fresh shuffle of all its examples.

    sizes: number of training examples of each dataset, in the experiment's order.
    batch_size: examples per dataset and step, on average over the datasets.

    A sampler is a pure function of the step, so that a run can start again at any step.
    """

    def __init__(self, sizes: list[int], batch_size: int) -> None:
        self.sizes = sizes
        self.batch_size = batch_size

    @property
    @abstractmethod
    def steps(self) -> int:
        """Steps (batches) in an epoch."""

    @property
    @abstractmethod
    def amounts(self) -> list[int]:
        """Examples of each dataset in an epoch."""

    @abstractmethod
    def take(self, step: int) -> list[tuple[int, int]]:
        """For each dataset the examples [start, stop) of its epoch's amount that step `step` takes (may be empty)."""
