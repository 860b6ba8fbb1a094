"""The columns of a table as targets: their type and classes, and the labels."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor

from mtlcli.data.formats.column_encoding import (
    FAR,
    PLAIN,
    check_names,
    compute_statistics,
    count_values,
    encode_levels,
    get_first_value,
    mixed_types_error,
    not_numbers_error,
    quote_value,
    refuse_other_notation,
    sort_levels,
    suggest_classes,
)
from mtlcli.data.formats.csv_reader import Table
from mtlcli.data.formats.numerals import Floats, Notation
from mtlcli.data.shuffling import Rows
from mtlcli.errors import nearest
from mtlcli.specs import IGNORE_INDEX, TargetSpec
from mtlcli.text import listed, shown

TargetType = Literal["classes", "binary", "real"] | list[str]  # of `multilabel`: the columns of its labels
TRUTH = {"true": "1", "false": "0"}


def fit_target(
    table: Table, name: str, train: Rows, type_: TargetType | None, notation: Notation = PLAIN
) -> TargetSpec:
    """The type of target `name` and what belongs to it, fitted on the training rows.

    type_: as declared, with the columns of 0 and 1 of a multilabel target; None to infer it from all cells: `binary`
    where all are 0 or 1, `real` where all are numbers, `classes` where none is. ConfigError where some are numbers and
    others are not, for values that don't fit the type, for fewer than two classes, and where there are no labels.
    """
    if isinstance(type_, list):
        known = set[str]().union(*(table.columns[label].among(train) for label in type_))
        if not known:
            raise table.error(f"target {name!r} has no label in the training rows")
        spec = TargetSpec("multilabel", len(type_), tuple(type_), any(None in table.columns[a].values for a in type_))
        encode_target(table, name, spec, notation)
        return spec
    cells = table.columns[name]
    missing = None in cells.values
    type_ = type_ or _infer_type(table, name, notation)
    known = cells.among(train)
    if not known:
        raise table.error(f"target {name!r} has no label in the training rows")
    if type_ == "binary":
        encode_target(table, name, TargetSpec(type_), notation)
        return TargetSpec(type_, missing=missing)
    if type_ == "real":
        parsed, wrong = notation.numbers(cells.values, name)
        if wrong:
            raise not_numbers_error(table, "real target", name, wrong, notation)
        column = compute_statistics(parsed[cells.index[train]])
        return TargetSpec(type_, missing=missing, mean=column[0] + column[4], std=column[1])
    check_names(table, name, known)
    classes = sort_levels(known, [notation.canonical(value) for value in known])
    if len(classes) < 2:
        raise table.error(f"target {name!r} has only the class {shown(classes[0])} in the training rows")
    return TargetSpec("classes", len(classes), classes, missing)


def encode_target(table: Table, name: str, target: TargetSpec, notation: Notation = PLAIN) -> Tensor:
    """The labels as `TargetSpec` defines them. ConfigError for a value that is none of them."""
    if target.type == "multilabel":
        where = f"the column {{!r}} of the multilabel target {name!r}"
        labels = [_encode_binary(table, label, notation, where.format(label)) for label in target.classes or ()]
        return torch.stack(labels, 1)
    if target.type == "binary":
        return _encode_binary(table, name, notation, f"the binary target {name!r}", suggest_classes(name))
    cells = table.columns[name]
    if target.type == "classes":
        classes = target.classes or ()
        codes = encode_levels(cells.values, classes, notation, 0, IGNORE_INDEX, -1)
        if unknown := np.flatnonzero(codes == -1).tolist():
            rows = cells.rows(unknown)
            hint = nearest(get_first_value(cells, rows), classes)
            raise table.error(
                f"target {name!r} has the class {quote_value(cells, rows)}, which is not among those of the training "
                f"rows: {listed(classes)}.{hint}", rows
            )  # fmt: skip
        return torch.from_numpy(codes[cells.index])
    parsed, wrong = notation.numbers(cells.values, name)
    if wrong:
        raise not_numbers_error(table, "real target", name, wrong, notation)
    exact = abs(target.mean) > FAR * target.std
    return torch.from_numpy(parsed.astype(np.float64 if exact else np.float32)[cells.index])


def _encode_binary(table: Table, column: str, notation: Notation, where: str, hint: str = "") -> Tensor:
    """float32 [N] of 0 and 1, or `true` and `false` in any case; NaN where missing. ConfigError for anything else."""
    cells = table.columns[column]
    values = tuple(value if value is None else TRUTH.get(value.lower(), value) for value in cells.values)
    parsed, wrong = notation.numbers(values)
    if wrong := wrong or _find_non_binary(parsed):
        rows = cells.rows(wrong)
        raise table.error(f"{quote_value(cells, rows)} in {where} is not 0 or 1 (true or false){hint}", rows)
    return torch.from_numpy(parsed.astype(np.float32)[cells.index])


def find_non_number(table: Table, name: str, notation: Notation) -> str | None:
    """The first value of column `name` that is no number, as "FILE:LINE: VALUE"; None where all are numbers."""
    cells = table.columns[name]
    _, wrong = notation.numbers(cells.values, name)
    if not wrong:
        return None
    rows = cells.rows(wrong)
    return f"{table.place(rows[0])}: {quote_value(cells, rows)}"


def _infer_type(table: Table, name: str, notation: Notation) -> TargetType:
    """The type of a target that is not declared, by all of its cells."""
    cells = table.columns[name]
    parsed, wrong = notation.numbers(cells.values, name)
    if not wrong:
        return "binary" if set(parsed[~np.isnan(parsed)]) <= {0.0, 1.0} else "real"
    spellings = [value.lower() for value in cells.values if value is not None]
    if set(spellings) - TRUTH.keys() <= {"0", "1", "0.0", "1.0"} and len(spellings) > len(TRUTH):  # `True`, `TRUE`, `1`
        return "binary"
    if name in dict(notation.dates):
        raise not_numbers_error(table, "target", name, wrong, notation)
    if len(wrong) < count_values(cells):
        raise mixed_types_error(table, name, parsed, wrong, f"declare `targets: {{{name}: classes}}`")
    refuse_other_notation(table, name, cells, f"declare `targets: {{{name}: classes}}`")
    return "classes"


def _find_non_binary(parsed: Floats) -> list[int]:
    return [int(at) for at in np.flatnonzero(~np.isin(parsed, [0.0, 1.0]) & ~np.isnan(parsed))]
