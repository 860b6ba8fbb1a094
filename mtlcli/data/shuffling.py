"""Order of a dataset's examples: an endless stream of shuffled passes with random access."""

from __future__ import annotations

import hashlib

import numpy as np

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
