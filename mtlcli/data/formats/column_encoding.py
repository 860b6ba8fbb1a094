"""The feature columns of a table as model inputs, numbers and codes of categories: fitted once, then applied."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mtlcli.data.formats.csv_reader import Cells, Table
from mtlcli.data.formats.numerals import ISO, Floats, Notation, describe_notation, detect_notation
from mtlcli.data.shuffling import Rows
from mtlcli.errors import ConfigError
from mtlcli.specs import FIRST, MISSING, UNKNOWN, Column
from mtlcli.text import fault, shown

PLAIN = Notation()
MOST_CATEGORIES = 1000  # of a feature that isn't declared categorical: with more it is likely an identifier
SMALLEST = float(np.finfo(np.float32).tiny)
ROUNDING = 4 * float(np.finfo(np.float64).eps)  # relative to the values: a spread that is nothing but rounding
FAR = 256.0  # |mean| / std from which float32, which rounds by up to |mean| · 2^-24, is not enough for the values


@dataclass(frozen=True)
class TrainingTable:
    """A table to fit columns on: its training rows, the notation of its numbers, its columns declared categorical."""

    table: Table
    train: Rows
    notation: Notation = PLAIN
    categorical: Collection[str] = ()


def fit_column(sources: Sequence[TrainingTable], name: str, levels: int = MOST_CATEGORIES) -> Column:
    """The encoding of feature column `name`, fitted on the training rows of all tables that share it.

    A column is categorical where one of the tables declares it so or none of its values is a number, and numeric where
    all are numbers. levels: the most categories of a column that isn't declared. ConfigError where some values are
    numbers and others are not, where the values look like numbers or dates in another notation, and where there are no
    values.
    """
    declared = any(name in source.categorical for source in sources)
    numeric: list[Floats] = []
    known: list[str | None] = []  # with numbers in their canonical spelling, None for one that is no number
    text: Table | None = None
    spelled: set[str] = set()
    for source in sources:
        cells, notation = source.table.columns[name], source.notation
        parsed, wrong = notation.numbers(cells.values, name)
        if wrong and not declared:
            if name in dict(notation.dates):
                raise not_numbers_error(source.table, "column", name, wrong, notation)
            if len(wrong) < count_values(cells):
                raise mixed_types_error(source.table, name, parsed, wrong, "list the column under `categorical`")
            refuse_other_notation(source.table, name, cells, "list it under `categorical`")
            text = text or source.table
        present = cells.among(source.train)
        if present and not wrong:
            numeric.append(parsed[cells.index[source.train]])
        spelled |= present
        if wrong or declared:
            check_names(source.table, name, present)
            known += map(notation.canonical, present)
    first = sources[0].table
    if not spelled:
        raise first.error(f"column {name!r} has no value in the training rows; add it to `exclude`")
    if not declared and text is None:
        return Column(name, None, *compute_statistics(np.concatenate(numeric)))
    if not declared and numeric:
        other = next(source.table for source in sources if source.table is not text)
        raise text.error(  # type: ignore[union-attr]
            f"column {name!r} holds no numbers, and in {other.path} it does; list it under `categorical` in both"
        )
    if not declared and len(spelled) > levels:
        raise first.error(
            f"column {name!r} has {len(spelled)} categories, more than {levels}: it looks like an identifier. If it is "
            f"one, add it to `exclude`; if it is a category, list it under `categorical` or raise `levels`"
        )
    return Column(name, sort_levels(spelled, known))


def encode_columns(table: Table, columns: Sequence[Column], notation: Notation = PLAIN) -> Tensor:
    """The raw inputs, float32 [N, columns], as `Column` defines them. ConfigError for a numeric cell that is none."""
    inputs = np.empty((len(table), len(columns)), np.float32)
    for position, column in enumerate(columns):
        cells = table.columns[column.name]
        inputs[:, position] = _encoded(table, column, cells, notation)[cells.index]
    return torch.from_numpy(inputs)


def _encoded(table: Table, column: Column, cells: Cells, notation: Notation) -> Floats:
    """The code or the shifted number of each distinct value."""
    if column.levels is not None:
        return encode_levels(cells.values, column.levels, notation, FIRST, MISSING, UNKNOWN).astype(np.float64)
    parsed, wrong = notation.numbers(cells.values, column.name)
    if wrong:
        raise not_numbers_error(table, "numeric column", column.name, wrong, notation)
    return np.where(np.isnan(parsed), column.mean, parsed - column.offset)


def encode_levels(
    values: Sequence[str | None], levels: Sequence[str], notation: Notation, first: int, missing: int, unknown: int
) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """The code of each value: `first` + i for levels[i], in any spelling where the levels are numbers."""
    codes: dict[str | None, int] = {level: first + at for at, level in enumerate(levels)}
    by_number = _by_number(levels, notation)
    codes_of_values = np.empty(len(values), np.int64)
    for at, value in enumerate(values):
        if value is None:
            codes_of_values[at] = missing
        elif value in codes or by_number is None:
            codes_of_values[at] = codes.get(value, unknown)
        else:
            codes_of_values[at] = codes.get(by_number.get(notation.canonical(value)), unknown)
    return codes_of_values


def _by_number(levels: Sequence[str], notation: Notation) -> dict[str | None, str] | None:
    """Canonical number → level, where all levels are numbers; else None."""
    by_number: dict[str | None, str] = {}
    for level in levels:
        if (number := PLAIN.canonical(level) or notation.canonical(level)) is None:
            return None
        by_number.setdefault(number, level)
    return by_number


def sort_values(values: Collection[str]) -> tuple[str, ...]:
    """By number where all are numbers, else by alphabet."""
    parsed, wrong = PLAIN.numbers(ordered := sorted(values))
    return tuple(ordered if wrong else [ordered[at] for at in np.argsort(parsed, kind="stable")])


def signed_log1p(shifted: Floats, offset: float = 0.0) -> Floats:
    """sign(x)·log(1 + |x|) less the same of `offset`, for x = shifted + offset, without cancellation."""
    x = shifted + offset
    sign, size = np.sign(offset), abs(offset)
    with np.errstate(invalid="ignore", divide="ignore"):
        near = sign * np.log1p(sign * shifted / (1 + size))
    logs: Floats = np.where(sign * x > 0, near, np.sign(x) * np.log1p(np.abs(x)) - sign * np.log1p(size))
    return logs


def compute_statistics(values: Floats) -> tuple[float, float, float, float, float]:
    """mean, std, log_mean, log_std and offset of a column, as `Column` has them, over the values that aren't missing.

    A spread that rounding alone can make counts as none. The standard deviation of values that are all the same is
    taken to be 1, as is one that float32 can't hold.
    """
    values = values[~np.isnan(values)]
    origin = values[0]
    deviations = values - origin
    mean, std = float(origin + deviations.mean()), float(deviations.std())
    largest = float(np.abs(values).max())
    if std <= ROUNDING * largest:  # constant
        return mean, 1.0, float(signed_log1p(np.array([mean]))[0]), 1.0, 0.0
    offset = 0.0
    if abs(mean) > FAR * std:  # a round number, so that raw inputs can be read
        offset = round(mean, -math.floor(math.log10(std)))
        deviations = values - offset
        mean = float(deviations.mean())
        values = deviations
    logs = signed_log1p(values, offset)
    log_std = float((logs - logs[0]).std())
    return mean, _usable(std), float(logs.mean()), _usable(log_std), offset


def _usable(std: float) -> float:
    return std if std > SMALLEST else 1.0


def sort_levels(known: Collection[str], numbers: Collection[str | None]) -> tuple[str, ...]:
    """The categories of the values `known`, in order: where all are numbers, these, each in its canonical spelling."""
    return sort_values(known if None in numbers else {number for number in numbers if number is not None})


def refuse_other_notation(table: Table, name: str, cells: Cells, remedy: str) -> None:
    """ConfigError where the values, none of which is a number, look like numbers or dates in another notation."""
    present = [at for at, value in enumerate(cells.values) if value is not None]
    if likeness := detect_notation([cells.values[at] or "" for at in present]):
        rows = cells.rows([present[likeness[0]]])[:1]
        raise table.error(
            f"{quote_value(cells, rows)} in column {name!r} looks like {likeness[1]}. If its values are categories, "
            f"{remedy}{'' if 'targets' in remedy else '; to leave it out, add it to `exclude`'}", rows
        )  # fmt: skip


def mixed_types_error(table: Table, name: str, parsed: Floats, wrong: Sequence[int], remedy: str) -> ConfigError:
    """The error for a column in which some values are numbers and others are not: it names the rarer ones."""
    cells = table.columns[name]
    rows, numbers = cells.rows(wrong), cells.rows(np.flatnonzero(~np.isnan(parsed)).tolist())
    if len(rows) > len(numbers):
        return table.error(
            f"{quote_value(cells, numbers)} in column {name!r} is a number, and {len(rows)} values of it are not. "
            f"Correct it, or {remedy}", numbers
        )  # fmt: skip
    return table.error(
        f"{quote_value(cells, rows)} in column {name!r} is no finite number, and {len(numbers)} values are"
        f"{_likeness(cells, rows)}. Correct it, add it to `missing` (a list "
        f"of your own replaces the default one), or {remedy}", rows
    )  # fmt: skip


def not_numbers_error(table: Table, where: str, name: str, wrong: Sequence[int], notation: Notation) -> ConfigError:
    """The error for cells that have to be numbers, or dates where the column is under `dates`, and are not."""
    cells = table.columns[name]
    rows = cells.rows(wrong)
    target = "target" in where
    if (form := dict(notation.dates).get(name)) is not None:
        known = "in ISO 8601, such as 2023-07-14" if form == ISO else f"of the format {form!r}"
        reason = f"is no date {known}: correct it, or set the format under `dates`"
    else:
        hint = suggest_classes(name) if target else ""
        reason = f"is {'not a' if target else 'no finite'} number{_likeness(cells, rows)}{hint}"
    return table.error(f"{quote_value(cells, rows)} in the {where} {name!r} {reason}", rows)


def _likeness(cells: Cells, rows: Sequence[int]) -> str:
    likeness = describe_notation(get_first_value(cells, rows))
    return f"; it looks like {likeness}" if likeness else ""


def suggest_classes(name: str) -> str:
    return f"; for categories say `targets: {{{name}: classes}}`"


def check_names(table: Table, name: str, known: Collection[str]) -> None:
    """ConfigError where a value of column `name` that becomes a category can't be a name."""
    cells = table.columns[name]
    for at, value in enumerate(cells.values):
        if value in known and (why := fault(value or "")):
            raise table.error(f"{shown(value)} in column {name!r} {why}", cells.rows([at]))


def count_values(cells: Cells) -> int:
    """The number of distinct values that aren't missing."""
    return len(cells.values) - (None in cells.values)


def get_first_value(cells: Cells, rows: Sequence[int]) -> str:
    """The value of the first of the rows."""
    return cells.values[int(cells.index[rows[0]])] or ""


def quote_value(cells: Cells, rows: Sequence[int]) -> str:
    """The value of the first of the rows, quoted."""
    return shown(get_first_value(cells, rows))
