"""Reading a delimited text file into columns, with the line of every row for messages."""

from __future__ import annotations

import csv
from array import array
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mtlcli.data.formats.text_lines import Lines
from mtlcli.data.shuffling import Rows
from mtlcli.errors import ConfigError, Problem, nearest
from mtlcli.text import fault, listed, shown

Index = np.ndarray[tuple[int], np.dtype[np.int32]]
SHOWN = 5  # ragged lines that are listed one by one
MOST_COLUMNS = 50_000
CHUNK = 128  # rows that are turned into columns at once: looked up in C, while their cells are in the cache


@dataclass(frozen=True)
class Cells:
    """One column: each value it has, once, and where it stands.

    values: distinct, None for a missing one. index: [N], the position of each row's value among them.
    """

    values: tuple[str | None, ...]
    index: Index

    def among(self, rows: Rows) -> set[str]:
        """The values, but the missing one, that the rows have."""
        found = (self.values[position] for position in self.positions(rows))
        return {value for value in found if value is not None}

    def positions(self, rows: Rows) -> Rows:
        """The positions of the values that the rows have, in order."""
        return np.flatnonzero(np.bincount(self.index[rows], minlength=len(self.values)))

    def rows(self, positions: Collection[int]) -> list[int]:
        """The rows whose value is at one of `positions`."""
        return np.flatnonzero(np.isin(self.index, list(positions))).tolist()


@dataclass(frozen=True)
class Table:
    """A table as it stands in the file.

    columns: by name, in order. lines: of each row, from 1. parts: of a table of several files, each further file with
    the first of its rows.
    """

    path: Path
    columns: dict[str, Cells]
    lines: Sequence[int]
    parts: tuple[tuple[int, Path], ...] = ()

    def __len__(self) -> int:
        return len(self.lines)

    def require(self, names: Iterable[str], what: str) -> None:
        """ConfigError for those of `names` that are no column. what: where they were named, such as `targets`."""
        known = list(self.columns)
        hint = _suggest_delimiter(known)
        problems = [
            Problem(f"{self.path}: there is no column {shown(name)}, named in `{what}`.{nearest(name, known)} "
                    f"There are, by the file's first line: {listed(known)}{hint}")
            for name in names
            if name not in self.columns
        ]  # fmt: skip
        if problems:
            raise ConfigError(problems)

    def place(self, row: int) -> str:
        """FILE:LINE of a row."""
        path = self.path
        for start, further in self.parts:
            path = further if row >= start else path
        return f"{path}:{self.lines[row]}"

    def error(self, message: str, rows: Sequence[int] = ()) -> ConfigError:
        """A ConfigError about the first of `rows`, with its line, or about the whole file where there are none."""
        more = f" (and {len(rows) - 1} more such lines)" if len(rows) > 1 else ""
        return ConfigError(f"{self.place(rows[0]) if len(rows) else self.path}: {message}{more}")


def read_table(path: Path, delimiter: str, missing: Sequence[str], header: Sequence[str] = ()) -> Table:
    """Read the file, plain or compressed (.gz): a header, then rows of as many values.

    Blank lines are passed over, blanks around values dropped. missing: what stands for a missing value, beside an empty
    cell. header: the names of the columns, where the file itself has none. ConfigError, with the line, for a file that
    isn't there, isn't text, has ragged rows, a quote that is never closed or a second header.
    """
    names, expected = list(header), f"where there are {len(header)} columns"
    places, chunk, ragged = array("q"), list[list[str]](), list[Problem]()
    first = list[str]()
    with Lines(path) as lines:
        rows = _rows(lines, delimiter)
        if not names:
            first = next(rows, [])
            names = _fill_blank_names([name.strip() for name in first])
            _check_header(path, names)
            expected = f"where the header names {len(names)}{_suggest_delimiter(names)}"
        absent = frozenset(missing) | {""}
        columns = [_Column(absent) for _ in names]
        for row in rows:
            if not row or (len(row) == 1 and not row[0].strip()):
                continue
            if len(row) != len(names):
                if len(ragged) == SHOWN:
                    ragged.append(Problem(f"{path}:{lines.line}: … and more such lines, from this one on"))
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


def append(table: Table, other: Table) -> Table:
    """The rows of both files, of the first one's columns; where the other lacks one, its rows have no value."""
    columns = {}
    for name, first in table.columns.items():
        second = other.columns.get(name, Cells((None,), np.zeros(len(other), np.int32)))
        positions = {value: at for at, value in enumerate(first.values)}
        places = [positions.setdefault(value, len(positions)) for value in second.values]
        index = np.concatenate([first.index, np.array(places, np.int32)[second.index]])
        columns[name] = Cells(tuple(positions), index)
    parts = (*table.parts, (len(table), other.path))
    return Table(table.path, columns, array("q", [*table.lines, *other.lines]), parts)


def _rows(lines: Lines, delimiter: str) -> Iterator[list[str]]:
    """The rows of a table, none of which has swallowed what comes after a quote."""
    try:
        for row in csv.reader(lines, delimiter=delimiter, skipinitialspace=True):
            if lines.ended:  # it asked for another line, and took what it had for a row when there was none
                raise ConfigError(f"{lines.path}:{lines.row}: a quote is opened in this row and never closed")
            lines.end_row()
            yield row
    except csv.Error as error:  # a field of more than csv.field_size_limit(), 131,072 characters
        raise ConfigError(
            f"{lines.path}:{lines.row}: {error}; is a quote opened in this row that is never closed?"
        ) from error


class _Column(dict[str | None, int]):
    """A column while it is read: a cell as it stands in the file → the position of its value in `distinct`."""

    def __init__(self, missing: frozenset[str]) -> None:
        super().__init__()
        self.missing = missing
        self.distinct: list[str | None] = []
        self.parts: list[Index] = []

    def __missing__(self, cell: str | None) -> int:
        value = None if cell is None or (stripped := cell.strip()) in self.missing else stripped
        if value == cell:
            self[cell] = len(self.distinct)
            self.distinct.append(value)
        else:
            self[cell] = self[value]
        return self[cell]

    def cells(self) -> Cells:
        return Cells(tuple(self.distinct), np.concatenate(self.parts))


def _append_chunk(rows: list[list[str]], columns: list[_Column]) -> None:
    """Append the rows to the columns, and empty the list of rows."""
    for column, cells in zip(columns, zip(*rows, strict=True), strict=False):  # none where there are no rows
        column.parts.append(np.fromiter(map(column.__getitem__, cells), np.int32, len(rows)))
    rows.clear()


def _fill_blank_names(header: list[str]) -> list[str]:
    """The header, in which every blank name but the first is `Unnamed: POSITION`, as pandas calls them."""
    return [
        name or ("" if at == header.index("") or not any(header) else f"Unnamed: {at}")
        for at, name in enumerate(header)
    ]


def _suggest_delimiter(header: Sequence[str]) -> str:
    """The remedy for a header that seems to be separated by another character than was looked for."""
    if len(header) != 1:
        return ""
    counts = {mark: header[0].count(mark) for mark in ";\t|,"}
    mark = max(counts, key=lambda one: counts[one])
    if not counts[mark]:
        return ""
    spelled = "\\t" if mark == "\t" else mark
    return f'. If the values are separated by {"a tab" if mark == chr(9) else repr(mark)}, set `delimiter: "{spelled}"`'


def _check_header(path: Path, header: list[str]) -> None:
    if not any(header):
        raise ConfigError(f"{path}: is empty, or has no header in its first line")
    if header[0].startswith("sep=") and not any(header[1:]):
        mark = header[0].removeprefix("sep=")  # nothing where it is the delimiter that was looked for
        remedy = f', and set `delimiter: "{mark}"`' if mark else ""
        raise ConfigError(f"{path}:1: the line tells Excel the delimiter and is no header: remove it{remedy}")
    if len(header) > MOST_COLUMNS:
        raise ConfigError(f"{path}:1: {len(header)} columns, and {MOST_COLUMNS} are the most a table may have")
    if faulty := [
        f"{path}:1: the name of column {at}, {shown(name)}, {why}{_suggest_delimiter(header)}"
        for at, name in enumerate(header, 1)
        if (why := fault(name))
    ]:
        raise ConfigError(map(Problem, faulty[:SHOWN]))
    if twice := [shown(name) for name, count in Counter(header).items() if count > 1]:
        raise ConfigError(
            f"{path}:1: the header names {listed(sorted(twice))} more than once; the first line must name every column"
        )
