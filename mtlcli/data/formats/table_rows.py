"""Tables in memory, and the places of their rows in the files."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import numpy as np

from mtlcli.data.formats.cells import Cells, append_cells
from mtlcli.data.samplers.base import Rows
from mtlcli.errors import ConfigError, Problem, suggest
from mtlcli.text import join_names, quote


class Places(Protocol):
    """Places of a table's rows, for messages."""

    def __len__(self) -> int:
        """Return the number of rows."""

    def place(self, row: int) -> str:
        """Return the place of a row, such as FILE:LINE."""


@dataclass(frozen=True)
class ListedLines:
    """Rows whose lines are stored.

    Attributes:
        path: the file.
        lines: line of each row, from 1.
    """

    path: Path
    lines: Sequence[int]

    def __len__(self) -> int:
        return len(self.lines)

    def place(self, row: int) -> str:
        """Return FILE:LINE of a row."""
        return f"{self.path}:{self.lines[row]}"


class JoinedPlaces:
    """Rows of several pieces, one after the other.

    Args:
        pieces: places of the rows of each piece.
    """

    def __init__(self, pieces: Sequence[Places]) -> None:
        self.pieces = pieces
        self._ends = np.cumsum([len(piece) for piece in pieces]).tolist()

    def __len__(self) -> int:
        return int(self._ends[-1]) if self._ends else 0

    def place(self, row: int) -> str:
        """Return the place of a row."""
        at = bisect_right(self._ends, row)
        return self.pieces[at].place(row - (self._ends[at - 1] if at else 0))


@dataclass(frozen=True)
class SelectedPlaces:
    """Some rows of a table.

    Attributes:
        places: places of all rows.
        rows: the selected rows.
    """

    places: Places
    rows: Sequence[int]

    def __len__(self) -> int:
        return len(self.rows)

    def place(self, row: int) -> str:
        """Return the place of a row."""
        return self.places.place(self.rows[row])


@dataclass(frozen=True)
class Table:
    """Content of one or several files.

    Attributes:
        path: the first file.
        columns: name → cells, in order.
        places: places of the rows.
        hint: end of the message about a missing column, such as a suggested delimiter.
        header: place of the names in the file for that message, such as " in the file's first line".
        faulty: row → message, for invalid rows of a file that was read with a tolerant dialect. All their cells are
            missing.
    """

    path: Path
    columns: dict[str, Cells]
    places: Places
    hint: str = ""
    header: str = ""
    faulty: Mapping[int, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.places)

    def select(self, rows: Rows) -> Table:
        """Return some rows."""
        columns = {name: cells.select(rows) for name, cells in self.columns.items()}
        return replace(self, columns=columns, places=SelectedPlaces(self.places, rows.tolist()), faulty={})

    def slice(self, start: int, stop: int) -> Table:
        """Return the rows from `start` to `stop`."""
        columns = {name: cells.slice(start, stop) for name, cells in self.columns.items()}
        return replace(self, columns=columns, places=SelectedPlaces(self.places, range(start, stop)), faulty={})

    def require(self, names: Iterable[str], what: str) -> None:
        """Check that columns exist.

        Args:
            names: names of the columns.
            what: option in which they were named, such as `targets`.

        Raises:
            ConfigError: a column doesn't exist.
        """
        columns = list(self.columns)
        problems = [
            Problem(f"{self.path}: no column {quote(name)}, which `{what}` names.{suggest(name, columns)} The columns"
                    f"{self.header} are: {join_names(columns)}{self.hint}")
            for name in names
            if name not in self.columns
        ]  # fmt: skip
        if problems:
            raise ConfigError(problems)

    def place(self, row: int) -> str:
        """Return the place of a row: FILE:LINE, or `FILE: row N` in a file without lines."""
        return self.places.place(row)

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
        absent = Cells((None,), np.zeros(len(other), np.uint8))
        columns[name] = append_cells(first, other.columns.get(name, absent))
    return Table(table.path, columns, JoinedPlaces([table.places, other.places]), table.hint, table.header)
