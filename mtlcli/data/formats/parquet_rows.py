"""Tables in Parquet files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mtlcli.data.formats.arrow_import import import_arrow
from mtlcli.data.formats.batches import Batch, Dialect
from mtlcli.data.formats.column_builder import Kind
from mtlcli.data.formats.header import MAX_LISTED, check_columns
from mtlcli.data.formats.text_lines import unreadable
from mtlcli.data.formats.typed_columns import convert_column, describe_unreadable, is_list, is_word_list, spell_lists
from mtlcli.errors import ConfigError, Problem

ROWS = 2**14  # rows that are read at once


class ParquetRows:
    """Reader of a Parquet file.

    Raises a ConfigError if pyarrow isn't installed, or the file can't be read or has a column of a type that isn't.

    Args:
        path: the file.
        dialect: missing values, and notation of numbers and dates in columns of text.
    """

    hint, header, uses_arrow = "", "", True

    def __init__(self, path: Path, dialect: Dialect) -> None:
        self.path, self.dialect = path, dialect
        with self._open() as file:
            schema = file.schema_arrow
        self.names = list(schema.names)
        check_columns(path, self.names)
        if wrong := [
            Problem(f"{path}: column {field.name!r} {why}")
            for field in schema
            if not (field.name in dialect.lists and is_word_list(field.type))
            and (why := describe_unreadable(field.type)) is not None
        ]:
            raise ConfigError(wrong[:MAX_LISTED])

    def batches(self, kinds: Sequence[Kind | None]) -> Iterator[Batch]:
        """Yield the rows; see `TableFile`."""
        arrow = import_arrow(str(self.path))
        needed = [name for name, kind in zip(self.names, kinds, strict=True) if kind is not None]
        start = 0
        with self._open() as file:
            try:
                for rows in file.iter_batches(ROWS, columns=needed, use_threads=False):
                    columns: list[Any] = [None] * len(kinds)
                    for at, kind in enumerate(kinds):
                        if kind is not None:
                            column = rows.column(needed.index(self.names[at]))
                            if is_list(column.type):
                                columns[at] = spell_lists(column)
                            else:
                                columns[at] = convert_column(column, kind, self.dialect.notation, self.names[at])
                    yield Batch(columns, FileRows(self.path, start, rows.num_rows))
                    start += rows.num_rows
            except (OSError, arrow.ArrowException) as error:
                raise unreadable(self.path, error) from error

    def _open(self) -> Any:
        parquet = import_arrow(f"{self.path}: a Parquet file", "pyarrow.parquet")
        arrow = import_arrow(str(self.path))
        try:
            if self.path.exists() and not self.path.is_file() and not self.path.is_dir():
                raise OSError("is a pipe or a device, not a file")
            self.path.open("rb").close()  # for Python's error message
            return parquet.ParquetFile(self.path)
        except (OSError, arrow.ArrowException) as error:
            raise unreadable(self.path, error) from error


@dataclass(frozen=True)
class FileRows:
    """Consecutive rows of a file without lines.

    Attributes:
        path: the file.
        start: number of rows before the first.
        rows: number of rows.
    """

    path: Path
    start: int
    rows: int

    def __len__(self) -> int:
        return self.rows

    def place(self, row: int) -> str:
        """Return `FILE: row N`, counted from 1."""
        return f"{self.path}: row {self.start + row + 1}"
