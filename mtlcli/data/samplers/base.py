"""Base classes of samplers, limits of an epoch, and the order of examples: all are functions of seed and epoch."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar, TypedDict

import numpy as np


class Sampler(ABC):
    """Base class of samplers.

    Each dataset is an endless stream of passes, each a new shuffle of all its examples. A sampler is a pure function of
    the step, so that a run can resume at any step.

    Args:
        sizes: number of training examples of each dataset, in the experiment's order.
        batch_size: examples per dataset and step, on average over the datasets.

    Attributes:
        takes_aliases: whether the constructor has a third positional parameter, the aliases of the datasets.
        smallest: minimum number of examples that a step takes from a dataset, unless it takes none or the dataset has
            fewer. It is 1, or 2 for models with batch norm, which fails on a single example; this needs a `batch_size`
            greater than 1.

    Raises:
        ValueError: a dataset is empty, or `batch_size` is less than 1.
    """

    takes_aliases: ClassVar[bool] = False
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
        """Number of examples of each dataset in an epoch."""

    @abstractmethod
    def take(self, step: int) -> list[tuple[int, int]]:
        """Return the positions that a step takes from each dataset.

        Args:
            step: step of the epoch, from 0.

        Returns:
            For each dataset [start, stop) in its amount of the epoch; possibly empty.
        """

    def most_chunks(self, amount: int) -> int:
        """Return the maximum number of chunks of at least `smallest` examples in `amount` examples, at least 1."""
        return max(1, amount // min(self.smallest, self.batch_size))


class EveryStepSampler(Sampler):
    """Base class of samplers that take examples from every dataset in each step.

    With N examples in D datasets, an epoch has S = ⌈N / (D · batch_size)⌉ steps and N examples. The amounts of the
    datasets are proportional to `pull()`, rounded by the largest-remainder method, and at least 1. Each amount is
    divided into S chunks whose sizes differ by at most one, so that no step is a small remainder. If these chunks would
    be smaller than `smallest`, there are fewer of them, spread evenly over the steps. S is lower if no dataset has
    enough examples for S chunks.

    Args:
        sizes: number of training examples of each dataset, in the experiment's order.
        batch_size: examples per dataset and step, on average over the datasets.
    """

    def __init__(self, sizes: list[int], batch_size: int) -> None:
        super().__init__(sizes, batch_size)
        self._amounts = [max(1, amount) for amount in apportion(sum(sizes), self.pull())]

    @abstractmethod
    def pull(self) -> list[float]:
        """Return the relative amount of each dataset, up to a common factor."""

    @property
    def steps(self) -> int:
        """Steps (batches) in an epoch."""
        wanted = -(-sum(self.sizes) // (len(self.sizes) * self.batch_size))
        return min(wanted, self.most_chunks(max(self._amounts)))

    @property
    def amounts(self) -> list[int]:
        """Number of examples of each dataset in an epoch."""
        return self._amounts

    def take(self, step: int) -> list[tuple[int, int]]:
        """Return for each dataset the positions [start, stop) of its amount that a step takes."""
        steps = self.steps
        return [chunk(amount, min(steps, self.most_chunks(amount)), step, steps) for amount in self._amounts]


MakeSampler = Callable[[list[int]], Sampler]


def limit_sampler(make: MakeSampler, sizes: Sequence[int], limits: Sequence[int | None]) -> Sampler:
    """Create a sampler whose epoch has at most a given number of examples of each dataset.

    The sampler is created for the sizes up to the limits. If it repeats a dataset beyond its limit, all sizes are
    reduced by the same factor, which shortens the epoch and keeps the proportions.

    Args:
        make: Creates the sampler for given sizes.
        sizes: Number of training examples of each dataset.
        limits: Maximum number of examples of each dataset in an epoch; None for no limit.

    Returns:
        The sampler.

    Raises:
        ValueError: The limits are too small for the proportions.
    """
    capped = [size if limit is None else min(size, limit) for size, limit in zip(sizes, limits, strict=True)]
    sampler, factor = make(capped), 1.0
    while (excess := _excess(sampler, limits)) > 1:
        factor /= excess
        scaled = [max(1, round(size * factor)) for size in capped]
        sampler = make(scaled)
        if max(scaled) == 1 and _excess(sampler, limits) > 1:
            raise ValueError("`limit` is too small: an epoch has at least one example of each dataset, on average")
    return sampler


def _excess(sampler: Sampler, limits: Sequence[int | None]) -> float:
    """Return the largest ratio of a dataset's amount in an epoch to its limit."""
    return max(n / limit if limit else 0.0 for n, limit in zip(sampler.amounts, limits, strict=True))


class EpochAmount(TypedDict):
    """Examples that an epoch takes from a dataset.

    Attributes:
        examples: number of examples in an epoch, repeated ones included.
        size: number of training examples of the dataset.
        passes: `examples` divided by `size`.
    """

    examples: int
    size: int
    passes: float


def epoch_amounts(sampler: Sampler, sizes: Mapping[str, int]) -> dict[str, EpochAmount]:
    """Return what an epoch takes from each dataset.

    Args:
        sampler: the sampler, for the datasets in this order.
        sizes: alias → number of training examples.

    Returns:
        Alias → amount.
    """
    pairs = zip(sizes.items(), sampler.amounts, strict=True)
    return {alias: EpochAmount(examples=n, size=size, passes=n / size) for (alias, size), n in pairs}


def chunk(amount: int, chunks: int, index: int, steps: int | None = None) -> tuple[int, int]:
    """Return the positions [start, stop) that a step takes if examples are divided into chunks of nearly equal size.

    Args:
        amount: number of examples.
        chunks: number of chunks; their sizes differ by at most one.
        index: the step.
        steps: number of steps over which the chunks are spread evenly; by default one chunk per step.

    Returns:
        The positions; empty for a step without a chunk.
    """
    steps = steps or chunks
    return index * chunks // steps * amount // chunks, (index + 1) * chunks // steps * amount // chunks


def apportion(total: int, pull: list[float]) -> list[int]:
    """Divide `total` whole examples in proportion to `pull`, by the largest-remainder method.

    Args:
        total: number of examples.
        pull: relative amounts.

    Returns:
        The amounts, whose sum is `total`.
    """
    shares = total * np.asarray(pull, dtype=np.float64) / np.sum(pull)
    whole = np.floor(shares + 1e-9).astype(np.int64)
    left = total - int(whole.sum())
    whole[np.argsort(whole - shares, kind="stable")[:left]] += 1
    return [int(amount) for amount in whole]


Rows = np.ndarray[tuple[int], np.dtype[np.int64]]  # indices of examples, or of rows of a table


def stable_seed(*parts: int | str) -> int:
    """Derive a seed that is the same in every process and on every machine (unlike Python's `hash`).

    Args:
        *parts: values that identify the use of the seed.

    Returns:
        A seed in [0, 2^63).
    """
    digest = hashlib.blake2b("/".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


class ShuffledEpochs:
    """Endless stream of passes over a dataset's examples, each in a new random order.

    The order of pass k depends only on (seed, alias, k); torch's global random state is not used.

    Args:
        size: number of examples.
        seed: seed of the order.
        alias: alias of the dataset.
    """

    def __init__(self, size: int, seed: int, alias: str) -> None:
        self.size, self.seed, self.alias = size, seed, alias

    def order(self, start: int, stop: int) -> Rows:
        """Return the examples at positions [start, stop) of the stream: int64 [stop - start], each in [0, size)."""
        first, last = start // self.size, max(start, stop - 1) // self.size
        passes = np.concatenate([self._shuffled(k) for k in range(first, last + 1)])
        return passes[start - first * self.size : stop - first * self.size]

    def number(self, start: int, stop: int) -> Rows:
        """Return the pass that each of the positions [start, stop) belongs to: int64 [stop - start]."""
        return np.arange(start, stop) // self.size

    def _shuffled(self, k: int) -> Rows:
        return np.random.default_rng(stable_seed("pass", self.seed, self.alias, k)).permutation(self.size)
