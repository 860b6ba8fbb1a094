"""Targets in a table: their types, classes and labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mtlcli.data.formats.column_encoding import FAR, PLAIN, compute_statistics, sort_levels
from mtlcli.data.formats.column_errors import (
    check_names,
    describe_mixed_types,
    describe_non_numbers,
    quote_value,
    refuse_other_notation,
    suggest_classes,
)
from mtlcli.data.formats.numerals import TRUTH, Floats, Notation
from mtlcli.data.formats.stated_classes import OTHER, check_classes, class_codes, describe_other
from mtlcli.data.formats.table_options import TargetType
from mtlcli.data.formats.table_rows import Table
from mtlcli.data.formats.tag_columns import encode_tags, fit_tags, lacks_tags
from mtlcli.data.samplers.base import Rows
from mtlcli.data.splitting import Codes
from mtlcli.errors import ConfigError
from mtlcli.specs import IGNORE_INDEX, TargetSpec
from mtlcli.text import join_names, quote

INFERRED = ("true", "false")  # words of a target that is binary without a declaration, if they are mixed with 0 and 1


def fit_target(
    table: Table, name: str, train: Rows, type_: TargetType | None, notation: Notation = PLAIN
) -> TargetSpec:
    """Fit the specification of a target on the training rows.

    Args:
        table: the table.
        name: name of the target.
        train: rows of the training split.
        type_: declared type, the columns of 0 and 1 of a multilabel target, or the classes in their order. None to
            infer it from all cells: `binary` if all are 0 or 1, `real` if all are numbers, `classes` if none is.
        notation: notation of numbers and dates.

    Returns:
        The specification.

    Raises:
        ConfigError: some cells are numbers and others are not, values don't fit the type, there are fewer than two
            classes, or there are no labels.
    """
    if isinstance(type_, list):
        labels = set[str]().union(*(table.columns[label].list_values(train) for label in type_))
        if not labels:
            raise ConfigError(table.locate(f"target {name!r} has no label in the training rows"))
        spec = TargetSpec("multilabel", len(type_), tuple(type_), any(table.columns[a].has_missing for a in type_))
        encode_target(table, name, spec, notation)
        return spec
    if isinstance(type_, dict):
        return _fit_stated(table, name, train, type_, notation)
    if type_ == "tags":
        return fit_tags(table, name)
    cells, missing = table.columns[name], table.columns[name].has_missing
    type_ = type_ or _infer_type(table, name, notation)
    values = cells.list_values(train)
    if not values:
        raise ConfigError(table.locate(f"target {name!r} has no label in the training rows"))
    if type_ in ("binary", "text"):
        encode_target(table, name, TargetSpec(type_), notation)
        return TargetSpec(type_, missing=missing)
    if type_ == "real":
        parsed, wrong = cells.numbers(notation, name)
        if wrong:
            raise ConfigError(describe_non_numbers(table, "real target", name, wrong, notation))
        column = compute_statistics(cells.spread(parsed, train))
        return TargetSpec(type_, missing=missing, mean=column[0] + column[4], std=column[1])
    check_names(table, name, values)
    classes = sort_levels(values, [notation.canonical(value) for value in values])
    if len(classes) < 2:
        raise ConfigError(table.locate(f"target {name!r} has only the class {quote(classes[0])} in the training rows"))
    return TargetSpec("classes", len(classes), classes, missing)


def _fit_stated(table: Table, name: str, train: Rows, stated: dict[str, Any], notation: Notation) -> TargetSpec:
    classes = tuple(stated["classes"])
    if stated.get("type") == "tags":
        return fit_tags(table, name, classes, stated["others"] == "missing")
    spec = TargetSpec("classes", len(classes), classes)
    labels = encode_target(table, name, spec, notation, stated)
    if bool((labels[train] == IGNORE_INDEX).all()):
        raise ConfigError(
            table.locate(f"target {name!r} has none of its classes in the training rows: {join_names(classes)}")
        )
    return replace(spec, missing=bool((labels == IGNORE_INDEX).any()))


def encode_target(
    table: Table, name: str, target: TargetSpec, notation: Notation = PLAIN, declared: TargetType | None = None
) -> Tensor:
    """Encode labels, as `TargetSpec` defines them.

    Args:
        table: the table.
        name: name of the target.
        target: its specification.
        notation: notation of numbers and dates.
        declared: its declared type, which may state that values other than its classes are missing labels.

    Returns:
        [N] or [N, size].

    Raises:
        ConfigError: a value is not a label of the target.
    """
    if target.type == "multilabel":
        where = f"the column {{!r}} of the multilabel target {name!r}"
        labels = [_encode_binary(table, label, notation, where.format(label)) for label in target.classes or ()]
        return torch.stack(labels, 1)
    if target.type == "binary":
        return _encode_binary(table, name, notation, f"the binary target {name!r}", suggest_classes(name))
    stated = declared if isinstance(declared, dict) else {}
    if target.type == "tags":
        return encode_tags(table, name, target, stated.get("others", "error"))
    cells = table.columns[name]
    if target.type == "text":
        return torch.from_numpy(np.where(cells.missing_rows(), IGNORE_INDEX, 0))
    if target.type == "classes":
        classes = target.classes or ()
        codes = class_codes(table, name, classes, notation)
        others = np.flatnonzero(codes == OTHER).tolist()
        if others and stated.get("others") != "missing":
            raise ConfigError(describe_other(table, name, cells.rows(others), classes, stated=bool(stated)))
        codes[codes < 0] = IGNORE_INDEX
        return torch.from_numpy(cells.spread(codes))
    parsed, wrong = cells.numbers(notation, name)
    if wrong:
        raise ConfigError(describe_non_numbers(table, "real target", name, wrong, notation))
    exact = abs(target.mean) > FAR * target.std
    return torch.from_numpy(cells.spread(parsed.astype(np.float64 if exact else np.float32)))


def _encode_binary(table: Table, column: str, notation: Notation, where: str, hint: str = "") -> Tensor:
    """float32 [N]: 0 or 1, also for the words in TRUTH, in any case; NaN if missing. ConfigError for other values."""
    cells = table.columns[column]
    if column in dict(notation.booleans):
        parsed, wrong = cells.numbers(notation, column)
    else:
        values = tuple(value if value is None else TRUTH.get(value.lower(), value) for value in cells.values)
        parsed, wrong = notation.numbers(values)
    if wrong := wrong or _find_non_binary(parsed):
        rows = cells.rows(wrong)
        raise ConfigError(
            table.locate(f"{quote_value(cells, rows)} in {where} is not 0 or 1 (true or false, yes or no){hint}", rows)
        )
    return torch.from_numpy(cells.spread(parsed.astype(np.float32)))


def find_non_number(table: Table, name: str, notation: Notation) -> str | None:
    """Find the first value of a column that is not a number.

    Args:
        table: the table.
        name: name of the column.
        notation: notation of numbers and dates.

    Returns:
        "FILE:LINE: VALUE", or None if all values are numbers.
    """
    cells = table.columns[name]
    _, wrong = cells.numbers(notation, name)
    if not wrong:
        return None
    rows = cells.rows(wrong)
    return f"{table.place(rows[0])}: {quote_value(cells, rows)}"


def _infer_type(table: Table, name: str, notation: Notation) -> TargetType:
    """Infer the type of an undeclared target from all of its cells."""
    cells = table.columns[name]
    parsed, wrong = cells.numbers(notation, name)
    if not wrong:
        return "real" if _find_non_binary(parsed) else "binary"
    spellings = [value.lower() for value in cells.values if value is not None]
    if {*spellings} - {*INFERRED} <= {"0", "1", "0.0", "1.0"} and len(spellings) > len(INFERRED):  # `True`, `TRUE`, `1`
        return "binary"
    if notation.declares(name):
        raise ConfigError(describe_non_numbers(table, "target", name, wrong, notation))
    if len(wrong) < cells.count_present():
        raise ConfigError(describe_mixed_types(table, name, parsed, wrong, f"declare `targets: {{{name}: classes}}`"))
    refuse_other_notation(table, name, cells, f"declare `targets: {{{name}: classes}}`")
    return "classes"


def _find_non_binary(parsed: Floats) -> list[int]:
    return [int(at) for at in np.flatnonzero(~np.isin(parsed, [0.0, 1.0]) & ~np.isnan(parsed))]


def check_targets(
    targets: Sequence[str] | Mapping[str, Any], notation: Notation = PLAIN, optional: bool = False
) -> dict[str, TargetType | None]:
    """Check the option `targets` of a table.

    Args:
        targets: list of columns, or column → type.
        notation: notation of numbers.
        optional: whether there may be no target.

    Returns:
        target → its declared type, or None.

    Raises:
        ValueError: no target is given, a multilabel target names a column more than once, or stated classes are
            invalid.
    """
    if not targets and not optional:
        raise ValueError("`targets` names no column")
    types: dict[str, Any] = dict(targets if isinstance(targets, dict) else dict.fromkeys(targets))
    for name, labels in types.items():
        if isinstance(labels, list) and (repeated := [label for label in labels if labels.count(label) > 1]):
            raise ValueError(f"the target {name!r} names the column {repeated[0]!r} more than once")
        if isinstance(labels, dict):
            check_classes(name, labels, notation)
    return types


def list_target_columns(targets: Mapping[str, TargetType | None]) -> list[str]:
    """List the columns of targets; a multilabel target has several.

    Args:
        targets: target → its declared type, or None.

    Returns:
        Names of columns.
    """
    return [column for name, type_ in targets.items() for column in (type_ if isinstance(type_, list) else [name])]


def list_text_columns(targets: Mapping[str, TargetType | None], *others: str | None) -> set[str]:
    """List the columns whose cells are texts: targets declared as classes, tags or text, and others unless None."""
    typed = ("classes", "tags", "text")
    classes = {name for name, type_ in targets.items() if type_ in typed or isinstance(type_, dict)}
    return classes | {name for name in others if name is not None}


def list_class_codes(table: Table, targets: Mapping[str, TargetType | None], notation: Notation) -> list[Codes]:
    """Return the class codes of each target that may have classes, to keep every class in training.

    Args:
        table: the table.
        targets: target → its declared type, or None.
        notation: notation of numbers.

    Returns:
        For each such target int64 [N]; -1 for a missing label.
    """
    single = {name: given for name, given in targets.items() if not isinstance(given, list)}
    types = {name: given.get("type", "classes") if isinstance(given, dict) else given for name, given in single.items()}
    codes: list[Codes] = []
    for name in list_target_columns(targets):
        cells, type_ = table.columns.get(name), types.get(name)
        if cells is None or type_ in ("real", "tags", "text"):
            continue
        parsed, wrong = cells.numbers(notation, name)
        if type_ is not None or wrong or len(np.unique(parsed[~np.isnan(parsed)])) <= 2:
            values = np.array([-1 if value is None else at for at, value in enumerate(cells.values)])
            codes.append(cells.spread(values))
    return codes


def restore_targets(
    table: Table, stored: Mapping[str, TargetSpec], targets: Mapping[str, TargetType | None]
) -> dict[str, TargetSpec]:
    """Describe those of a checkpoint's targets that a table has, for a comparison with the checkpoint's.

    Args:
        table: the table.
        stored: targets of the checkpoint.
        targets: target → type declared for this table, or None.

    Returns:
        target → its specification in this table.
    """
    restored = {}
    for name, target in stored.items():
        if name not in targets:
            continue
        declared = targets[name]
        if isinstance(declared, list):
            missing = any(table.columns[label].has_missing for label in declared)
            restored[name] = TargetSpec("multilabel", len(declared), tuple(declared), missing)
        else:
            leaves_out = isinstance(declared, dict) and declared["others"] == "missing"
            lacks = lacks_tags(table, name) if target.type == "tags" else table.columns[name].has_missing
            kind = declared.get("type", "classes") if isinstance(declared, dict) else declared
            restored[name] = replace(target, type=kind or target.type, missing=lacks or leaves_out)
    return restored
