"""Columns of a table while its file is read, in batches of rows."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any, Literal

import numpy as np

from mtlcli.data.formats.arrow_import import import_arrow
from mtlcli.data.formats.arrow_texts import TextCells, find_nulls, to_numpy
from mtlcli.data.formats.cells import Cells, Index, NumberCells
from mtlcli.data.formats.numerals import Floats, Notation

Kind = Literal["values", "numbers", "texts"]
MAX_DISTINCT = 2**14  # distinct values from which on a column may be stored by row
REPEATED = 2  # rows for each distinct value, up to which a column of texts is stored by row
EXACT = 2.0**53  # float64 doesn't represent every integer from here on, and such numbers are compared as texts


class ColumnBuilder:
    """A column to which cells are appended.

    It starts with a list of distinct values. If there are many, those of a column of numbers are replaced by float64
    numbers, and others by texts in Arrow arrays, if Arrow supplies the cells. Blanks around values are removed.

    Args:
        missing: cells that mean a missing value.
        notation: notation of numbers; None if the cells must stay texts.
        kind: initial representation.

    Attributes:
        kind: present representation.
        failed: whether a cell after the first ones is not a number, so that the column must be read again as texts.
    """

    def __init__(self, missing: Collection[str], notation: Notation | None, kind: Kind = "values") -> None:
        self.missing, self.notation = missing, notation
        self.kind: Kind = kind
        self.failed = False
        self.rows = 0
        self._codes = _Codes(frozenset(missing) | {""})
        self._type: type[np.generic] = np.float64 if kind == "numbers" else np.uint8
        self._buffer = bytearray()  # positions or numbers, of this type: grows with little more memory than it holds
        self._texts: list[Any] = []  # chunks of Arrow strings

    def add(self, cells: Sequence[str | None]) -> None:
        """Append cells.

        Args:
            cells: texts as they are in the file, None for a missing value.
        """
        if self.kind == "values":
            self._add_positions(np.fromiter(map(self._codes.__getitem__, cells), np.int32, len(cells)))
        else:
            arrow = import_arrow("the column")
            self.add_array(arrow.array(cells, arrow.string()))

    def add_array(self, array: Any) -> None:
        """Append cells.

        Args:
            array: `pyarrow.Array` of strings, of strings with a dictionary, or of float64; null for a missing value.
        """
        encoded = hasattr(array, "dictionary")
        if not encoded and array.type == "double":
            self._add_numbers(array)
        elif self.kind == "values":
            array = array if encoded else array.dictionary_encode()
            values = array.dictionary.to_pylist()
            if array.null_count:
                values.append(None)
            positions = to_numpy(array.indices, np.int32)
            if array.null_count:
                positions = np.where(find_nulls(array.indices), len(values) - 1, positions)
            codes = np.fromiter(map(self._codes.__getitem__, values), np.int32, len(values))
            self._add_positions(positions, codes)
            self._choose_kind()
        elif not self.failed:
            texts = _clean(array.dictionary_decode() if encoded else array, self.missing)
            if self.kind == "texts":
                self._texts.append(texts)
                self.rows += len(texts)
            else:
                self._add_numbers(parse_texts(texts, self.notation or Notation()))

    def finish(self, read_texts: Callable[[], Cells]) -> Cells:
        """Return the cells. None can be added any more.

        Args:
            read_texts: reads the column again as texts, with a position for each row.

        Returns:
            The cells of all rows.
        """
        if self.failed:
            return read_texts()
        if self.kind == "values":
            return Cells(tuple(self._codes.distinct), self._stored())
        if self.kind == "texts":
            arrow = import_arrow("the column")
            return TextCells(arrow.chunked_array(self._texts, arrow.string()))
        return NumberCells(self._stored(), self.notation or Notation(), read_texts)

    def _stored(self) -> Any:
        return np.frombuffer(self._buffer, self._type)

    def _add_positions(self, positions: Index, codes: Index | None = None) -> None:
        """Append the positions of values, or the codes at these positions."""
        distinct = len(self._codes.distinct)
        needed = np.uint8 if distinct <= 2**8 else np.uint16 if distinct <= 2**16 else np.int32
        if needed is not self._type:
            self._buffer, self._type = bytearray(self._stored().astype(needed).data), needed
        narrow = positions.astype(needed) if codes is None else codes.astype(needed)[positions]
        self._buffer += narrow.data
        self.rows += len(positions)

    def _add_numbers(self, array: Any) -> None:
        assert self.kind == "numbers"
        numbers = None if array is None else _exact_numbers(array)
        if numbers is None:
            self.failed = True
            self._buffer.clear()
        if not self.failed and numbers is not None:
            self._buffer += numbers.data
            self.rows += len(numbers)

    def _choose_kind(self) -> None:
        """Replace a long list of distinct values."""
        distinct = self._codes.distinct
        if len(distinct) <= MAX_DISTINCT:
            return
        if self.notation is not None:
            parsed, wrong = self.notation.numbers(distinct)
            if not wrong and not (np.abs(parsed) >= EXACT).any():
                self.kind, self._buffer, self._type = "numbers", bytearray(parsed[self._stored()].data), np.float64
                self._codes.clear_all()
                return
            self.notation = None  # not a column of numbers
        if self.rows < REPEATED * len(distinct):
            arrow = import_arrow("the column")
            values = arrow.array(distinct, arrow.string())
            encoded = arrow.DictionaryArray.from_arrays(self._stored().astype(np.int32), values)
            self.kind, self._texts = "texts", [encoded.dictionary_decode()]
            self._buffer.clear()
            self._codes.clear_all()


class _Codes(dict[str | None, int]):
    """Cell → position of its value in `distinct`."""

    def __init__(self, missing: frozenset[str]) -> None:
        super().__init__()
        self.missing = missing
        self.distinct: list[str | None] = []

    def __missing__(self, cell: str | None) -> int:
        value = None if cell is None or (stripped := cell.strip()) in self.missing else stripped
        if value == cell:
            self[cell] = len(self.distinct)
            self.distinct.append(value)
        else:
            self[cell] = self[value]
        return self[cell]

    def clear_all(self) -> None:
        self.clear()
        self.distinct = []


def parse_texts(texts: Any, notation: Notation) -> Any:
    """Parse an Arrow array of strings as float64; None if a text is not a number in this notation."""
    arrow, compute = import_arrow("the column"), import_arrow("the column", "pyarrow.compute")
    if (notation.decimal, notation.thousands) != (".", ""):
        numbers, wrong = notation.numbers(texts.to_pylist())
        return None if wrong else arrow.array(numbers, mask=np.isnan(numbers))
    try:
        return compute.cast(texts, arrow.float64())
    except arrow.ArrowInvalid:
        numbers, wrong = notation.numbers(texts.to_pylist())
        return None if wrong else arrow.array(numbers, mask=np.isnan(numbers))


def _exact_numbers(array: Any) -> Floats | None:
    """Return numbers with NaN for nulls, or None if one isn't finite or must be compared as text."""
    nulls = find_nulls(array)
    numbers: Floats = np.where(nulls, np.nan, to_numpy(array, np.float64))
    return numbers if bool(((np.abs(numbers) < EXACT) | nulls).all()) else None


def _clean(array: Any, missing: Collection[str]) -> Any:
    """Remove blanks around texts, and replace those that mean a missing value by null."""
    arrow, compute = import_arrow("the column"), import_arrow("the column", "pyarrow.compute")
    texts = compute.utf8_trim_whitespace(array)
    absent = compute.is_in(texts, value_set=arrow.array(sorted({*missing, ""}), arrow.string()))
    return compute.if_else(absent, arrow.scalar(None, arrow.string()), texts)
