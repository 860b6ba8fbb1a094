"""Reader of delimited text files, which keeps the line of every row for messages."""

from __future__ import annotations

import csv
from array import array
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mtlcli.data.formats.text_lines import Lines
from mtlcli.data.samplers.base import Rows
from mtlcli.errors import ConfigError, Problem, suggest
from mtlcli.text import join_names, name_problem, quote

Index = np.ndarray[tuple[int], np.dtype[np.int32]]
MAX_LISTED = 5  # lines of another length that are listed one by one
MAX_COLUMNS = 50_000
CHUNK = 128  # rows converted to columns at once, in C, while their cells are in the processor's cache


@dataclass(frozen=True)
class Cells:
    """Cells of one column.

    Attributes:
        values: distinct values, None for a missing one.
        index: [N], position of each row's value in `values`.
    """

    values: tuple[str | None, ...]
    index: Index

    def list_values(self, rows: Rows) -> set[str]:
        """Return the distinct values in some rows, without the missing one."""
        values = (self.values[position] for position in self.positions(rows))
        return {value for value in values if value is not None}

    def positions(self, rows: Rows) -> Rows:
        """Return the sorted positions of the values that occur in some rows."""
        return np.flatnonzero(np.bincount(self.index[rows], minlength=len(self.values)))

    def rows(self, positions: Collection[int]) -> list[int]:
        """Return the rows with the values at certain positions."""
        return np.flatnonzero(np.isin(self.index, list(positions))).tolist()


@dataclass(frozen=True)
class Table:
    """Content of one or several files.

    Attributes:
        path: the first file.
        columns: name → cells, in order.
        lines: line of each row in its file, from 1.
        further_files: first row and path of each further file.
    """

    path: Path
    columns: dict[str, Cells]
    lines: Sequence[int]
    further_files: tuple[tuple[int, Path], ...] = ()

    def __len__(self) -> int:
        return len(self.lines)

    def slice(self, start: int, stop: int) -> Table:
        """Return the rows from `start` to `stop` of a table of one file."""
        columns = {}
        for name, cells in self.columns.items():
            used, index = np.unique(cells.index[start:stop], return_inverse=True)
            columns[name] = Cells(tuple(cells.values[position] for position in used), index.astype(np.int32))
        return Table(self.path, columns, self.lines[start:stop])

    def require(self, names: Iterable[str], what: str) -> None:
        """Check that columns exist.

        Args:
            names: names of the columns.
            what: option in which they were named, such as `targets`.

        Raises:
            ConfigError: a column doesn't exist.
        """
        columns = list(self.columns)
        hint = _suggest_delimiter(columns)
        problems = [
            Problem(f"{self.path}: no column {quote(name)}, which `{what}` names.{suggest(name, columns)} The columns "
                    f"in the file's first line are: {join_names(columns)}{hint}")
            for name in names
            if name not in self.columns
        ]  # fmt: skip
        if problems:
            raise ConfigError(problems)

    def place(self, row: int) -> str:
        """Return FILE:LINE of a row."""
        path = self.path
        for start, further in self.further_files:
            path = further if row >= start else path
        return f"{path}:{self.lines[row]}"

    def locate(self, message: str, rows: Sequence[int] = ()) -> str:
        """Prefix an error message with the place of the first of some rows, or with the path of the file.

        Args:
            message: the message.
            rows: affected rows.

        Returns:
            The message with its place and the number of further rows.
        """
        more = f" (and {len(rows) - 1} more such lines)" if len(rows) > 1 else ""
        return f"{self.place(rows[0]) if len(rows) else self.path}: {message}{more}"


def read_table(path: Path, delimiter: str, missing: Sequence[str], header: Sequence[str] = ()) -> Table:
    """Read a file with a header and rows of equal length, plain or compressed (.gz).

    Blank lines are skipped, and blanks around values are removed.

    Args:
        path: the file.
        delimiter: character between the values.
        missing: cells that mean a missing value, in addition to empty ones.
        header: names of the columns, if the file has no header.

    Returns:
        The table.

    Raises:
        ConfigError: the file can't be read, isn't text, or has rows of different lengths, an unclosed quote or a second
            header; with the line.
    """
    names, expected = list(header), f"expected {len(header)}"
    places, chunk, ragged = array("q"), list[list[str]](), list[Problem]()
    first = list[str]()
    with Lines(path) as lines:
        rows = _rows(lines, delimiter)
        if not names:
            first = next(rows, [])
            names = _fill_blank_names([name.strip() for name in first])
            _check_header(path, names)
            expected = f"but the header names {len(names)}{_suggest_delimiter(names)}"
        absent = frozenset(missing) | {""}
        columns = [_Column(absent) for _ in names]
        for row in rows:
            if not row or (len(row) == 1 and not row[0].strip()):
                continue
            if len(row) != len(names):
                if len(ragged) == MAX_LISTED:
                    ragged.append(Problem(f"{path}:{lines.line}: … and more such lines, starting here"))
                    break
                ragged.append(Problem(f"{path}:{lines.line}: {len(row)} values, {expected}"))
                continue
            if row == first and len(row) > 1:
                raise ConfigError(f"{path}:{lines.line}: repeats the header; remove the line")
            places.append(lines.line)
            chunk.append(row)
            if len(chunk) == CHUNK:
                _append_chunk(chunk, columns)
        _append_chunk(chunk, columns)
    if ragged:
        raise ConfigError(ragged)
    if not places:
        raise ConfigError(f"{path}: has {'no' if header else 'a header and no'} rows")
    return Table(path, {name: column.cells() for name, column in zip(names, columns, strict=True)}, places)


def append_rows(table: Table, other: Table) -> Table:
    """Append the rows of another table, with missing values in columns that it lacks.

    Args:
        table: the table, which determines the columns.
        other: the table to append.

    Returns:
        Rows of both tables.
    """
    columns = {}
    for name, first in table.columns.items():
        second = other.columns.get(name, Cells((None,), np.zeros(len(other), np.int32)))
        positions = {value: at for at, value in enumerate(first.values)}
        places = [positions.setdefault(value, len(positions)) for value in second.values]
        index = np.concatenate([first.index, np.array(places, np.int32)[second.index]])
        columns[name] = Cells(tuple(positions), index)
    further_files = (*table.further_files, (len(table), other.path))
    return Table(table.path, columns, array("q", [*table.lines, *other.lines]), further_files)


def _rows(lines: Lines, delimiter: str) -> Iterator[list[str]]:
    """Yield the rows. ConfigError if an unclosed quote takes in the lines that follow."""
    try:
        for row in csv.reader(lines, delimiter=delimiter, skipinitialspace=True):
            if lines.ended:  # the reader requested another line, and returned an incomplete row at the end of the file
                raise ConfigError(f"{lines.path}:{lines.row}: a quote is opened in this row and never closed")
            lines.end_row()
            yield row
    except csv.Error as error:  # a field of more than csv.field_size_limit(), 131,072 characters
        raise ConfigError(
            f"{lines.path}:{lines.row}: {error}; is a quote opened in this row that is never closed?"
        ) from error


class _Column(dict[str | None, int]):
    """Column while it is read: cell → position of its value in `distinct`."""

    def __init__(self, missing: frozenset[str]) -> None:
        super().__init__()
        self.missing = missing
        self.distinct: list[str | None] = []
        self.chunks: list[Index] = []

    def __missing__(self, cell: str | None) -> int:
        value = None if cell is None or (stripped := cell.strip()) in self.missing else stripped
        if value == cell:
            self[cell] = len(self.distinct)
            self.distinct.append(value)
        else:
            self[cell] = self[value]
        return self[cell]

    def cells(self) -> Cells:
        return Cells(tuple(self.distinct), np.concatenate(self.chunks))


def _append_chunk(rows: list[list[str]], columns: list[_Column]) -> None:
    """Append rows to the columns, and clear the list of rows."""
    for column, cells in zip(columns, zip(*rows, strict=True), strict=False):  # no cells if there are no rows
        column.chunks.append(np.fromiter(map(column.__getitem__, cells), np.int32, len(rows)))
    rows.clear()


def _fill_blank_names(header: list[str]) -> list[str]:
    """Replace every blank name but the first by `Unnamed: POSITION`, as pandas does."""
    return [
        name or ("" if at == header.index("") or not any(header) else f"Unnamed: {at}")
        for at, name in enumerate(header)
    ]


def _suggest_delimiter(header: Sequence[str]) -> str:
    """Suggest the delimiter of a header that seems to be separated by another character."""
    if len(header) != 1:
        return ""
    counts = {mark: header[0].count(mark) for mark in ";\t|,"}
    mark = max(counts, key=lambda character: counts[character])
    if not counts[mark]:
        return ""
    spelled = "\\t" if mark == "\t" else mark
    return f'. If the values are separated by {"a tab" if mark == chr(9) else repr(mark)}, set `delimiter: "{spelled}"`'


def _check_header(path: Path, header: list[str]) -> None:
    if not any(header):
        raise ConfigError(f"{path}: is empty, or has no header in its first line")
    if header[0].startswith("sep=") and not any(header[1:]):
        mark = header[0].removeprefix("sep=")  # empty if it is `delimiter` itself
        remedy = f', and set `delimiter: "{mark}"`' if mark else ""
        raise ConfigError(f"{path}:1: the line sets the delimiter for Excel and is not a header: remove it{remedy}")
    if len(header) > MAX_COLUMNS:
        raise ConfigError(f"{path}:1: {len(header)} columns, but a table can have at most {MAX_COLUMNS}")
    if faulty := [
        f"{path}:1: the name of column {at}, {quote(name)}, {why}{_suggest_delimiter(header)}"
        for at, name in enumerate(header, 1)
        if (why := name_problem(name))
    ]:
        raise ConfigError(map(Problem, faulty[:MAX_LISTED]))
    if repeated := [quote(name) for name, count in Counter(header).items() if count > 1]:
        raise ConfigError(
            f"{path}:1: the header names {join_names(sorted(repeated))} more than once; each column needs its own "
            "name in the first line"
        )
