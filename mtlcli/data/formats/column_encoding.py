"""Encoding of a table's feature columns as model inputs: fitted once, then applied to any table."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from mtlcli.data.formats.cells import Cells
from mtlcli.data.formats.column_errors import (
    check_names,
    describe_mixed_types,
    describe_non_numbers,
    refuse_other_notation,
)
from mtlcli.data.formats.numerals import Floats, Notation
from mtlcli.data.formats.table_rows import Table
from mtlcli.data.formats.text_features import fill_text, group_texts
from mtlcli.data.samplers.base import Rows
from mtlcli.errors import ConfigError
from mtlcli.specs import FIRST, MISSING, UNKNOWN, Column

PLAIN = Notation()
ROWS = 2**13  # rows encoded at once, which stay in the processor's cache
MOST_CATEGORIES = 1000  # of a feature that isn't declared categorical: with more it is likely an identifier
SMALLEST = float(np.finfo(np.float32).tiny)
ROUNDING = 4 * float(np.finfo(np.float64).eps)  # relative standard deviation that rounding alone can cause
FAR = 256.0  # |mean| / std from which float32, which rounds by up to |mean| · 2^-24, is too imprecise


@dataclass(frozen=True)
class TrainingTable:
    """Table on which columns are fitted.

    Attributes:
        table: the table.
        train: rows of the training split.
        notation: notation of its numbers and dates.
        categorical: columns declared categorical.
        texts: column of text → number of its features.
        ngrams: number of words of the longest word n-grams of the texts.
    """

    table: Table
    train: Rows
    notation: Notation = PLAIN
    categorical: Collection[str] = ()
    texts: Mapping[str, int] = field(default_factory=dict)
    ngrams: int = 1


def fit_column(sources: Sequence[TrainingTable], name: str, levels: int = MOST_CATEGORIES) -> Column:
    """Fit the encoding of a feature column on the training rows of all tables that share it.

    A column is categorical if a table declares it so or none of its values is a number, and numeric if all values are
    numbers.

    Args:
        sources: the tables.
        name: name of the column.
        levels: maximum number of categories, unless the column is declared categorical.

    Returns:
        The encoding.

    Raises:
        ConfigError: some values are numbers and others are not, the values look like numbers or dates in another
            notation, there are too many categories, or there are no values.
    """
    declared = any(name in source.categorical for source in sources)
    numeric: list[Floats] = []
    canonical: list[str | None] = []  # canonical spelling of numbers, None for a value that is not a number
    text: Table | None = None
    spelled: set[str] = set()
    for source in sources:
        cells, notation = source.table.columns[name], source.notation
        parsed, wrong = cells.numbers(notation, name)
        if wrong and not declared:
            if notation.declares(name):
                raise ConfigError(describe_non_numbers(source.table, "column", name, wrong, notation))
            if len(wrong) < cells.count_present():
                raise ConfigError(
                    describe_mixed_types(source.table, name, parsed, wrong, "list the column under `categorical`")
                )
            refuse_other_notation(source.table, name, cells, "list it under `categorical`")
            text = text or source.table
        values = cells.spread(parsed, source.train)
        if not wrong and not np.isnan(values).all():
            numeric.append(values)
        if wrong or declared:
            present = cells.list_values(source.train)
            spelled |= present
            check_names(source.table, name, present)
            canonical += map(notation.canonical, present)
    first = sources[0].table
    if not spelled and not numeric:
        raise ConfigError(first.locate(f"column {name!r} has no value in the training rows; add it to `exclude`"))
    if not declared and text is None:
        return Column(name, None, *compute_statistics(np.concatenate(numeric)))
    if not declared and numeric:
        other = next(source.table for source in sources if source.table is not text)
        raise ConfigError(
            text.locate(  # type: ignore[union-attr]
                f"column {name!r} has no numbers, but in {other.path} it has; list it under `categorical` in both"
            )
        )
    if not declared and len(spelled) > levels:
        raise ConfigError(
            first.locate(
                f"column {name!r} has {len(spelled)} categories, more than {levels}: it looks like an identifier. If "
                f"it is one, add it to `exclude`; if it is a category, list it under `categorical` or raise `levels`; "
                f"if it is text, list it under `text`"
            )
        )
    return Column(name, sort_levels(spelled, canonical))


def encode_columns(table: Table, columns: Sequence[Column], notation: Notation = PLAIN) -> Tensor:
    """Encode columns of a table as raw inputs, as `Column` defines them.

    Raises a ConfigError if a cell of a numeric column is not a number.

    Args:
        table: the table.
        columns: encodings of the columns.
        notation: notation of the table's numbers and dates.

    Returns:
        float32 [N, columns].
    """
    inputs = np.empty((len(table), len(columns)), np.float32)
    encoders = [
        (position, _make_encoder(table, column, table.columns[column.name], notation))
        for position, column in enumerate(columns)
        if column.text is None
    ]
    for start in range(0, len(table), ROWS):
        rows = slice(start, start + ROWS)
        for position, encode in encoders:
            inputs[rows, position] = encode(rows)
    if any(column.text is not None for column in columns):
        for name, (positions, encoding) in group_texts(columns).items():
            cells = table.columns[name]
            index = np.arange(len(cells)) if cells.index is None else cells.index
            fill_text(inputs, cells.values, index, encoding, positions)
    return torch.from_numpy(inputs)


def list_sources(columns: Iterable[Column]) -> list[str]:
    """List the columns of a file from which the columns of the raw inputs are made, in order.

    Args:
        columns: columns of the raw inputs.

    Returns:
        Names of columns, each once.
    """
    return list(dict.fromkeys(column.source for column in columns))


def _make_encoder(table: Table, column: Column, cells: Cells, notation: Notation) -> Callable[[slice], Floats]:
    """Return the function that encodes some rows of a column: codes or shifted numbers."""
    if column.levels is not None:
        codes = encode_levels(cells.values, column.levels, notation, FIRST, MISSING, UNKNOWN).astype(np.float64)
        return lambda rows: cells.spread(codes, rows)
    parsed, wrong = cells.numbers(notation, column.name)
    if wrong:
        raise ConfigError(describe_non_numbers(table, "numeric column", column.name, wrong, notation))

    def shift(numbers: Floats) -> Floats:
        return np.where(np.isnan(numbers), column.mean, numbers - column.offset)

    if cells.index is None:
        return lambda rows: shift(parsed[rows])
    shifted = shift(parsed)
    return lambda rows: cells.spread(shifted, rows)


def encode_levels(
    values: Sequence[str | None], levels: Sequence[str], notation: Notation, first: int, missing: int, unknown: int
) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Encode values by their positions among the levels; if the levels are numbers, in any spelling.

    Args:
        values: distinct values.
        levels: the levels.
        notation: notation of numbers.
        first: code of the first level; the others follow.
        missing: code of a missing value.
        unknown: code of a value that is not a level.

    Returns:
        int64 [values].
    """
    codes: dict[str | None, int] = {level: first + at for at, level in enumerate(levels)}
    by_number = _index_numbers(levels, notation)
    codes_of_values = np.empty(len(values), np.int64)
    for at, value in enumerate(values):
        if value is None:
            codes_of_values[at] = missing
        elif value in codes or by_number is None:
            codes_of_values[at] = codes.get(value, unknown)
        else:
            codes_of_values[at] = codes.get(by_number.get(notation.canonical(value)), unknown)
    return codes_of_values


def _index_numbers(levels: Sequence[str], notation: Notation) -> dict[str | None, str] | None:
    """Map canonical numbers to levels if all levels are numbers; else None."""
    by_number: dict[str | None, str] = {}
    for level in levels:
        if (number := PLAIN.canonical(level) or notation.canonical(level)) is None:
            return None
        by_number.setdefault(number, level)
    return by_number


def sort_values(values: Collection[str]) -> tuple[str, ...]:
    """Sort values numerically if all are numbers, else alphabetically."""
    parsed, wrong = PLAIN.numbers(ordered := sorted(values))
    return tuple(ordered if wrong else [ordered[at] for at in np.argsort(parsed, kind="stable")])


def signed_log1p(shifted: Floats, offset: float = 0.0) -> Floats:
    """Compute sign(x)·log(1 + |x|) for x = shifted + offset, minus the same of `offset`, without cancellation.

    Args:
        shifted: x − offset.
        offset: offset of the column.

    Returns:
        Logarithms, of the shape of `shifted`.
    """
    x = shifted + offset
    sign, size = np.sign(offset), abs(offset)
    with np.errstate(invalid="ignore", divide="ignore"):
        near = sign * np.log1p(sign * shifted / (1 + size))
    logs: Floats = np.where(sign * x > 0, near, np.sign(x) * np.log1p(np.abs(x)) - sign * np.log1p(size))
    return logs


def compute_statistics(values: Floats) -> tuple[float, float, float, float, float]:
    """Compute mean, std, log_mean, log_std and offset of a column, as `Column` defines them, ignoring missing values.

    A standard deviation that rounding alone can cause counts as 0. A standard deviation of 0, or one that float32 can't
    represent, is replaced by 1.

    Args:
        values: numbers of the column, NaN if missing; at least one is not.

    Returns:
        (mean, std, log_mean, log_std, offset).
    """
    values = values[~np.isnan(values)]
    origin = values[0]
    deviations = values - origin
    mean, std = float(origin + deviations.mean()), float(deviations.std())
    largest = float(np.abs(values).max())
    if std <= ROUNDING * largest:  # constant
        return mean, 1.0, float(signed_log1p(np.array([mean]))[0]), 1.0, 0.0
    offset = 0.0
    if abs(mean) > FAR * std:  # a round number, so that raw inputs are legible
        offset = round(mean, -math.floor(math.log10(std)))
        deviations = values - offset
        mean = float(deviations.mean())
        values = deviations
    logs = signed_log1p(values, offset)
    log_std = float((logs - logs[0]).std())
    return mean, _usable(std), float(logs.mean()), _usable(log_std), offset


def _usable(std: float) -> float:
    return std if std > SMALLEST else 1.0


def sort_levels(values: Collection[str], numbers: Collection[str | None]) -> tuple[str, ...]:
    """Sort the categories of a column; if all are numbers, in their canonical spelling.

    Args:
        values: the distinct values.
        numbers: canonical spelling of each value, None for one that is not a number.

    Returns:
        The categories.
    """
    return sort_values(values if None in numbers else {number for number in numbers if number is not None})
