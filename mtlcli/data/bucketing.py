"""Batches of texts of similar length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mtlcli.data.samplers.base import Rows, stable_seed


@dataclass(frozen=True)
class Window:
    """Consecutive batches of an epoch whose texts are sorted by length together.

    Attributes:
        chunks: positions [start, stop) of each batch in the epoch, one after the other.
        seed: seed of the order of the batches.
    """

    chunks: Sequence[tuple[int, int]]
    seed: tuple[int | str, ...]

    @property
    def start(self) -> int:
        """First position."""
        return self.chunks[0][0]

    @property
    def stop(self) -> int:
        """Position after the last one."""
        return self.chunks[-1][1]

    def arrange(self, lengths: Rows) -> Rows:
        """Assign the examples of the window to its batches, whose sizes don't change.

        The examples are sorted by length and cut into batches, and the batches are shuffled. Examples of the same
        length stay in their random order, so that a batch differs from one epoch to the next.

        Args:
            lengths: length of the example at each position of the window, [n].

        Returns:
            The example at each position after the arrangement, int64 [n], each in [0, n).
        """
        by_length, arranged, first = np.argsort(lengths, kind="stable"), np.empty(len(lengths), np.int64), 0
        for index in np.random.default_rng(stable_seed(*self.seed)).permutation(len(self.chunks)).tolist():
            start, stop = self.chunks[index]
            arranged[start - self.start : stop - self.start] = by_length[first : first + stop - start]
            first += stop - start
        return arranged


def make_windows(chunks: Sequence[tuple[int, int]], size: int, seed: int, alias: str, start: int) -> list[Window]:
    """Divide the batches of an epoch into windows.

    Args:
        chunks: positions [start, stop) of each batch of the epoch.
        size: number of batches in a window.
        seed: seed of the order of the examples.
        alias: alias of the dataset.
        start: first position of the epoch in the endless stream of passes, which identifies the epoch.

    Returns:
        The windows, a function of the arguments.
    """
    return [
        Window(chunks[first : first + size], ("bucket", seed, alias, start, first))
        for first in range(0, len(chunks), size)
    ]
