"""Reading a delimited text file into columns, with the line of every row for messages."""

from __future__ import annotations

import csv
import io
import zlib
from array import array
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mtlcli.data.fetching import opened
from mtlcli.errors import ConfigError, Problem, nearest

Floats = np.ndarray[tuple[int], np.dtype[np.float64]]
Rows = np.ndarray[tuple[int], np.dtype[np.int64]]
Index = np.ndarray[tuple[int], np.dtype[np.int32]]
SHOWN = 5  # ragged lines that are listed one by one
LARGEST = float(np.finfo(np.float32).max)
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
        found = (self.values[position] for position in np.unique(self.index[rows]))
        return {value for value in found if value is not None}

    def rows(self, positions: Collection[int]) -> list[int]:
        """The rows whose value is at one of `positions`."""
        return np.flatnonzero(np.isin(self.index, list(positions))).tolist()


@dataclass(frozen=True)
class Table:
    """A table as it stands in the file.

    columns: by name, in order. lines: of each row, from 1.
    """

    path: Path
    columns: dict[str, Cells]
    lines: Sequence[int]

    def __len__(self) -> int:
        return len(self.lines)

    def require(self, names: Iterable[str], what: str) -> None:
        """ConfigError for those of `names` that are no column. what: where they were named, such as `targets`."""
        known = list(self.columns)
        problems = [
            Problem(f"{self.path}: there is no column {name!r}, named in `{what}`.{nearest(name, known)} "
                    f"There are: {', '.join(known)}")
            for name in names
            if name not in self.columns
        ]  # fmt: skip
        if problems:
            raise ConfigError(problems)

    def error(self, message: str, rows: Sequence[int] = ()) -> ConfigError:
        """`message`, said of the first of `rows`, with its line, or of the whole file where there are none."""
        line = f":{self.lines[rows[0]]}" if len(rows) else ""
        more = f" (and {len(rows) - 1} more such lines)" if len(rows) > 1 else ""
        return ConfigError(f"{self.path}{line}: {message}{more}")


def read_table(path: Path, delimiter: str, missing: Sequence[str], header: Sequence[str] = ()) -> Table:
    """Read the file, plain or compressed (.gz): a header, then rows of as many values.

    Blank lines are passed over, blanks around values dropped. missing: what stands for a missing value. header: the
    names of the columns, where the file itself has none. ConfigError for a file that isn't there, isn't text or has
    ragged rows.
    """
    names, expected = list(header), f"where there are {len(header)} columns"
    lines, chunk, ragged = array("q"), list[list[str]](), list[str]()
    try:
        with io.TextIOWrapper(opened(path), encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, delimiter=delimiter, skipinitialspace=True)
            if not names:
                names = [name.strip() for name in next(reader, [])]
                _check_header(path, names)
                expected = f"where the header names {len(names)}"
            columns = [_Column(missing) for _ in names]
            for row in reader:
                if not row or (len(row) == 1 and not row[0].strip()):
                    continue
                if len(row) != len(names):
                    ragged.append(f"{path}:{reader.line_num}: {len(row)} values, {expected}")
                    continue
                lines.append(reader.line_num)
                chunk.append(row)
                if len(chunk) == CHUNK:
                    _move(chunk, columns)
            _move(chunk, columns)
    except (OSError, EOFError, zlib.error, UnicodeDecodeError, csv.Error) as error:
        reason = "is no UTF-8 text" if isinstance(error, UnicodeDecodeError) else str(error)
        raise ConfigError(f"{path}: can't be read as a table: {reason}") from error
    if ragged:
        more = [f"{path}: … and {len(ragged) - SHOWN} more such lines"] if len(ragged) > SHOWN else []
        raise ConfigError([Problem(message) for message in ragged[:SHOWN] + more])
    if not lines:
        raise ConfigError(f"{path}: has {'no' if header else 'a header and no'} rows")
    return Table(path, {name: column.cells() for name, column in zip(names, columns, strict=True)}, lines)


def numbers(values: Sequence[str | None]) -> tuple[Floats, list[int]]:
    """The values as numbers, NaN where there is none; and the positions of those that are no finite float32."""
    parsed = np.full(len(values), np.nan)
    wrong = []
    for position, value in enumerate(values):
        if value is not None:
            try:
                parsed[position] = float(value)
            except ValueError:
                wrong.append(position)
            else:
                if not abs(parsed[position]) <= LARGEST:
                    wrong.append(position)
    return parsed, wrong


class _Column(dict[str | None, int]):
    """A column while it is read: a cell as it stands in the file → the position of its value in `distinct`."""

    def __init__(self, missing: Sequence[str]) -> None:
        super().__init__()
        self.missing = frozenset(missing)
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


def _move(rows: list[list[str]], columns: list[_Column]) -> None:
    """Append the rows to the columns, and empty the list of rows."""
    for column, cells in zip(columns, zip(*rows, strict=True), strict=False):  # none where there are no rows
        column.parts.append(np.fromiter(map(column.__getitem__, cells), np.int32, len(rows)))
    rows.clear()


def _check_header(path: Path, header: list[str]) -> None:
    if not any(header):
        raise ConfigError(f"{path}: is empty, or has no header in its first line")
    if twice := sorted({name for name in header if header.count(name) > 1}):
        raise ConfigError(f"{path}:1: the header names {', '.join(map(repr, twice))} more than once")
