"""The columns of a table as model inputs (numbers, codes of categories) and as targets: fitted once, then applied."""

from __future__ import annotations

import logging
import math
import unicodedata
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from mtlcli.data.names import fault, listed, shown
from mtlcli.data.numerals import Floats, Notation, looks_like, resemblance
from mtlcli.data.table import Cells, Rows, Table
from mtlcli.errors import ConfigError, nearest
from mtlcli.specs import IGNORE_INDEX, Column, TargetSpec

LOG = logging.getLogger("mtl")
TargetType = Literal["classes", "binary", "real"]
PLAIN = Notation()
MOST_CATEGORIES = 1000  # of a feature that isn't declared categorical: with more it is likely an identifier
SMALLEST = float(np.finfo(np.float32).tiny)
ROUNDING = 4 * float(np.finfo(np.float64).eps)  # relative to the values: a spread that is nothing but rounding
FAR = 256.0  # |mean| / std from which float32, which rounds by up to |mean| · 2^-24, is not enough for the values
TRUTH = {"true": 1.0, "false": 0.0}
MISSING, FIRST = 1, 2  # codes of a missing category and of the first level; 0: a category not seen in training


@dataclass(frozen=True)
class Source:
    """A table to fit columns on: its training rows, the notation of its numbers, its columns declared categorical."""

    table: Table
    train: Rows
    notation: Notation = PLAIN
    categorical: Collection[str] = ()


def fit_column(sources: Sequence[Source], name: str, levels: int = MOST_CATEGORIES) -> Column:
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
            if len(wrong) < _filled(cells):
                raise _mixed(source.table, name, parsed, wrong, "list the column under `categorical`")
            _refuse_other_notation(source.table, name, cells, "list it under `categorical`")
            text = text or source.table
        present = cells.among(source.train)
        if present and not wrong:
            numeric.append(parsed[cells.index[source.train]])
        _check_names(source.table, name, present)
        spelled |= present
        known += map(notation.canonical, present)
    first = sources[0].table
    if not known:
        raise first.error(f"column {name!r} has no value in the training rows; leave it out of `features`")
    if not declared and text is None:
        return Column(name, None, *_statistics(np.concatenate(numeric)))
    if not declared and numeric:
        other = next(one.table for one in sources if one.table is not text)
        raise text.error(  # type: ignore[union-attr]
            f"column {name!r} holds no numbers, and in {other.path} it does; list it under `categorical` in both"
        )
    if not declared and len(spelled) > levels:
        raise first.error(
            f"column {name!r} has {len(spelled)} categories, more than {levels}: it looks like an identifier. If it is "
            f"one, leave it out of `features`; if it is a category, list it under `categorical` or raise `levels`"
        )
    return Column(name, _levels(name, spelled, known))


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
        return _codes(cells.values, column.levels, notation, FIRST, MISSING, 0).astype(np.float64)
    parsed, wrong = notation.numbers(cells.values, column.name)
    if wrong:
        raise _not_numbers(table, "numeric column", column.name, wrong, notation)
    return np.where(np.isnan(parsed), column.mean, parsed - column.offset)


def _codes(
    values: Sequence[str | None], levels: Sequence[str], notation: Notation, first: int, missing: int, unknown: int
) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """The code of each value: `first` + i for levels[i], in any spelling where the levels are numbers."""
    codes: dict[str | None, int] = {level: first + at for at, level in enumerate(levels)}
    by_number = _by_number(levels, notation)
    found = np.empty(len(values), np.int64)
    for at, value in enumerate(values):
        if value is None:
            found[at] = missing
        elif value in codes or by_number is None:
            found[at] = codes.get(value, unknown)
        else:
            found[at] = codes.get(by_number.get(notation.canonical(value)), unknown)
    return found


def _by_number(levels: Sequence[str], notation: Notation) -> dict[str | None, str] | None:
    """Canonical number → level, where all levels are numbers; else None."""
    found: dict[str | None, str] = {}
    for level in levels:
        if (number := PLAIN.canonical(level) or notation.canonical(level)) is None:
            return None
        found.setdefault(number, level)
    return found


def fit_target(
    table: Table, name: str, train: Rows, type_: TargetType | None, notation: Notation = PLAIN
) -> TargetSpec:
    """The type of target `name` and what belongs to it, fitted on the training rows.

    type_: as declared; None to infer it from all cells: `binary` where all are 0 or 1, `real` where all are numbers,
    `classes` where none is. ConfigError where some are numbers and others are not, for values that don't fit the type,
    for fewer than two classes, and where there are no labels.
    """
    cells = table.columns[name]
    missing = None in cells.values
    type_ = type_ or _inferred(table, name, notation)
    known = cells.among(train)
    if not known:
        raise table.error(f"target {name!r} has no label in the training rows")
    if type_ == "binary":
        encode_target(table, name, TargetSpec(type_), notation)
        return TargetSpec(type_, missing=missing)
    if type_ == "real":
        parsed, wrong = notation.numbers(cells.values, name)
        if wrong:
            raise _not_numbers(table, "real target", name, wrong, notation)
        column = _statistics(parsed[cells.index[train]])
        return TargetSpec(type_, missing=missing, mean=column[0] + column[4], std=column[1])
    _check_names(table, name, known)
    classes = _levels(name, known, [notation.canonical(value) for value in known])
    if len(classes) < 2:
        raise table.error(f"target {name!r} has only the class {shown(classes[0])} in the training rows")
    return TargetSpec("classes", len(classes), classes, missing)


def encode_target(table: Table, name: str, target: TargetSpec, notation: Notation = PLAIN) -> Tensor:
    """The labels as `TargetSpec` defines them. ConfigError for a value that is none of them."""
    cells = table.columns[name]
    if target.type == "classes":
        classes = target.classes or ()
        codes = _codes(cells.values, classes, notation, 0, IGNORE_INDEX, -1)
        if unknown := np.flatnonzero(codes == -1).tolist():
            rows = cells.rows(unknown)
            hint = nearest(_raw(cells, rows), classes)
            raise table.error(
                f"target {name!r} has the class {_value(cells, rows)}, which is not among those of the training "
                f"rows: {listed(classes)}.{hint}", rows
            )  # fmt: skip
        return torch.from_numpy(codes[cells.index])
    values = cells.values
    if target.type == "binary":
        values = tuple(value if value is None else str(TRUTH.get(value.lower(), value)) for value in values)
    parsed, wrong = notation.numbers(values, name)
    if target.type == "binary" and (wrong := wrong or _neither(parsed)):
        rows = cells.rows(wrong)
        raise table.error(
            f"{_value(cells, rows)} in the binary target {name!r} is not 0 or 1 (true or false){_classes_hint(name)}",
            rows,
        )
    if wrong:
        raise _not_numbers(table, f"{target.type} target", name, wrong, notation)
    exact = target.type == "real" and abs(target.mean) > FAR * target.std
    return torch.from_numpy(parsed.astype(np.float64 if exact else np.float32)[cells.index])


def not_a_number(table: Table, name: str, notation: Notation) -> str | None:
    """Where column `name` first holds a value that is no number: "FILE:LINE: VALUE"; None where all are numbers."""
    cells = table.columns[name]
    _, wrong = notation.numbers(cells.values, name)
    if not wrong:
        return None
    rows = cells.rows(wrong)
    return f"{table.place(rows[0])}: {_value(cells, rows)}"


def in_order(values: Collection[str]) -> tuple[str, ...]:
    """By number where all are numbers, else by alphabet."""
    parsed, wrong = PLAIN.numbers(ordered := sorted(values))
    return tuple(ordered if wrong else [ordered[at] for at in np.argsort(parsed, kind="stable")])


def log1p(shifted: Floats, offset: float = 0.0) -> Floats:
    """sign(x)·log(1 + |x|) less the same of `offset`, for x = shifted + offset, without cancellation."""
    x = shifted + offset
    sign, size = np.sign(offset), abs(offset)
    with np.errstate(invalid="ignore", divide="ignore"):
        near = sign * np.log1p(sign * shifted / (1 + size))
    logs: Floats = np.where(sign * x > 0, near, np.sign(x) * np.log1p(np.abs(x)) - sign * np.log1p(size))
    return logs


def _statistics(values: Floats) -> tuple[float, float, float, float, float]:
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
        return mean, 1.0, float(log1p(np.array([mean]))[0]), 1.0, 0.0
    offset = 0.0
    if abs(mean) > FAR * std:  # a round number, so that raw inputs can be read
        offset = round(mean, -math.floor(math.log10(std)))
        deviations = values - offset
        mean = float(deviations.mean())
        values = deviations
    logs = log1p(values, offset)
    log_std = float((logs - logs[0]).std())
    return mean, _usable(std), float(logs.mean()), _usable(log_std), offset


def _usable(std: float) -> float:
    return std if std > SMALLEST else 1.0


def _inferred(table: Table, name: str, notation: Notation) -> TargetType:
    """The type of a target that is not declared, by all of its cells."""
    cells = table.columns[name]
    parsed, wrong = notation.numbers(cells.values, name)
    if not wrong:
        return "binary" if set(parsed[~np.isnan(parsed)]) <= {0.0, 1.0} else "real"
    if len(wrong) < _filled(cells):
        raise _mixed(table, name, parsed, wrong, f"declare `targets: {{{name}: classes}}`")
    _refuse_other_notation(table, name, cells, f"declare `targets: {{{name}: classes}}`")
    return "classes"


def _refuse_other_notation(table: Table, name: str, cells: Cells, remedy: str) -> None:
    """ConfigError where the values, none of which is a number, look like numbers or dates in another notation."""
    present = [at for at, value in enumerate(cells.values) if value is not None]
    if likeness := resemblance([cells.values[at] or "" for at in present]):
        rows = cells.rows([present[likeness[0]]])[:1]
        raise table.error(
            f"{_value(cells, rows)} in column {name!r} looks like {likeness[1]}. If its values are categories, "
            f"{remedy}", rows
        )  # fmt: skip


def _mixed(table: Table, name: str, parsed: Floats, wrong: Sequence[int], remedy: str) -> ConfigError:
    """The error for a column in which some values are numbers and others are not: it names the rarer ones."""
    cells = table.columns[name]
    rows, numbers = cells.rows(wrong), cells.rows(np.flatnonzero(~np.isnan(parsed)).tolist())
    if len(rows) > len(numbers):
        return table.error(
            f"{_value(cells, numbers)} in column {name!r} is a number, and {len(rows)} values of it are not. "
            f"Correct it, or {remedy}", numbers
        )  # fmt: skip
    return table.error(
        f"{_value(cells, rows)} in column {name!r} is no finite number, and {len(numbers)} values are"
        f"{_likeness(cells, rows)}. Correct it, add it to `missing`, or {remedy}", rows
    )  # fmt: skip


def _not_numbers(table: Table, where: str, name: str, wrong: Sequence[int], notation: Notation) -> ConfigError:
    cells = table.columns[name]
    rows = cells.rows(wrong)
    date = f"date of the format {dict(notation.dates)[name]!r}" if name in dict(notation.dates) else "number"
    expected = f"not a {date}" if "target" in where else f"no finite {date}"
    likeness = _likeness(cells, rows)
    hint = _classes_hint(name) if "target" in where else ""
    return table.error(f"{_value(cells, rows)} in the {where} {name!r} is {expected}{likeness}{hint}", rows)


def _likeness(cells: Cells, rows: Sequence[int]) -> str:
    likeness = looks_like(_raw(cells, rows))
    return f"; it looks like {likeness}" if likeness else ""


def _classes_hint(name: str) -> str:
    return f"; for categories say `targets: {{{name}: classes}}`"


def _levels(name: str, known: Collection[str], numbers: Collection[str | None]) -> tuple[str, ...]:
    """The categories of the values `known`, in order: where all are numbers, these, each in its canonical spelling.

    Warns of categories that differ only in case, spaces or Unicode form.
    """
    if None not in numbers:
        return in_order({number for number in numbers if number is not None})
    spellings: dict[str, list[str]] = {}
    for value in sorted(known):
        spellings.setdefault(unicodedata.normalize("NFKC", " ".join(value.split())).casefold(), []).append(value)
    if alike := [", ".join(map(shown, group)) for group in spellings.values() if len(group) > 1]:
        LOG.warning(
            "column %r: these count as different categories, although only case, spaces or Unicode form differ: %s",
            name, "; ".join(alike[:3]) + ("; …" if len(alike) > 3 else ""),
        )  # fmt: skip
    return in_order(known)


def _check_names(table: Table, name: str, known: Collection[str]) -> None:
    """ConfigError where a value of column `name` that becomes a category can't be a name."""
    cells = table.columns[name]
    for at, value in enumerate(cells.values):
        if value in known and (why := fault(value or "")):
            raise table.error(f"{shown(value)} in column {name!r} {why}", cells.rows([at]))


def _filled(cells: Cells) -> int:
    """How many of the distinct values aren't missing."""
    return len(cells.values) - (None in cells.values)


def _raw(cells: Cells, rows: Sequence[int]) -> str:
    """The value of the first of the rows."""
    return cells.values[int(cells.index[rows[0]])] or ""


def _value(cells: Cells, rows: Sequence[int]) -> str:
    """The value of the first of the rows, quoted."""
    return shown(_raw(cells, rows))


def _neither(parsed: Floats) -> list[int]:
    return [int(at) for at in np.flatnonzero(~np.isin(parsed, [0.0, 1.0]) & ~np.isnan(parsed))]
