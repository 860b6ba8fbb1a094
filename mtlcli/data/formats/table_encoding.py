"""Encoding of a table: its feature columns and its targets, fitted on the training rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from mtlcli.data.checkpoint_spec import restore_spec
from mtlcli.data.formats.column_encoding import MOST_CATEGORIES, TrainingTable, fit_column, list_sources
from mtlcli.data.formats.numerals import Notation
from mtlcli.data.formats.table_options import TargetType
from mtlcli.data.formats.table_rows import Table
from mtlcli.data.formats.target_columns import encode_target, fit_target, list_target_columns, restore_targets
from mtlcli.data.formats.text_features import fit_text
from mtlcli.data.samplers.base import Rows
from mtlcli.errors import ConfigError, Problem
from mtlcli.specs import MOST_COLUMNS, Column, DatasetSpec
from mtlcli.text import join_names
from mtlcli.text_spec import PAIR


def require_training_rows(table: Table, rows: Mapping[str, Rows]) -> Rows:
    """Return the rows of the split `train`.

    Args:
        table: the table.
        rows: split → its rows.

    Returns:
        The rows.

    Raises:
        ConfigError: the table has no such rows.
    """
    if "train" not in rows:
        raise ConfigError(
            table.locate("the table has no training rows; `test` leaves none, or the split column names none")
        )
    return rows["train"]


def fit_table(
    source: TrainingTable, features: Sequence[str], levels: int, targets: Mapping[str, TargetType | None]
) -> DatasetSpec:
    """Fit the encoding of all features and targets of a table.

    Args:
        source: the table.
        features: names of the feature columns.
        levels: maximum number of categories, see `fit_column`.
        targets: target → its declared type, or None.

    Returns:
        The specification, without splits.

    Raises:
        ConfigError: lists the problems of all columns.
    """
    problems: list[Problem] = []
    columns: list[Column] = []
    specs = {}
    for name in features:
        try:
            columns += fit_columns([source], name, levels)
        except ConfigError as error:
            problems += error.problems
    for name, type_ in targets.items():
        try:
            specs[name] = fit_target(source.table, name, source.train, type_, source.notation)
        except ConfigError as error:
            problems += error.problems
    if len(columns) > MOST_COLUMNS:
        problems.append(Problem(f"the features and texts have {len(columns)} columns, more than {MOST_COLUMNS}"))
    if problems:
        raise ConfigError(problems)
    return DatasetSpec(
        input_shape=(len(columns),),
        targets=specs,
        main_target=next(iter(specs)) if len(specs) == 1 else None,
        splits=(),
        mean=(),
        std=(),
        state={},
        columns=tuple(columns),
    )


def fit_columns(sources: Sequence[TrainingTable], name: str, levels: int = MOST_CATEGORIES) -> tuple[Column, ...]:
    """Fit the encoding of a feature column on the training rows of all tables that share it.

    Args:
        sources: the tables.
        name: name of the column.
        levels: maximum number of categories, see `fit_column`.

    Returns:
        The features of a text column, or else a single column.

    Raises:
        ConfigError: as `fit_column`; or the column is text in some tables only, or with different options.
    """
    declared = {(source.texts[name], source.ngrams) for source in sources if name in source.texts}
    if not declared:
        return (fit_column(sources, name, levels),)
    first = sources[0].table
    if len(declared) > 1 or any(name not in source.texts for source in sources):
        raise ConfigError(
            first.locate(f"column {name!r} needs the same `text` and `ngrams` in all tables that share a trunk")
        )
    ((features, ngrams),) = declared
    texts: list[str | None] = []
    for source in sources:
        cells = source.table.columns[name]
        texts += [cells.value(row) for row in source.train.tolist()]
    if all(text is None for text in texts):
        raise ConfigError(first.locate(f"column {name!r} has no text in the training rows; add it to `exclude`"))
    return fit_text(texts, features, ngrams).columns(name)


def restore_table(
    table: Table, stored: DatasetSpec, features: Sequence[str] | None, targets: Mapping[str, TargetType | None]
) -> DatasetSpec:
    """Apply a checkpoint's features, encoding and classes to a table.

    Args:
        table: the table.
        stored: specification stored in the checkpoint.
        features: features that the configuration lists, or None.
        targets: target → its declared type, or None.

    Returns:
        The specification, with the splits of the checkpoint.

    Raises:
        ConfigError: the table or the configuration doesn't match the checkpoint.
    """
    table.require(list_target_columns(targets), "targets")
    trained = list_sources(stored.columns)
    if features is not None and set(features) != set(trained):
        raise ConfigError(
            f"the checkpoint was trained on the features {join_names(trained)}, but `features` here are "
            f"{join_names(features)}"
        )
    restored = restore_targets(table, stored.targets, targets)
    restored |= {name: target for name, target in stored.targets.items() if _marks_pairs(stored, name, targets)}
    return restore_spec(stored, replace(stored, targets=restored))


def encode_targets(
    table: Table, spec: DatasetSpec, targets: Mapping[str, TargetType | None], notation: Notation
) -> dict[str, Tensor]:
    """Encode the labels of all targets, see `encode_target`.

    Args:
        table: the table.
        spec: its specification.
        targets: target → its declared type, or None.
        notation: notation of numbers and dates.

    Returns:
        Target → labels, [N] or [N, size]; the target `pair` of separately encoded texts is 1.
    """
    return {
        name: torch.ones(len(table))
        if _marks_pairs(spec, name, targets)
        else encode_target(table, name, target, notation, targets.get(name))
        for name, target in spec.targets.items()
    }


def _marks_pairs(spec: DatasetSpec, target: str, declared: Mapping[str, TargetType | None]) -> bool:
    return target == PAIR and target not in declared and spec.text is not None and spec.text.separate
