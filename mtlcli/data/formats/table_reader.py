"""Reading of table files, whole or in chunks of rows."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mtlcli.data.formats.arrow_import import import_arrow
from mtlcli.data.formats.batches import Batch, Dialect, TableFile
from mtlcli.data.formats.cells import Cells
from mtlcli.data.formats.column_builder import ColumnBuilder, Kind
from mtlcli.data.formats.compressed import SUFFIXES, verify_compressed
from mtlcli.data.formats.delimited_text import DelimitedText
from mtlcli.data.formats.json_lines import JsonLines
from mtlcli.data.formats.parquet_rows import ParquetRows
from mtlcli.data.formats.table_rows import JoinedPlaces, Places, Table
from mtlcli.data.formats.text_lines import unreadable
from mtlcli.errors import ConfigError

JSON_LINES, PARQUET = (".jsonl", ".ndjson"), (".parquet", ".pq")
CHUNK = 2**16  # rows


def read_table(path: Path, dialect: Dialect, header: Sequence[str] = (), texts: Collection[str] = ()) -> Table:
    """Read a table from a file, whose format is the ending of its name.

    Args:
        path: the file.
        dialect: delimiter, missing values, and notation of numbers and dates.
        header: names of the columns, if the file is delimited text without a header.
        texts: columns whose cells are never stored as numbers, because they are compared as texts.

    Returns:
        The table.

    Raises:
        ConfigError: the file can't be read, isn't a table, or has rows of different lengths, an unclosed quote or a
            second header; with the line.
    """
    reading = _Reading(_open_table(path, dialect, header), dialect, texts)
    for _ in reading.read():
        pass
    if not reading.places:
        raise _without_rows(reading.file)
    return reading.finish()


def read_chunks(
    path: Path,
    dialect: Dialect,
    rows: int = CHUNK,
    texts: Collection[str] = (),
    numbers: Collection[str] = (),
    columns: Sequence[str] = (),
) -> Iterator[Table]:
    """Read a table in chunks of rows, in memory that doesn't depend on the number of rows.

    Args:
        path: the file.
        dialect: delimiter, missing values, and notation of numbers and dates.
        rows: number of rows from which on a chunk ends; it may be longer by a block of the file (1 MiB of text).
        texts: columns whose cells are never stored as numbers.
        numbers: columns that are expected to consist of numbers, which are read faster if they do.
        columns: columns that every chunk has: in JSON Lines, a row without the key has a missing value, and a key that
            no row has is an error at the end of the file. Other formats name their columns in advance.

    Yields:
        Chunks with at least one row, in order. Places of rows are those in the file.

    Raises:
        ConfigError: as `read_table`; when the chunk with the error is reached.
    """
    reading = _Reading(_open_table(path, dialect, (), columns), dialect, texts, numbers)
    for _ in reading.read():
        if reading.rows >= rows:
            yield reading.finish()
            reading.restart()
    if reading.places:
        yield reading.finish()
    elif not reading.start:
        raise _without_rows(reading.file)


def _open_table(path: Path, dialect: Dialect, header: Sequence[str] = (), columns: Sequence[str] = ()) -> TableFile:
    """Open a file by the ending of its name."""
    suffix = next((suffix.lower() for suffix in reversed(path.suffixes) if suffix not in SUFFIXES), "")
    if suffix in PARQUET:
        return ParquetRows(path, dialect)
    return JsonLines(path, dialect, columns) if suffix in JSON_LINES else DelimitedText(path, dialect, header)


def _without_rows(file: TableFile) -> ConfigError:
    return ConfigError(f"{file.path}: has {'a header and ' if file.header else ''}no rows")


@dataclass
class _Reading:
    """Rows of a file that are being read.

    Attributes:
        file: the file.
        dialect: its notation.
        texts: columns that stay texts.
        numbers: columns that are read as numbers at once.
        start: number of rows before the first of these rows.
        places: places of the rows.
        builders: their columns.
        kinds: representation of each column.
        faulty: row → message, of invalid rows.
    """

    file: TableFile
    dialect: Dialect
    texts: Collection[str]
    numbers: Collection[str] = ()
    start: int = 0
    places: list[Places] = field(default_factory=list)
    builders: list[ColumnBuilder] = field(default_factory=list)
    kinds: list[Kind | None] = field(default_factory=list)
    faulty: dict[int, str] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """The number of rows."""
        return sum(map(len, self.places))

    def read(self) -> Iterator[None]:
        """Append the rows of the file in batches."""
        self._add_builders()
        try:
            for batch in self.file.batches(self.kinds):
                self._append(batch)
                yield
        except ConfigError:
            _report_damage(self.file.path)
            raise

    def restart(self) -> None:
        """Forget the rows that have been read."""
        self.start += self.rows
        self.places, self.builders, self.faulty = [], [], {}
        self._add_builders()

    def finish(self) -> Table:
        """Return the rows that have been read."""
        start, places = self.start, JoinedPlaces(self.places)
        if self.file.uses_arrow:
            arrow = import_arrow(str(self.file.path))
            arrow.system_memory_pool().release_unused()
            arrow.default_memory_pool().release_unused()

        def read_texts(at: int) -> Cells:
            return _read_texts(self.file, self.dialect, at, start, len(places))

        columns = {
            name: builder.finish(lambda at=at: read_texts(at))  # type: ignore[misc]
            for at, (name, builder) in enumerate(zip(self.file.names, self.builders, strict=True))
        }
        return Table(self.file.path, columns, places, self.file.hint, self.file.header, self.faulty)

    def _append(self, batch: Batch) -> None:
        self._add_builders()
        for builder, cells in zip(self.builders, batch.columns, strict=True):
            if isinstance(cells, Sequence):
                builder.add(cells)
            else:
                builder.add_array(cells)
        if batch.faulty:
            before = self.rows
            self.faulty.update({before + row: message for row, message in batch.faulty.items()})
        self.places.append(batch.places)
        self.kinds[:] = [builder.kind for builder in self.builders]

    def _add_builders(self) -> None:
        """Add columns for new names."""
        for name in self.file.names[len(self.builders) :]:
            text = name in self.texts or self.dialect.notation.declares(name)
            kind: Kind = "numbers" if name in self.numbers and not text and self.file.uses_arrow else "values"
            builder = ColumnBuilder(self.dialect.missing, None if text else self.dialect.notation, kind)
            if rows := self.rows:
                builder.add([None] * rows)
            self.builders.append(builder)
        self.kinds[:] = [builder.kind for builder in self.builders]


def _report_damage(path: Path) -> None:
    """Raise ConfigError if a compressed file is damaged, which would explain any other error."""
    try:
        verify_compressed(path)
    except OSError as error:
        raise unreadable(path, error) from error


def _read_texts(file: TableFile, dialect: Dialect, column: int, start: int, rows: int) -> Cells:
    """Read a column of some rows again, as texts."""
    builder = ColumnBuilder(dialect.missing, None, "texts")
    kinds: list[Kind | None] = ["texts" if at == column else None for at in range(len(file.names))]
    row = 0
    for batch in file.batches(kinds):
        cells = batch.columns[column]
        first, last = max(start - row, 0), min(start + rows - row, len(cells))
        if first < last:
            cells = cells[first:last]
            builder.add(cells) if isinstance(cells, Sequence) else builder.add_array(cells)
        row += len(batch.places)
        if row >= start + rows:
            break
    return builder.finish(lambda: Cells((), None))
