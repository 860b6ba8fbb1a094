"""Rows of one pass over a source without random access, in the order of a shuffle buffer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from mtlcli.data.samplers.base import Rows, stable_seed
from mtlcli.data.splitting import Mask
from mtlcli.data.streams.shuffle_buffer import BufferOrder

Block = dict[str, np.ndarray[Any, Any]]  # name → values of n rows, [n, …]
Members = Callable[[Rows], Mask]  # numbers of rows → whether each belongs to the split
COUNTED = 2**20  # rows whose membership is computed at once
ROW = "row"  # name of the rows' numbers in a block


class RowSource(Protocol):
    """Rows in shards, each of which can only be read from its beginning.

    Attributes:
        sizes: number of rows of each shard.
    """

    sizes: Sequence[int]

    def read(self, shard: int, wanted: Callable[[int, int], Mask | None]) -> Iterator[Block]:
        """Read rows of a shard, in order.

        Args:
            shard: index of the shard.
            wanted: function of the first row of a chunk (in the shard) and the number of its rows, which returns the
                rows to encode; None for none of them.

        Returns:
            Blocks of the wanted rows.
        """
        ...


@dataclass(frozen=True)
class SplitRows:
    """Rows of a split in a source.

    Attributes:
        source: the source.
        members: membership of each row of the source in the split; None if all rows belong to it.
        sizes: number of the split's rows in each shard.
    """

    source: RowSource
    members: Members | None
    sizes: Sequence[int]

    @classmethod
    def of(cls, source: RowSource, members: Members | None = None) -> SplitRows:
        """Return the rows of a split, counted.

        Args:
            source: the source.
            members: membership in the split, see `SplitRows`.

        Returns:
            The rows.
        """
        if members is None:
            return cls(source, None, source.sizes)
        ends = np.cumsum(source.sizes).tolist()
        sizes = [_count(members, end - size, end) for size, end in zip(source.sizes, ends, strict=True)]
        return cls(source, members, sizes)

    def __len__(self) -> int:
        return sum(self.sizes)

    def arrivals(self, shards: Rows, held: Rows, since: int) -> Iterator[Block]:
        """Read the rows of a pass that arrive at certain times.

        Shards without such rows are not opened. Rows before them in their shard are read, but not encoded.

        Args:
            shards: the shards in the order of the pass.
            held: sorted times of arrival of the first rows to return.
            since: time from which on all rows are returned.

        Yields:
            Blocks of rows, in the order of their arrival.
        """
        time = 0
        for shard in shards.tolist():
            end = time + self.sizes[shard]
            if end > since or np.searchsorted(held, time) < np.searchsorted(held, end):
                yield from self.source.read(shard, self._wanted(shard, time, held, since))
            time = end

    def _wanted(self, shard: int, time: int, held: Rows, since: int) -> Callable[[int, int], Mask | None]:
        offset = sum(self.source.sizes[:shard])

        def wanted(first: int, amount: int) -> Mask | None:
            nonlocal time
            chosen = np.ones(amount, bool)
            if self.members is not None:
                chosen = self.members(np.arange(offset + first, offset + first + amount))
            times = time + chosen.cumsum() - 1
            time += int(chosen.sum())
            if time <= since:
                chosen &= np.isin(times, held)
            elif amount and times[0] < since:
                chosen &= (times >= since) | np.isin(times, held)
            return chosen if chosen.any() else None

        return wanted


def _count(members: Members, start: int, stop: int) -> int:
    parts = range(start, stop, COUNTED)
    return sum(int(members(np.arange(first, min(first + COUNTED, stop))).sum()) for first in parts)


class PassRows:
    """Rows of one pass in the order of a shuffle buffer, from a position on.

    Each pass has its own order of the shards and of the buffer, which depends on `seed` only.

    Args:
        rows: rows of the split.
        buffer: rows in the shuffle buffer; 0 for the stored order.
        seed: seed of the pass.
        start: position of the first row.
    """

    def __init__(self, rows: SplitRows, buffer: int, seed: tuple[int | str, ...], start: int = 0) -> None:
        self.order = BufferOrder(len(rows), buffer, (*seed, "buffer"))
        self.position = start
        self._store: Block = {}
        slots, filled = self.order.slots, len(rows) - self.order.slots
        shards = np.arange(len(rows.sizes))
        if slots:
            shards = np.random.default_rng(stable_seed(*seed, "shards")).permutation(shards)
        held = self.order.held(min(start, filled)) if slots else np.empty(0, np.int64)
        by_time = np.argsort(held)
        since = len(rows) if slots and start >= filled else slots + start
        self._arrivals = _Rows(rows.arrivals(shards, held[by_time], since))
        if slots:
            first = self._arrivals.take(slots)
            self._store = {name: np.empty_like(values) for name, values in first.items()}
            for name, values in first.items():
                self._store[name][by_time] = values

    def take(self, amount: int) -> Block:
        """Return the next rows.

        Args:
            amount: number of rows, at most those that the pass has left.

        Returns:
            Block of these rows.
        """
        start, stop = self.position, self.position + amount
        self.position = stop
        if not self.order.slots:
            return self._arrivals.take(amount)
        slots = self.order.drawn(start, stop)
        arriving = max(0, min(stop, self.order.size - self.order.slots) - start)
        block = {name: values[slots] for name, values in self._store.items()}
        if arriving:
            self._exchange(block, slots, self._arrivals.take(arriving))
        return block

    def _exchange(self, block: Block, slots: Rows, arrived: Block) -> None:
        """Put arrived rows into the first of the slots, and into `block` those that are emitted from there at once."""
        order = np.argsort(slots, kind="stable")
        repeated = slots[order[1:]] == slots[order[:-1]]
        later, earlier = order[1:][repeated], order[:-1][repeated]
        last = order[np.r_[~repeated, True]]
        last = last[last < len(arrived[ROW])]
        for name, values in arrived.items():
            block[name][later] = values[earlier]
            self._store[name][slots[last]] = values[last]


class _Rows:
    """Blocks of any size, cut into blocks of the wanted sizes."""

    def __init__(self, blocks: Iterator[Block]) -> None:
        self._blocks = blocks
        self._pending: list[Block] = []
        self._amount = 0

    def take(self, amount: int) -> Block:
        while self._amount < amount:
            block = next(self._blocks)
            self._pending.append(block)
            self._amount += len(block[ROW])
        whole = self._pending[0]
        if len(self._pending) > 1:
            whole = {name: np.concatenate([block[name] for block in self._pending]) for name in whole}
        self._amount -= amount
        self._pending = [{name: values[amount:] for name, values in whole.items()}]
        return {name: values[:amount] for name, values in whole.items()}
