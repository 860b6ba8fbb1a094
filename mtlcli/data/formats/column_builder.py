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
MAX_DISTINCT = 2**16  # distinct values from which on a column may be stored by row
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
        self._chunks: list[Any] = []

    def add(self, cells: Sequence[str | None]) -> None:
        """Append cells.

        Args:
            cells: texts as they are in the file, None for a missing value.
        """
        if self.kind == "values":
            self._append(np.fromiter(map(self._codes.__getitem__, cells), np.int32, len(cells)))
        else:
            arrow = import_arrow("the column")
            self.add_array(arrow.array(cells, arrow.string()))

    def add_array(self, array: Any) -> None:
        """Append cells.

        Args:
            array: `pyarrow.Array` of strings, of strings with a dictionary, or of float64; null for a missing value.
        """
        arrow = import_arrow("the column")
        if arrow.types.is_float64(array.type):
            self._add_numbers(array)
        elif self.kind == "values":
            array = array if arrow.types.is_dictionary(array.type) else array.dictionary_encode()
            codes = np.fromiter(map(self._codes.__getitem__, array.dictionary.to_pylist()), np.int32)
            index = np.append(codes, self._codes[None] if array.null_count else 0)
            positions = to_numpy(array.indices, np.int32)
            if array.null_count:
                positions = np.where(find_nulls(array.indices), len(codes), positions)
            self._append(index[positions])
            self._choose_kind()
        elif not self.failed:
            texts = _clean(array.dictionary_decode() if arrow.types.is_dictionary(array.type) else array, self.missing)
            if self.kind == "texts":
                self._append(texts)
            else:
                self._add_numbers(parse_texts(texts, self.notation or Notation()))

    def finish(self, read_texts: Callable[[], Cells]) -> Cells:
        """Return the cells.

        Args:
            read_texts: reads the column again as texts, with a position for each row.

        Returns:
            The cells of all rows.
        """
        if self.failed:
            return read_texts()
        if self.kind == "values":
            return Cells(tuple(self._codes.distinct), np.concatenate([np.zeros(0, np.uint8), *self._chunks]))
        if self.kind == "texts":
            arrow = import_arrow("the column")
            return TextCells(arrow.chunked_array(self._chunks, arrow.string()))
        data = np.concatenate([np.empty(0), *self._chunks])
        return NumberCells(data, self.notation or Notation(), read_texts)

    def _append(self, chunk: Any) -> None:
        self.rows += len(chunk)
        if self.kind == "values":
            distinct = len(self._codes.distinct)
            chunk = chunk.astype(np.uint8 if distinct <= 2**8 else np.uint16 if distinct <= 2**16 else np.int32)
        self._chunks.append(chunk)

    def _add_numbers(self, array: Any) -> None:
        assert self.kind == "numbers"
        numbers = None if array is None else _exact_numbers(array)
        if numbers is None:
            self.failed = True
            self._chunks.clear()
        if not self.failed and numbers is not None:
            self._append(numbers)

    def _choose_kind(self) -> None:
        """Replace a long list of distinct values."""
        distinct = self._codes.distinct
        if len(distinct) <= MAX_DISTINCT:
            return
        if self.notation is not None:
            parsed, wrong = self.notation.numbers(distinct)
            if not wrong and not (np.abs(parsed) >= EXACT).any():
                self.kind, self._chunks = "numbers", [parsed[chunk] for chunk in self._chunks]
                self._codes.clear_all()
                return
            self.notation = None  # not a column of numbers
        if self.rows < REPEATED * len(distinct):
            arrow = import_arrow("the column")
            values = arrow.array(distinct, arrow.string())
            chunks = [arrow.DictionaryArray.from_arrays(_signed(chunk), values) for chunk in self._chunks]
            self.kind, self._chunks = "texts", [chunk.dictionary_decode() for chunk in chunks]
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


def _signed(index: Index) -> Any:
    return index.astype(np.int32)
