"""Cells of a table's column: distinct values, or the numbers of the rows."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from mtlcli.data.formats.numerals import Floats, Notation
from mtlcli.data.samplers.base import Rows

Index = np.ndarray[tuple[int], np.dtype[Any]]  # of unsigned or signed integers
Mask = np.ndarray[tuple[int], np.dtype[np.bool_]]
BLOCK = 2**16  # values of a long sequence that are converted at once


class Cells:
    """Cells of one column.

    A position is one of `values`. Most columns have fewer distinct values than rows, and each value once. The values of
    a column with very many distinct ones are those of the rows.

    Args:
        values: the values, None for a missing one.
        index: [N], position of each row's value; None if position and row are the same.

    Attributes:
        index: as above.
    """

    def __init__(self, values: Sequence[str | None], index: Index | None) -> None:
        self._values, self.index = values, index
        self._numbers: dict[tuple[object, ...], tuple[Floats, list[int]]] = {}

    @property
    def values(self) -> Sequence[str | None]:
        """The value at each position, None for a missing one."""
        return self._values

    def __len__(self) -> int:
        return len(self.values) if self.index is None else len(self.index)

    @cached_property
    def has_missing(self) -> bool:
        """True if a value is missing."""
        return None in self.values

    def numbers(self, notation: Notation, column: str = "") -> tuple[Floats, list[int]]:
        """Parse the values as numbers, or as dates if the column is one of dates; see `Notation.numbers`.

        Args:
            notation: notation of numbers and dates.
            column: name of the column.

        Returns:
            float64 values, NaN for missing values and those that are not numbers; and the positions of the latter.
        """
        declared = dict(notation.dates).get(column), dict(notation.booleans).get(column)
        key = (notation.decimal, notation.thousands, *declared)
        if key not in self._numbers:
            self._numbers[key] = self._parse(notation, column)
        return self._numbers[key]

    def _parse(self, notation: Notation, column: str) -> tuple[Floats, list[int]]:
        return notation.numbers(self.values, column)

    def spread(self, of_values: Any, rows: Rows | slice | None = None) -> Any:
        """Give each row what belongs to its value.

        Args:
            of_values: array, [positions].
            rows: rows to return; None for all.

        Returns:
            The array, [rows].
        """
        if self.index is None:
            return of_values if rows is None else of_values[rows]
        return of_values[self.index if rows is None else self.index[rows]]

    def value(self, row: int) -> str | None:
        """Return the value in a row."""
        return self.values[row if self.index is None else int(self.index[row])]

    def texts(self, positions: Sequence[int] | Rows) -> list[str | None]:
        """Return the values at certain positions, in increasing order."""
        values = self.values
        return [values[int(at)] for at in positions]

    def missing_rows(self) -> Mask:
        """Return the mask of the rows without a value, [N]."""
        missing = np.fromiter((value is None for value in self.values), bool, len(self.values))
        mask: Mask = self.spread(missing)
        return mask

    def select(self, rows: Rows) -> Cells:
        """Return the cells of some rows."""
        if self.index is None:
            return Cells([self.values[row] for row in rows.tolist()], None)
        return Cells(self.values, self.index[rows])

    def slice(self, start: int, stop: int) -> Cells:
        """Return the cells of the rows from `start` to `stop`, with the values that occur in them."""
        if self.index is None:
            return Cells(self.values[start:stop], None)
        used, index = np.unique(self.index[start:stop], return_inverse=True)
        return Cells(tuple(self.values[int(at)] for at in used), index)

    def list_values(self, rows: Rows) -> set[str]:
        """Return the distinct values in some rows, without the missing one."""
        values = self.values
        if self.index is None and len(rows) == len(values):
            return {value for value in values if value is not None}
        return {value for position in self.positions(rows) if (value := values[int(position)]) is not None}

    def positions(self, rows: Rows) -> Rows:
        """Return the sorted positions of the values that occur in some rows."""
        if self.index is None:
            return rows if bool((rows[1:] >= rows[:-1]).all()) else np.sort(rows)
        return np.flatnonzero(np.bincount(self.index[rows], minlength=len(self.values)))

    def rows(self, positions: Collection[int]) -> list[int]:
        """Return the rows with the values at certain positions."""
        if self.index is None:
            return sorted(int(at) for at in positions)
        return np.flatnonzero(np.isin(self.index, list(positions))).tolist()

    def count_present(self) -> int:
        """Return the number of positions that have a value."""
        return len(self.values) - self.has_missing

    def all_differ(self) -> bool:
        """Return whether every row has a value that no other row has."""
        return not self.has_missing and len(self.values) == len(self)


class NumberCells(Cells):
    """Cells of a column of many different numbers, which are stored as such.

    Their texts are read from the file again if something needs them, such as an error message.

    Args:
        data: the number of each row, NaN if missing; float64 represents all of them exactly enough to be compared.
        notation: notation in which they were read.
        read_texts: reads the column as texts, with a position for each row.
    """

    def __init__(self, data: Floats, notation: Notation, read_texts: Callable[[], Cells]) -> None:
        super().__init__((), None)
        self.data, self.notation, self._read_texts = data, notation, read_texts

    @cached_property
    def text_cells(self) -> Cells:
        """The same cells as texts."""
        return self._read_texts()

    @property
    def values(self) -> Sequence[str | None]:  # noqa: D102
        return self.text_cells.values

    def __len__(self) -> int:
        return len(self.data)

    @cached_property
    def has_missing(self) -> bool:  # noqa: D102
        return bool(np.isnan(self.data).any())

    def numbers(self, notation: Notation, column: str = "") -> tuple[Floats, list[int]]:  # noqa: D102
        same = (notation.decimal, notation.thousands) == (self.notation.decimal, self.notation.thousands)
        if same and not notation.declares(column):
            return self.data, []
        return self.text_cells.numbers(notation, column)

    def texts(self, positions: Sequence[int] | Rows) -> list[str | None]:  # noqa: D102
        if np.isnan(self.data[positions]).all():
            return [None] * len(positions)
        return super().texts(positions)

    def missing_rows(self) -> Mask:  # noqa: D102
        return np.isnan(self.data)

    def select(self, rows: Rows) -> Cells:  # noqa: D102
        return NumberCells(self.data[rows], self.notation, lambda: self.text_cells.select(rows))

    def slice(self, start: int, stop: int) -> Cells:  # noqa: D102
        return NumberCells(self.data[start:stop], self.notation, lambda: self.text_cells.slice(start, stop))

    def count_present(self) -> int:  # noqa: D102
        return int((~np.isnan(self.data)).sum())

    def all_differ(self) -> bool:  # noqa: D102
        return not self.has_missing and len(np.unique(self.data)) == len(self.data)


def append_cells(first: Cells, second: Cells) -> Cells:
    """Append cells to those of the same column in another table."""
    both = (first, second)
    notation = next((cells.notation for cells in both if isinstance(cells, NumberCells)), None)
    if notation is not None:
        numbers = [cells.numbers(notation) for cells in both]
        if not any(wrong for _, wrong in numbers):
            data = [cells.spread(parsed) for cells, (parsed, _) in zip(both, numbers, strict=True)]
            return NumberCells(np.concatenate(data), notation, lambda: _join_texts(both))
    positions = {value: at for at, value in enumerate(first.values)} if first.index is not None else {}
    index = [
        cells.spread(np.array([positions.setdefault(value, len(positions)) for value in cells.values], np.int32))
        for cells in both
    ]
    return Cells(tuple(positions), np.concatenate(index))


def _join_texts(both: Sequence[Cells]) -> Cells:
    return Cells([cells.value(row) for cells in both for row in range(len(cells))], None)
