"""What a table's columns become: inputs (numbers, codes of categories) and targets. Fitted once, then fixed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from mtlcli.data.names import fault, listed, shown
from mtlcli.data.table import Cells, Floats, Rows, Table, numbers
from mtlcli.specs import IGNORE_INDEX, Column, TargetSpec

TargetType = Literal["classes", "binary", "real"]
MOST_CATEGORIES = 1000  # of a feature: with more it is likely an identifier
SMALLEST = float(np.finfo(np.float32).tiny)
TRUTH = {"true": 1.0, "false": 0.0}
MISSING, FIRST = 1, 2  # codes of a missing category, and of the first one there is; 0: none of those of the training


def fit_column(table: Table, name: str, train: Rows, categorical: bool) -> Column:
    """What column `name` is: numeric where all its values are numbers and it isn't said to be `categorical`.

    Fitted on the rows `train`. ConfigError for a column that is empty, neither one nor the other, or an identifier.
    """
    cells = table.columns[name]
    parsed, wrong = numbers(cells.values)
    unreadable = set(wrong)
    fine = [at for at, value in enumerate(cells.values) if value is not None and at not in unreadable]
    if wrong and fine and not categorical:
        rows = cells.rows(wrong)
        raise table.error(
            f"{_value(cells, rows)} in column {name!r} is no finite number, and {len(cells.rows(fine))} values are. "
            f"Correct it, add it to `missing`, or add the column to `categorical`", rows
        )  # fmt: skip
    known = cells.among(train)
    if not known:
        raise table.error(f"column {name!r} has no value in the training rows; leave it out of `features`")
    if not categorical and not wrong:
        values = parsed[cells.index[train]]
        return Column(name, None, *statistics(values), *statistics(log1p(values)))
    if len(known) > MOST_CATEGORIES:
        raise table.error(
            f"column {name!r} has {len(known)} categories, more than {MOST_CATEGORIES}: it looks like an "
            f"identifier; leave it out of `features`"
        )
    return Column(name, _names(table, name, known))


def encode_columns(table: Table, columns: Sequence[Column]) -> Tensor:
    """float32 [N, columns], as `Column` says. ConfigError where a numeric column holds something else."""
    inputs = np.empty((len(table), len(columns)), np.float32)
    for position, column in enumerate(columns):
        cells = table.columns[column.name]
        inputs[:, position] = _encoded(table, column, cells)[cells.index]
    return torch.from_numpy(inputs)


def _encoded(table: Table, column: Column, cells: Cells) -> Floats:
    """The code or the number of each distinct value."""
    if column.levels is not None:
        codes: dict[str | None, int] = {level: FIRST + at for at, level in enumerate(column.levels)}
        codes[None] = MISSING
        return np.array([codes.get(value, 0) for value in cells.values], np.float64)
    parsed, wrong = numbers(cells.values)
    if wrong:
        rows = cells.rows(wrong)
        raise table.error(f"{_value(cells, rows)} in the numeric column {column.name!r} is no finite number", rows)
    return np.where(np.isnan(parsed), column.mean, parsed)


def fit_target(table: Table, name: str, train: Rows, type_: TargetType | None) -> TargetSpec:
    """What target `name` is. type_: None: `binary` where all is 0 or 1, `real` where all is numbers, else `classes`.

    Its classes, or its mean and standard deviation, are those of the rows `train`. ConfigError for values that aren't
    of the type, for fewer than two classes, and where there are no labels.
    """
    cells = table.columns[name]
    missing = None in cells.values
    if type_ is None:
        parsed, wrong = numbers(cells.values)
        type_ = "classes" if wrong else "binary" if set(parsed[~np.isnan(parsed)]) <= {0.0, 1.0} else "real"
    known = cells.among(train)
    if not known:
        raise table.error(f"target {name!r} has no label in the training rows")
    if type_ != "classes":
        labels = encode_target(table, name, TargetSpec(type_)).numpy().astype(np.float64)
        mean, std = statistics(labels[train]) if type_ == "real" else (0.0, 1.0)
        return TargetSpec(type_, missing=missing, mean=mean, std=std)
    if len(known) < 2:
        raise table.error(f"target {name!r} has only the class {shown(known.pop())} in the training rows")
    return TargetSpec("classes", len(known), _names(table, name, known), missing)


def encode_target(table: Table, name: str, target: TargetSpec) -> Tensor:
    """The labels as `TargetSpec` says. ConfigError for a value that is none of them."""
    cells = table.columns[name]
    if target.type == "classes":
        index: dict[str | None, int] = {label: position for position, label in enumerate(target.classes or ())}
        index[None] = IGNORE_INDEX
        if unknown := [position for position, value in enumerate(cells.values) if value not in index]:
            rows = cells.rows(unknown)
            raise table.error(
                f"target {name!r} has the class {_value(cells, rows)}, which is not among those of the training "
                f"rows: {listed(target.classes or ())}", rows
            )  # fmt: skip
        return torch.from_numpy(np.array([index[value] for value in cells.values], np.int64)[cells.index])
    values = cells.values
    if target.type == "binary":
        values = tuple(value if value is None else str(TRUTH.get(value.lower(), value)) for value in values)
    parsed, wrong = numbers(values)
    wrong = wrong or (_neither(parsed) if target.type == "binary" else [])
    if wrong:
        rows = cells.rows(wrong)
        expected = "0 or 1 (true or false)" if target.type == "binary" else "a number"
        hint = f"; for categories say `targets: {{{name}: classes}}`"
        raise table.error(f"{_value(cells, rows)} in the {target.type} target {name!r} is not {expected}{hint}", rows)
    return torch.from_numpy(parsed.astype(np.float32)[cells.index])


def in_order(values: set[str]) -> tuple[str, ...]:
    """By number where all are numbers, else by alphabet."""
    _, wrong = numbers(ordered := sorted(values))
    return tuple(ordered if wrong else sorted(ordered, key=float))


def log1p(values: Floats) -> Floats:
    """sign(x)·log(1 + |x|)."""
    logs: Floats = np.sign(values) * np.log1p(np.abs(values))
    return logs


def statistics(values: Floats) -> tuple[float, float]:
    """Mean and standard deviation of those that aren't missing; of values equal in float32 it is taken to be 1."""
    std = float(np.nanstd(values))
    return float(np.nanmean(values)), std if std > SMALLEST else 1.0


def _names(table: Table, name: str, known: set[str]) -> tuple[str, ...]:
    """The values `known` of column `name` in order, as names of categories. ConfigError where one can't be a name."""
    cells = table.columns[name]
    for at, value in enumerate(cells.values):
        if value in known and (why := fault(value)):
            raise table.error(f"{shown(value)} in column {name!r} {why}", cells.rows([at]))
    return in_order(known)


def _value(cells: Cells, rows: Sequence[int]) -> str:
    """The value of the first of the rows, to be shown."""
    return shown(cells.values[int(cells.index[rows[0]])])


def _neither(parsed: Floats) -> list[int]:
    return [int(at) for at in np.flatnonzero(~np.isin(parsed, [0.0, 1.0]) & ~np.isnan(parsed))]
