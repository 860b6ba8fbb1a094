"""How the examples of several datasets make up the steps of an epoch."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np


class Sampler(ABC):
    """Base of the samplers. Each dataset is an endless stream of passes, each a fresh shuffle of all its examples.

    sizes: number of training examples of each dataset, in the experiment's order.
    batch_size: examples per dataset and step, on average over the datasets.
    smallest: the fewest examples that a step takes of a dataset, if it takes any and the dataset has so many. It is 1,
        or 2 where the model has batch norm, which can't do with one. A larger `batch_size` than 1 is needed for that.

    A sampler is a pure function of the step, so that a run can start again at any step. ValueError for an empty
    dataset.
    """

    smallest = 1

    def __init__(self, sizes: list[int], batch_size: int) -> None:
        if not sizes or min(sizes) < 1 or batch_size < 1:
            raise ValueError(
                f"needs examples in every dataset and a batch size of at least 1, got {sizes}, {batch_size}"
            )
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

    def most_chunks(self, amount: int) -> int:
        """The number of chunks of at least `smallest` examples that `amount` examples can be cut into, at least 1."""
        return max(1, amount // min(self.smallest, self.batch_size))


class EveryStepSampler(Sampler):
    """Base of the samplers in which each step takes from every dataset, and an epoch is as many examples as there are.

    With N examples in D datasets an epoch has S = ⌈N / (D · batch_size)⌉ steps and N examples. A dataset's share of
    them, its amount, is cut into S chunks that differ by at most one example, so that no step is a small remainder;
    into fewer, evenly spread over the steps, where the chunks would have less than `smallest` examples. S is lower
    where no dataset has enough for S chunks. The amounts are proportional to `pull()`, rounded by largest remainder.
    """

    def __init__(self, sizes: list[int], batch_size: int) -> None:
        super().__init__(sizes, batch_size)
        self._amounts = apportion(sum(sizes), self.pull())

    @abstractmethod
    def pull(self) -> list[float]:
        """How strongly each dataset is drawn from, up to a common factor."""

    @property
    def steps(self) -> int:
        wanted = -(-sum(self.sizes) // (len(self.sizes) * self.batch_size))
        return min(wanted, self.most_chunks(max(self._amounts)))

    @property
    def amounts(self) -> list[int]:
        return self._amounts

    def take(self, step: int) -> list[tuple[int, int]]:
        steps = self.steps
        return [chunk(amount, min(steps, self.most_chunks(amount)), step, steps) for amount in self._amounts]


def chunk(amount: int, chunks: int, index: int, steps: int | None = None) -> tuple[int, int]:
    """[start, stop) of what step `index` takes where `amount` examples are cut into `chunks` of nearly equal size.

    The chunks differ by at most one example. steps: those that the chunks are spread over, evenly; one each by default.
    """
    steps = steps or chunks
    return index * chunks // steps * amount // chunks, (index + 1) * chunks // steps * amount // chunks


def apportion(total: int, pull: list[float]) -> list[int]:
    """`total` whole examples shared out in proportion to `pull`, by largest remainder."""
    shares = total * np.asarray(pull, dtype=np.float64) / np.sum(pull)
    whole = np.floor(shares + 1e-9).astype(np.int64)
    left = total - int(whole.sum())
    whole[np.argsort(whole - shares, kind="stable")[:left]] += 1
    return [int(amount) for amount in whole]
