"""Writers of prediction files: CSV, JSON lines, Parquet, and NumPy arrays of features."""

from __future__ import annotations

import csv
import json
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np

from mtlcli.errors import ConfigError, suggest
from mtlcli.files import atomic_write, quote_path

SEPARATOR = ";"  # of several labels in one cell of a CSV file
NO_TAG = "_"  # in CSV, the tag of a word that was truncated
Form = Literal["text", "integer", "number", "texts", "words", "vector"]
FORMATS = (".csv", ".jsonl", ".parquet", ".npy")


@dataclass(frozen=True)
class OutputColumn:
    """A column of a prediction file.

    Attributes:
        name: Its name.
        form: Type of a value: a text, an integer, a number, a list of texts, a list of tags of words (None for a word
            without one), or a vector of features.
        values: The values of some rows.
    """

    name: str
    form: Form
    values: Sequence[Any] | np.ndarray[Any, Any]


class PredictionWriter(ABC):
    """Base class of the writers, to which the rows are passed in order, some at a time."""

    @abstractmethod
    def write(self, columns: Sequence[OutputColumn]) -> None:
        """Write rows.

        Args:
            columns: The columns, of equal length; the same names and forms in each call.
        """

    def close(self) -> None:  # noqa: B027  (most formats need no end)
        """Complete the file."""


class CSVWriter(PredictionWriter):
    """Writer of CSV with a header.

    Several labels are joined by a semicolon, tags of words by blanks, with `_` for a missing one. A float is written
    with all its digits; one that isn't finite is an empty cell.

    Args:
        file: Text file to write to.
    """

    def __init__(self, file: IO[str]) -> None:
        self._rows = csv.writer(file, lineterminator="\n")
        self._started = False

    def write(self, columns: Sequence[OutputColumn]) -> None:
        """Write rows, and the header before the first."""
        if not self._started:
            self._rows.writerow([column.name for column in columns])
            self._started = True
        self._rows.writerows(zip(*map(_as_cells, columns), strict=True))


class JSONLinesWriter(PredictionWriter):
    """Writer of one JSON object a row; a float that isn't finite is `null`.

    Args:
        file: Text file to write to.
    """

    def __init__(self, file: IO[str]) -> None:
        self._file = file

    def write(self, columns: Sequence[OutputColumn]) -> None:
        """Write rows."""
        names = [column.name for column in columns]
        for row in zip(*(_as_json(column) for column in columns), strict=True):
            self._file.write(json.dumps(dict(zip(names, row, strict=True)), ensure_ascii=False) + "\n")


class ParquetWriter(PredictionWriter):
    """Writer of Parquet files.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writer: Any = None

    def write(self, columns: Sequence[OutputColumn]) -> None:
        """Write rows as a row group."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        types: dict[Form, Any] = {
            "text": pa.string(), "integer": pa.int64(), "number": pa.float64(), "texts": pa.list_(pa.string()),
            "words": pa.list_(pa.string()), "vector": pa.list_(pa.float32()),
        }  # fmt: skip
        arrays = [pa.array(_as_plain(column), type=types[column.form]) for column in columns]
        table = pa.table(arrays, names=[column.name for column in columns])
        if self._writer is None:
            self._writer = pq.ParquetWriter(self._path, table.schema)
        self._writer.write_table(table)

    def close(self) -> None:
        """Write the footer."""
        if self._writer is not None:
            self._writer.close()


class FeaturesWriter(PredictionWriter):
    """Writer of a `.npy` array [N, features] of the only column of vectors; other columns are not written.

    Args:
        file: Binary file to write to.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._shape: tuple[int, ...] | None = None

    def write(self, columns: Sequence[OutputColumn]) -> None:
        """Append the vectors."""
        vectors = [column for column in columns if column.form == "vector"]
        values = np.asarray(vectors[0].values, np.float32)
        if self._shape is None:
            self._shape = (0, *values.shape[1:])
            self._header()
        self._shape = (self._shape[0] + len(values), *self._shape[1:])
        self._file.write(values.tobytes())

    def close(self) -> None:
        """Write the number of rows into the header, which reserves space for it."""
        if self._shape is not None:
            self._file.seek(0)
            self._header()

    def _header(self) -> None:
        header = {"descr": "<f4", "fortran_order": False, "shape": self._shape}
        np.lib.format.write_array_header_1_0(self._file, header)


@contextmanager
def open_writer(path: Path | None, stdout: IO[str]) -> Iterator[PredictionWriter]:
    """Open the writer for a file, which is written atomically.

    Args:
        path: The file, whose suffix is one of `FORMATS`; None for CSV on `stdout`.
        stdout: Text stream.

    Yields:
        The writer.
    """
    if path is None:
        yield CSVWriter(stdout)
        return
    suffix = path.suffix.lower()
    with atomic_write(path) as temporary:
        if suffix == ".parquet":
            writer: PredictionWriter = ParquetWriter(temporary)
            yield writer
            writer.close()
        elif suffix == ".npy":
            with temporary.open("wb") as binary:
                writer = FeaturesWriter(binary)
                yield writer
                writer.close()
        else:
            with temporary.open("w", encoding="utf-8", errors="backslashreplace", newline="") as text:
                yield JSONLinesWriter(text) if suffix == ".jsonl" else CSVWriter(text)


def check_output(path: Path, features: bool) -> None:
    """Check the path of a prediction file before anything is computed.

    Args:
        path: The file.
        features: Whether features are written too.

    Raises:
        ConfigError: It is a folder, its folder doesn't exist, or its suffix is not that of a suitable format.
    """
    shown, suffix = quote_path(path), path.suffix.lower()
    if path.is_dir():
        raise ConfigError(f"--out {shown}: is a folder; give the file to write")
    if not path.parent.is_dir():
        raise ConfigError(f"--out {shown}: the folder {quote_path(path.parent)} does not exist")
    if suffix not in FORMATS:
        raise ConfigError(f"--out {shown}: unknown format.{suggest(suffix, FORMATS)} Choose from: {', '.join(FORMATS)}")
    if suffix == ".parquet" and find_spec("pyarrow") is None:
        raise ConfigError(f"--out {shown}: .parquet needs the package pyarrow: pip install 'mtlcli[data]'")
    if suffix == ".npy" and not features:
        raise ConfigError(f"--out {shown}: a .npy file holds features; add --features, or choose .csv for predictions")
    if suffix == ".csv" and features:
        raise ConfigError(f"--out {shown}: features are not written to .csv; choose .parquet, .jsonl or .npy")


def _as_cells(column: OutputColumn) -> Iterable[Any]:
    if column.form == "texts":
        return [SEPARATOR.join(labels) for labels in column.values]
    if column.form == "words":
        return [" ".join(NO_TAG if tag is None else tag for tag in tags) for tags in column.values]
    if column.form == "number":
        return [repr(value) if math.isfinite(value) else "" for value in column.values]
    return column.values


def _as_json(column: OutputColumn) -> Iterable[Any]:
    if column.form == "number":
        return [value if math.isfinite(value) else None for value in column.values]
    return _as_plain(column)


def _as_plain(column: OutputColumn) -> Iterable[Any]:
    return column.values.tolist() if isinstance(column.values, np.ndarray) else column.values
