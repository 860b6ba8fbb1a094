from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mtlcli.data.samplers.base import Rows, stable_seed
from mtlcli.data.splitting import Mask
from mtlcli.data.streams import shuffle_buffer
from mtlcli.data.streams.row_stream import ROW, Block, Members, PassRows, SplitRows
from mtlcli.data.streams.shuffle_buffer import BufferOrder

SEED = ("pass", 0)


class Source:
    """Numbered rows in shards, read in chunks of three; counts what is read."""

    def __init__(self, sizes: list[int]) -> None:
        self.sizes = sizes
        self.opened: list[int] = []
        self.encoded: list[int] = []

    def read(self, shard: int, wanted: Callable[[int, int], Mask | None]) -> Iterator[Block]:
        self.opened.append(shard)
        for first in range(0, self.sizes[shard], 3):
            chosen = wanted(first, min(3, self.sizes[shard] - first))
            if chosen is not None:
                rows = sum(self.sizes[:shard]) + first + np.flatnonzero(chosen)
                self.encoded += rows.tolist()
                yield {ROW: rows, "x": 10.0 * rows}


def members(rows: Rows) -> Mask:
    chosen: Mask = rows % 3 != 1
    return chosen


def shuffle_by_definition(sizes: list[int], belongs: Members | None, buffer: int, draws: int) -> list[int]:
    """Shuffle rows by a buffer as it is defined, one row at a time."""
    starts = np.cumsum([0, *sizes])
    shards = np.random.default_rng(stable_seed(*SEED, "shards")).permutation(len(sizes))
    rows = [row for shard in shards for row in range(starts[shard], starts[shard + 1])]
    rows = [row for row in rows if belongs is None or belongs(np.array([row]))[0]]
    slots, emitted = rows[:buffer], []
    for at, row in enumerate(rows[buffer:]):
        part, place = divmod(at, draws)
        generator = np.random.default_rng(stable_seed(*SEED, "buffer", part))
        slot = generator.integers(0, len(slots), draws)[place]
        emitted.append(slots[slot])
        slots[slot] = row
    rest = np.random.default_rng(stable_seed(*SEED, "buffer", "rest")).permutation(len(slots))
    return emitted + [slots[slot] for slot in rest]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    sizes=st.lists(st.integers(0, 9), min_size=1, max_size=6).filter(sum),
    buffer=st.integers(1, 60),
    drawn=st.booleans(),
    data=st.data(),
)
def test_rows_from_any_position_are_those_of_the_shuffle_buffer(
    monkeypatch: pytest.MonkeyPatch, sizes: list[int], buffer: int, drawn: bool, data: st.DataObject
) -> None:
    monkeypatch.setattr(shuffle_buffer, "DRAWS", 5)
    source, belongs = Source(sizes), members if drawn else None
    split = SplitRows.of(source, belongs)
    expected = shuffle_by_definition(sizes, belongs, buffer, 5)
    assert len(split) == len(expected)
    start = data.draw(st.integers(0, len(expected)))
    reader = PassRows(split, buffer, SEED, start) if expected else None
    taken: list[int] = []
    while reader is not None and len(taken) < len(expected) - start:
        block = reader.take(data.draw(st.integers(1, min(7, len(expected) - start - len(taken)))))
        taken += block[ROW].tolist()
        assert (block["x"] == 10.0 * block[ROW]).all()
    assert taken == expected[start:]
    assert len(source.encoded) == len(set(source.encoded))  # no row is encoded twice


def test_without_a_buffer_rows_keep_their_order() -> None:
    split = SplitRows.of(Source([4, 0, 5]), members)
    assert PassRows(split, 0, SEED).take(6)[ROW].tolist() == [0, 2, 3, 5, 6, 8]


def test_shards_that_are_not_needed_are_not_opened() -> None:
    source = Source([100] * 50)
    PassRows(SplitRows.of(source), 10, SEED, 2500).take(5)
    assert len(source.opened) < 5 and len(source.encoded) < 30


@pytest.mark.parametrize("buffer", [1, 7, 1000])
def test_a_pass_has_every_row_once(buffer: int) -> None:
    order = BufferOrder(500, buffer, SEED)
    held, emitted = order.held(0), []
    for at in range(500):
        slot = int(order.drawn(at, at + 1)[0])
        emitted.append(int(held[slot]))
        held[slot] = at + order.slots
    assert sorted(emitted) == list(range(500)) and (emitted == list(range(500))) == (buffer == 1)


def test_a_large_buffer_gives_uniform_permutations() -> None:
    first = [int(BufferOrder(4, 9, ("x", seed)).drawn(0, 1)[0]) for seed in range(400)]
    counts = np.bincount(first, minlength=4)
    assert (np.abs(counts - 100) < 5 * np.sqrt(400 * 0.25 * 0.75)).all()  # five standard deviations
