"""Columns of many different texts, stored in Arrow arrays."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, overload

import numpy as np

from mtlcli.data.formats.cells import BLOCK, Cells, Mask
from mtlcli.data.formats.numerals import Floats, Notation
from mtlcli.data.samplers.base import Rows


class Texts(Sequence[str | None]):
    """Sequence of texts in a chunked Arrow array, which become Python objects only while they are used.

    Args:
        chunks: `pyarrow.ChunkedArray` of strings.
    """

    def __init__(self, chunks: Any) -> None:
        self.chunks = chunks

    def __len__(self) -> int:
        return len(self.chunks)

    @overload
    def __getitem__(self, at: int) -> str | None: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[str | None]: ...
    def __getitem__(self, at: int | slice) -> str | Sequence[str | None] | None:
        if isinstance(at, slice):
            start, stop, step = at.indices(len(self))
            texts: list[str | None] = self.chunks.slice(start, max(0, stop - start)).to_pylist()
            return texts[::step]
        value: str | None = self.chunks[at].as_py()
        return value

    def __iter__(self) -> Iterator[str | None]:
        for block in self.blocks():
            yield from block

    def __contains__(self, value: object) -> bool:
        return bool(self.chunks.null_count) if value is None else any(value in block for block in self.blocks())

    def blocks(self) -> Iterator[list[str | None]]:
        """Yield the texts as lists of moderate length."""
        for start in range(0, len(self), BLOCK):
            yield self.chunks.slice(start, BLOCK).to_pylist()


class TextCells(Cells):
    """Cells of a column of many different texts; a position is a row.

    Args:
        chunks: `pyarrow.ChunkedArray` of strings, null for a missing value.
    """

    def __init__(self, chunks: Any) -> None:
        super().__init__(Texts(chunks), None)
        self.chunks = chunks

    def _parse(self, notation: Notation, column: str) -> tuple[Floats, list[int]]:
        assert isinstance(self.values, Texts)
        numbers, wrong, start = [np.empty(0)], [], 0
        for block in self.values.blocks():
            parsed, others = notation.numbers(block, column)
            numbers.append(parsed)
            wrong += [start + at for at in others]
            start += len(block)
        return np.concatenate(numbers), wrong

    def texts(self, positions: Sequence[int] | Rows) -> list[str | None]:  # noqa: D102
        if not len(positions):
            return []
        first, last = int(positions[0]), int(positions[-1])
        if 0 <= last - first < 4 * len(positions):  # converting some more texts takes less time than one by one
            block = self.chunks.slice(first, last + 1 - first).to_pylist()
            return [block[int(at) - first] for at in positions]
        return super().texts(positions)

    def missing_rows(self) -> Mask:  # noqa: D102
        rows: Mask = np.concatenate([np.zeros(0, bool), *map(find_nulls, self.chunks.chunks)])
        return rows

    def select(self, rows: Rows) -> Cells:  # noqa: D102
        return TextCells(self.chunks.take(rows))

    def slice(self, start: int, stop: int) -> Cells:  # noqa: D102
        return TextCells(self.chunks.slice(start, stop - start))

    def count_present(self) -> int:  # noqa: D102
        return len(self) - int(self.chunks.null_count)

    def all_differ(self) -> bool:  # noqa: D102
        return not self.chunks.null_count and len(self.chunks.unique()) == len(self)


def find_nulls(array: Any) -> Mask:
    """Return the mask of an Arrow array's nulls, [N]."""
    bitmap = array.buffers()[0]
    if bitmap is None or not array.null_count:
        return np.zeros(len(array), bool)
    bits = np.unpackbits(np.frombuffer(bitmap, np.uint8), bitorder="little")
    nulls: Mask = bits[array.offset : array.offset + len(array)] == 0
    return nulls


def to_numpy(array: Any, dtype: Any) -> Any:
    """View the values of an Arrow array of numbers; those of nulls are undefined.

    `pyarrow.Array.to_numpy` would import pandas.

    Args:
        array: the array.
        dtype: NumPy's type of its values.

    Returns:
        [N], read-only.
    """
    return np.frombuffer(array.buffers()[1], dtype)[array.offset : array.offset + len(array)]
