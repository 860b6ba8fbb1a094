"""Rows of a table that are passed from Python, encoded as the columns of a trained model."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from mtlcli.data.formats.cells import Cells
from mtlcli.data.formats.column_encoding import encode_columns, list_sources
from mtlcli.data.formats.numerals import ISO, Notation
from mtlcli.data.formats.table_rows import Table
from mtlcli.errors import ConfigError, InputError, suggest
from mtlcli.specs import Column
from mtlcli.text import join_names


def is_rows(data: Any) -> bool:
    """Return whether `data` is in one of the forms that `encode_rows` takes."""
    frame = hasattr(data, "columns") and hasattr(data, "dtypes")
    rows = isinstance(data, list | tuple) and len(data) > 0 and all(isinstance(row, Mapping) for row in data)
    return frame or isinstance(data, Mapping) or rows


def encode_rows(
    data: Any,
    columns: Sequence[Column],
    notation: Notation,
    missing: Collection[str],
    others: Collection[str] = (),
) -> Tensor:
    """Encode rows of numbers, categories, dates and texts as the raw inputs of a model.

    Strings are read as in a data file: numbers in the table's notation, categories by their name. `None`, NaN, NaT and
    the strings in `missing` are missing values.

    Args:
        data: A dict of columns, a list of dicts (one for each row), or a pandas DataFrame.
        columns: The model's columns, in order.
        notation: Notation of numbers and dates in strings.
        missing: Strings that mean a missing value.
        others: Names of further columns that may be present and are ignored, such as the targets.

    Returns:
        Encoded inputs, float32 [B, len(columns)], as `Column` defines them.

    Raises:
        InputError: A column is missing, unknown or of another length, or a value is not of its column's type.
    """
    by_source = {column.source: column for column in columns}
    given = dict(zip(by_source, select_cells(data, list_sources(columns), others), strict=True))
    cells = {name: _cells(column, given[name], notation, missing) for name, column in by_source.items()}
    table = Table(Path("rows"), cells, _NumberedRows(len(next(iter(given.values())))))
    try:
        return encode_columns(table, columns, notation)
    except ConfigError as error:
        raise InputError(str(error)) from error


def select_cells(data: Any, names: Sequence[str], others: Collection[str] = ()) -> list[list[Any]]:
    """Return the cells of some columns.

    Args:
        data: A dict of columns, a list of dicts (one for each row), or a pandas DataFrame.
        names: Names of the columns.
        others: Names of further columns that may be present and are ignored.

    Returns:
        The cells of each column.

    Raises:
        InputError: A column is missing, unknown or of another length.
    """
    given = _columns_of(data)
    _check_names(names, given, others)
    lengths = {name: len(values) for name, values in given.items()}
    if len(set(lengths.values())) > 1:
        raise InputError(
            f"the columns differ in length: {join_names([f'{n} {length}' for n, length in lengths.items()])}"
        )
    return [given[name] for name in names]


@dataclass(frozen=True)
class _NumberedRows:
    """Places of rows that are known by their position."""

    rows: int

    def __len__(self) -> int:
        return self.rows

    def place(self, row: int) -> str:
        return f"row {row}"


def _columns_of(data: Any) -> dict[str, list[Any]]:
    if isinstance(data, list | tuple):
        names = list(dict.fromkeys(str(name) for row in data for name in row))
        for position, row in enumerate(data):
            if lacking := [name for name in names if name not in row]:
                raise InputError(f"row {position} has no {lacking[0]!r}; use None for a missing value")
        return {name: [row[name] for row in data] for name in names}
    if isinstance(data, Mapping):
        return {str(name): _values(str(name), values) for name, values in data.items()}
    return {str(name): data[name].tolist() for name in data.columns}


def _values(name: str, values: Any) -> list[Any]:
    if hasattr(values, "tolist"):
        values = values.tolist()
    if isinstance(values, str | bytes) or not isinstance(values, Sequence):
        raise InputError(f"column {name!r}: expected a sequence with a value for each row, got {type(values).__name__}")
    return list(values)


def _check_names(wanted: Sequence[str], given: Mapping[str, Any], others: Collection[str]) -> None:
    unknown = [name for name in given if name not in wanted and name not in others]
    if lacking := [name for name in wanted if name not in given]:
        hint = suggest(lacking[0], unknown)
        more = f" (and {len(lacking) - 1} more)" if len(lacking) > 1 else ""
        raise InputError(
            f"column {lacking[0]!r} is missing{more}.{hint} The model's columns: {join_names(list(wanted))}"
        )
    if unknown:
        hint = suggest(unknown[0], wanted)
        raise InputError(f"unknown column {unknown[0]!r}.{hint} The model's columns: {join_names(list(wanted))}")


def _cells(column: Column, values: Sequence[Any], notation: Notation, missing: Collection[str]) -> Cells:
    form = dict(notation.dates).get(column.source)
    positions: dict[str | None, int] = {}
    index = np.empty(len(values), np.int32)
    for row, value in enumerate(values):
        text = _text(column, value, notation, form)
        text = None if text is None or text == "" or text in missing else text
        index[row] = positions.setdefault(text, len(positions))
    return Cells(tuple(positions), index)


def _text(column: Column, value: Any, notation: Notation, form: str | None) -> str | None:
    """Return the value as a data file would spell it; None for a missing one."""
    if hasattr(value, "item") and getattr(value, "shape", None) == ():  # a NumPy scalar or a 0-d tensor
        value = value.item()
    if value is None or type(value).__name__ in ("NAType", "NaTType") or value != value:
        return None
    if isinstance(value, bool):
        return _truth(column, value)
    if isinstance(value, datetime | date):
        return value.isoformat() if form in (None, ISO) else value.strftime(form)
    if isinstance(value, int | float):
        return repr(value).replace(".", notation.decimal)
    return str(value).strip()


def _truth(column: Column, value: bool) -> str:
    """Return the spelling of a boolean among the column's categories; 1 or 0 in a column of numbers."""
    spellings = (str(value), str(value).lower(), str(value).upper(), str(int(value)))
    return next((text for text in spellings if text in (column.levels or ())), spellings[-1])
