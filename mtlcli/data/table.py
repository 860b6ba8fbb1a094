"""Reading a delimited text file into columns, with the line of every row for messages."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mtlcli.errors import ConfigError, Problem, nearest

Floats = np.ndarray[tuple[int], np.dtype[np.float64]]
SHOWN = 5  # ragged lines that are listed one by one
LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Table:
    """A table as it stands in the file.

    columns: name → a value for each row, None where it is missing. lines: of each row, from 1.
    """

    path: Path
    columns: dict[str, list[str | None]]
    lines: list[int]

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


def read_table(path: Path, delimiter: str, missing: Sequence[str]) -> Table:
    """Read the file: a header, then rows of as many values; blank lines are passed over, blanks around values dropped.

    missing: what stands for a missing value. ConfigError for a file that isn't there, isn't text or has ragged rows.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, delimiter=delimiter, skipinitialspace=True)
            header = [name.strip() for name in next(reader, [])]
            _check_header(path, header)
            lines: list[int] = []
            ragged: list[str] = []
            # Equal values of a column are one object, so that a cell costs 8 bytes.
            seen: list[dict[str, str | None]] = [dict.fromkeys(missing) for _ in header]
            columns: list[list[str | None]] = [[] for _ in header]
            for row in _rows(reader):
                if len(row) != len(header):
                    ragged.append(f"{path}:{reader.line_num}: {len(row)} values, where the header names {len(header)}")
                    continue
                lines.append(reader.line_num)
                for column, known, value in zip(columns, seen, row, strict=True):
                    stripped = value.strip()
                    column.append(known.setdefault(stripped, stripped))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = "is no UTF-8 text" if isinstance(error, UnicodeDecodeError) else str(error)
        raise ConfigError(f"{path}: can't be read as a table: {reason}") from error
    if ragged:
        more = [f"{path}: … and {len(ragged) - SHOWN} more such lines"] if len(ragged) > SHOWN else []
        raise ConfigError([Problem(message) for message in ragged[:SHOWN] + more])
    if not lines:
        raise ConfigError(f"{path}: has a header and no rows")
    return Table(path, dict(zip(header, columns, strict=True)), lines)


def numbers(values: Sequence[str | None]) -> tuple[Floats, list[int]]:
    """The values as numbers, NaN where there is none; and the rows of those that are no finite float32."""
    parsed = np.full(len(values), np.nan)
    wrong = []
    for row, value in enumerate(values):
        if value is not None:
            try:
                parsed[row] = float(value)
            except ValueError:
                wrong.append(row)
            else:
                if not abs(parsed[row]) <= LARGEST:
                    wrong.append(row)
    return parsed, wrong


def _rows(reader: Iterator[list[str]]) -> Iterator[list[str]]:
    return (row for row in reader if row and (len(row) > 1 or row[0].strip()))


def _check_header(path: Path, header: list[str]) -> None:
    if not any(header):
        raise ConfigError(f"{path}: is empty, or has no header in its first line")
    if twice := sorted({name for name in header if header.count(name) > 1}):
        raise ConfigError(f"{path}:1: the header names {', '.join(map(repr, twice))} more than once")
