"""The order of a dataset's examples: an endless stream of shuffled passes, the same wherever it is entered."""

from __future__ import annotations

import hashlib

import numpy as np

Rows = np.ndarray[tuple[int], np.dtype[np.int64]]


def stable_seed(*parts: int | str) -> int:
    """A seed that is the same in every process and on every machine (Python's `hash` is not)."""
    digest = hashlib.blake2b("/".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


class ShuffledEpochs:
    """A dataset's endless stream: pass after pass over its `size` examples, each in an order of its own.

    The order of pass k depends on (seed, alias, k) alone; torch's global random numbers are left as they are.
    """

    def __init__(self, size: int, seed: int, alias: str) -> None:
        self.size, self.seed, self.alias = size, seed, alias

    def order(self, start: int, stop: int) -> Rows:
        """The examples at positions [start, stop) of the stream: int64 [stop - start], each in [0, size)."""
        first, last = start // self.size, max(start, stop - 1) // self.size
        passes = np.concatenate([self._shuffled(k) for k in range(first, last + 1)])
        return passes[start - first * self.size : stop - first * self.size]

    def number(self, start: int, stop: int) -> Rows:
        """The number of the pass that each of the positions [start, stop) lies in: int64 [stop - start]."""
        return np.arange(start, stop) // self.size

    def _shuffled(self, k: int) -> Rows:
        return np.random.default_rng(stable_seed("pass", self.seed, self.alias, k)).permutation(self.size)
