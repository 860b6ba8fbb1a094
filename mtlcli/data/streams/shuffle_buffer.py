"""Order of a shuffle buffer: a pure function of seed and pass, from any position."""

from __future__ import annotations

import numpy as np

from mtlcli.data.samplers.base import Rows, stable_seed

DRAWS = 2**16  # slots drawn by one generator, so that a pass can start at any position


class BufferOrder:
    """Order in which a buffer of B slots emits the rows of a pass that arrive one after the other.

    The first B rows fill the slots. Each further row is put into a random slot, and the row that was there is emitted.
    After the last row has arrived, the remaining rows are emitted in random order. With B ≥ N this is a permutation of
    all rows. A row is identified by its time of arrival, 0 to N − 1.

    The slots depend on the seed only, so that the buffer's content at any position can be computed without reading a
    row, in O(position) time and O(B) memory.

    Args:
        size: number N of rows in the pass.
        buffer: number of slots; 0 emits the rows as they arrive.
        seed: seed of the pass.
    """

    def __init__(self, size: int, buffer: int, seed: tuple[int | str, ...]) -> None:
        self.size, self.seed = size, seed
        self.slots = min(buffer, size)
        self._chunk: tuple[int, Rows] | None = None

    def held(self, position: int) -> Rows:
        """Compute the rows in the slots before the emission at a position, int64 [B], each by its time of arrival.

        Args:
            position: number of rows that have been emitted; at most N − B.

        Returns:
            The rows, by slot.
        """
        held = np.arange(self.slots)
        for start in range(0, position, DRAWS):
            stop = min(position, start + DRAWS)
            # the latest row that was put into a slot is the one that is there
            np.maximum.at(held, self.drawn(start, stop), np.arange(self.slots + start, self.slots + stop))
        return held

    def drawn(self, start: int, stop: int) -> Rows:
        """Compute the slots from which the rows at positions [start, stop) are emitted, int64 [stop - start].

        Args:
            start: first position.
            stop: last position + 1; at most N.

        Returns:
            The slots.
        """
        filled = self.size - self.slots
        end = min(stop, filled)
        slots = [
            self._draw(k)[max(0, start - k * DRAWS) : end - k * DRAWS] for k in range(start // DRAWS, -(-end // DRAWS))
        ]
        if stop > filled:
            slots.append(self._generator("rest").permutation(self.slots)[max(0, start - filled) : stop - filled])
        return np.concatenate(slots) if slots else np.empty(0, np.int64)

    def _draw(self, k: int) -> Rows:
        if self._chunk is None or self._chunk[0] != k:
            self._chunk = k, self._generator(k).integers(0, self.slots, DRAWS)
        return self._chunk[1]

    def _generator(self, part: int | str) -> np.random.Generator:
        return np.random.default_rng(stable_seed(*self.seed, part))
