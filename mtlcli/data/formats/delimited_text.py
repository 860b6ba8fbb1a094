"""Tables in delimited text.

Arrow parses the file in blocks. From the first block on that Arrow would read otherwise than Python's `csv` (quotes
within a value, blanks before a quote, lines of another length, text that isn't UTF-8, …), the latter reads the rest.
It knows the line of every row, and therefore reports all errors, and finds the lines of the rows that messages name.
"""

from __future__ import annotations

import csv
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from mtlcli.data.formats.arrow_import import has_arrow, import_arrow
from mtlcli.data.formats.arrow_texts import to_numpy
from mtlcli.data.formats.batches import Batch, Dialect
from mtlcli.data.formats.column_builder import Kind
from mtlcli.data.formats.header import check_header, fill_blank_names, suggest_delimiter
from mtlcli.data.formats.table_rows import ListedLines
from mtlcli.data.formats.text_blocks import Block, count_lines, cut_blocks
from mtlcli.data.formats.text_lines import NOT_DELIMITED, Lines, open_text, unreadable
from mtlcli.data.samplers.base import Rows
from mtlcli.errors import ConfigError, Problem

MAX_LISTED = 5  # lines of another length that are listed one by one
ROWS = 2**12  # rows that Python's `csv` returns at once


class DelimitedText:
    """Reader of delimited text, plain or compressed.

    Blank lines are skipped.

    Raises a ConfigError if the file can't be read, or has no valid header.

    Args:
        path: the file.
        dialect: delimiter, missing values and notation.
        header: names of the columns, if the file has no header.
    """

    def __init__(self, path: Path, dialect: Dialect, header: Sequence[str] = ()) -> None:
        self.path, self.dialect = path, dialect
        tabs = dialect.delimiter == "," and ".tsv" in path.suffixes[-2:]
        self.delimiter = "\t" if tabs else dialect.delimiter
        self.names, self.hint, self.header, self.uses_arrow = list(header), "", "", has_arrow()
        self._first: list[str] = []
        self._offset = 0  # bytes before the first row
        self._counted = {0: 0}  # bytes before a block → lines
        self._latest: tuple[int, Sequence[int]] = (-1, ())  # bytes before the latest block whose lines were found
        if not header:
            self._read_header()

    def batches(self, kinds: Sequence[Kind | None]) -> Iterator[Batch]:
        """Yield the rows; see `TableFile`."""
        offset = self._offset
        if self.uses_arrow and self.delimiter.isascii() and self.delimiter != " " and len(self.names) > 1:
            for block in self._blocks():
                columns = self._parse(block, kinds)
                if columns is None:
                    break
                if rows := max((len(column) for column in columns if column is not None), default=0):
                    yield Batch(columns, BlockLines(self, offset, rows))
                offset += len(block.text)
            else:
                return
        yield from self._read_carefully(offset)

    def find_lines(self, offset: int, rows: int) -> Sequence[int]:
        """Find the lines of a block of rows, of which the latest is kept.

        Args:
            offset: bytes before the block.
            rows: number of rows.

        Returns:
            The line of each row, from 1.
        """
        if self._latest[0] != offset:
            with Lines(self.path, offset, self._count_lines(offset)) as lines:
                self._latest = offset, array("q", (lines.line for _ in islice(self._rows(lines), rows)))
        return self._latest[1]

    def _read_header(self) -> None:
        with Lines(self.path) as lines:
            self._first = next(self._rows(lines, skip_blank=False), [])
            self._offset, self._counted = lines.offset, {0: 0, lines.offset: lines.line}
        self.names = fill_blank_names([name.strip() for name in self._first])
        check_header(self.path, self.names)
        self.hint, self.header = suggest_delimiter(self.names), " in the file's first line"

    def _rows(self, lines: Lines, skip_blank: bool = True) -> Iterator[list[str]]:
        """Yield the rows. ConfigError if an unclosed quote takes in the lines that follow."""
        try:
            for row in csv.reader(lines, delimiter=self.delimiter, skipinitialspace=True):
                if lines.ended:  # the reader requested another line, and returned an incomplete row
                    raise ConfigError(f"{lines.path}:{lines.row}: a quote is opened in this row and never closed")
                lines.end_row()
                if not skip_blank or (row and (len(row) > 1 or row[0].strip())):
                    yield row
        except csv.Error as error:  # a field of more than csv.field_size_limit(), 131,072 characters
            raise ConfigError(
                f"{lines.path}:{lines.row}: {error}; is a quote opened in this row that is never closed?"
            ) from error

    def _count_lines(self, offset: int) -> int:
        """Count the lines before the first row of a block."""
        start = max(counted for counted in self._counted if counted <= offset)
        if start < offset:
            with open_text(self.path, start) as file:
                self._counted[offset] = self._counted[start] + count_lines(file, offset - start)
        return self._counted[offset]

    def _read_carefully(self, offset: int) -> Iterator[Batch]:
        """Yield the rows from a place on, as Python's `csv` reads them, and report invalid ones."""
        expected = (
            f"but the header names {len(self.names)}{self.hint}" if self._first else f"expected {len(self.names)}"
        )
        places, rows, faulty, ragged = array("q"), list[list[str]](), dict[int, str](), list[Problem]()
        with Lines(self.path, offset, self._count_lines(offset)) as lines:
            for row in self._rows(lines):
                if len(row) != len(self.names):
                    message = f"{self.path}:{lines.line}: {len(row)} values, {expected}"
                    if self.dialect.tolerant:
                        faulty[len(rows)] = message
                        row = [""] * len(self.names)
                    elif len(ragged) == MAX_LISTED:
                        ragged.append(Problem(f"{self.path}:{lines.line}: … and more such lines, starting here"))
                        break
                    else:
                        ragged.append(Problem(message))
                elif row == self._first and len(row) > 1:
                    raise ConfigError(f"{self.path}:{lines.line}: repeats the header; remove the line")
                if ragged:
                    continue
                places.append(lines.line)
                rows.append(row)
                if len(rows) == ROWS:
                    yield Batch(list(zip(*rows, strict=True)), ListedLines(self.path, places), faulty)
                    places, rows, faulty = array("q"), [], {}
        if ragged:
            raise ConfigError(ragged)
        if rows:
            yield Batch(list(zip(*rows, strict=True)), ListedLines(self.path, places), faulty)

    def _blocks(self) -> Iterator[Block]:
        with open_text(self.path, self._offset, NOT_DELIMITED) as file:
            try:
                yield from cut_blocks(file, self.delimiter)
            except OSError as error:
                raise unreadable(self.path, error) from error

    def _parse(self, block: Block, kinds: Sequence[Kind | None]) -> list[Any] | None:
        """Parse a block by Arrow; None if Python's reader would read it otherwise, or report an error."""
        if not block.plain:
            return None
        arrow, arrow_csv = import_arrow(str(self.path)), import_arrow(str(self.path), "pyarrow.csv")
        notation = self.dialect.notation
        numbers = arrow.float64() if not notation.thousands else arrow.string()
        types = {"values": arrow.dictionary(arrow.int32(), arrow.string()), "numbers": numbers, "texts": arrow.string()}
        needed = {str(at): types[kind] for at, kind in enumerate(kinds) if kind is not None}
        options = {
            "memory_pool": arrow.system_memory_pool(),  # Arrow's own pools keep freed memory
            "read_options": arrow_csv.ReadOptions(
                use_threads=False, block_size=len(block.text) + 1, column_names=[str(at) for at in range(len(kinds))]
            ),
            "parse_options": arrow_csv.ParseOptions(delimiter=self.delimiter, newlines_in_values=block.quoted),
        }
        for attempt in (needed, {name: kind if kind != numbers else arrow.string() for name, kind in needed.items()}):
            convert = arrow_csv.ConvertOptions(
                column_types=attempt, include_columns=list(needed), strings_can_be_null=False,
                null_values=["", *self.dialect.missing], decimal_point=notation.decimal,
            )  # fmt: skip
            try:
                table = arrow_csv.read_csv(arrow.BufferReader(block.text), convert_options=convert, **options)
                break
            except arrow.ArrowInvalid:
                continue
        else:
            return None
        columns: list[Any] = [None] * len(kinds)
        for name, column in zip(table.column_names, table.columns, strict=True):
            columns[int(name)] = column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)
        present = [column for column in columns if column is not None]
        return None if any(map(_has_long_value, present)) or self._repeats_header(columns) else columns

    def _repeats_header(self, columns: Sequence[Any]) -> bool:
        """Return whether a row may be the header."""
        if not self._first:
            return False
        rows: Rows | None = None
        named = [(name, column) for name, column in zip(self._first, columns, strict=True) if column is not None]
        for name, column in sorted(named, key=lambda pair: not hasattr(pair[1], "dictionary")):  # the fast ones first
            if column.type == "double":
                continue
            if hasattr(column, "dictionary"):
                at = [position for position, text in enumerate(column.dictionary.to_pylist()) if text == name]
                matches = np.flatnonzero(np.isin(to_numpy(column.indices, np.int32), at)) if at else np.zeros(0, int)
            else:
                compute = import_arrow(str(self.path), "pyarrow.compute")
                matches = to_numpy(compute.indices_nonzero(compute.equal(column, name)), np.uint64)
            rows = matches if rows is None else np.intersect1d(rows, matches)
            if not len(rows):
                return False
        return rows is not None


@dataclass(frozen=True)
class BlockLines:
    """Rows of a block, whose lines are found when a message needs them.

    Attributes:
        file: the file.
        offset: bytes before the block.
        rows: number of rows.
    """

    file: DelimitedText
    offset: int
    rows: int

    def __len__(self) -> int:
        return self.rows

    def place(self, row: int) -> str:
        """Return FILE:LINE of a row."""
        return f"{self.file.path}:{self.file.find_lines(self.offset, self.rows)[row]}"


def _has_long_value(column: Any) -> bool:
    """Return whether a text is longer than those that Python's `csv` accepts."""
    texts = getattr(column, "dictionary", column)
    if texts.type != "string" or texts.get_total_buffer_size() <= csv.field_size_limit():
        return False
    ends = np.frombuffer(texts.buffers()[1], np.int32)[texts.offset : texts.offset + len(texts) + 1]
    return bool(np.diff(ends).max() > csv.field_size_limit())
