"""Encoding of the rows of a data set: features as in a table, and targets that may be lists of labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal

from torch import Tensor

from mtlcli.config.type_names import TypeDescription
from mtlcli.data.formats.arrow_tables import SetColumns
from mtlcli.data.formats.column_encoding import MOST_CATEGORIES, PLAIN, TrainingTable, encode_columns, list_sources
from mtlcli.data.formats.label_lists import encode_label_lists, fit_label_lists
from mtlcli.data.formats.numerals import Notation
from mtlcli.data.formats.table_encoding import encode_targets, fit_table, restore_table
from mtlcli.data.formats.table_options import Names, StatedClasses, TargetType
from mtlcli.data.formats.table_rows import Table
from mtlcli.data.formats.weight_column import encode_weights
from mtlcli.data.samplers.base import Rows
from mtlcli.errors import ConfigError, Problem
from mtlcli.specs import DatasetSpec

SetTargets = Annotated[
    Names | dict[str, Literal["classes", "binary", "real", "multilabel", "tags", "text"] | Names | StatedClasses],
    TypeDescription(
        "a list of columns that isn't empty, or a mapping of columns to 'classes', 'binary', 'real', 'multilabel', "
        "'tags', 'text', a list of columns of 0 and 1, or {classes: [NAME, NAME, …], others: error or missing}",
        "lists or mappings of columns",
    ),
]
"""The option `targets` of a data set."""


@dataclass(frozen=True)
class SetEncoding:
    """Encoding of a table of a data set's rows.

    Attributes:
        targets: target → its declared type, or None; a `ClassLabel` has stated classes.
        lists: target of a column of lists → names of its labels, or None for those of the training rows.
        notation: notation of numbers and dates.
        categorical: columns declared categorical.
        levels: maximum number of categories of other columns.
        texts: column of text → number of its features.
        ngrams: number of words of the longest word n-grams of the texts.
        weight_column: column of the rows' weights, or None.
    """

    targets: Mapping[str, TargetType | None]
    lists: Mapping[str, Sequence[str] | None] = field(default_factory=dict)
    notation: Notation = PLAIN
    categorical: Sequence[str] = ()
    levels: int = MOST_CATEGORIES
    texts: Mapping[str, int] = field(default_factory=dict)
    ngrams: int = 1
    weight_column: str | None = None

    @property
    def fits_nothing(self) -> bool:
        """True if the classes and labels of all targets are stated, so that no training row is needed for them."""
        lists = all(names is not None for names in self.lists.values())
        return lists and all(isinstance(type_, dict) for type_ in self.targets.values())

    def source(self, table: Table, train: Rows) -> TrainingTable:
        """Return the table with its training rows, for `fit`."""
        return TrainingTable(table, train, self.notation, self.categorical, self.texts, self.ngrams)

    def fit(self, source: TrainingTable, features: Sequence[str]) -> DatasetSpec:
        """Fit the encoding of features and targets on the training rows.

        Args:
            source: the table.
            features: names of the feature columns.

        Returns:
            The specification, without splits.

        Raises:
            ConfigError: lists the problems of all columns.
        """
        problems: list[Problem] = []
        spec: DatasetSpec | None = None
        lists = {}
        try:
            spec = fit_table(source, features, self.levels, self.targets)
        except ConfigError as error:
            problems += error.problems
        for name, labels in self.lists.items():
            try:
                lists[name] = fit_label_lists(source.table, name, source.train, labels)
            except ConfigError as error:
                problems += error.problems
        if spec is None or problems:
            raise ConfigError(problems)
        spec = replace(spec, targets={**spec.targets, **lists})
        main = next(iter(spec.targets)) if len(spec.targets) == 1 else None
        return _allow_missing(replace(spec, main_target=main))

    def restore(self, table: Table, stored: DatasetSpec, features: Sequence[str] | None) -> DatasetSpec:
        """Apply a checkpoint's features, encoding and classes to a table.

        Args:
            table: the table.
            stored: specification stored in the checkpoint.
            features: features that the configuration lists, or None.

        Returns:
            The specification, with the splits of the checkpoint.

        Raises:
            ConfigError: the table or the configuration doesn't match the checkpoint.
        """
        table.require(list_sources(stored.columns), "features")
        declared = {**self.targets, **dict.fromkeys(self.lists)}
        return _allow_missing(restore_table(table, stored, None if stored.text else features, declared))

    def encode_inputs(self, table: Table, spec: DatasetSpec) -> Tensor:
        """Encode the features of a table, float32 [N, columns]."""
        return encode_columns(table, spec.columns, self.notation)

    def encode_targets(self, table: Table, spec: DatasetSpec) -> dict[str, Tensor]:
        """Encode the targets of a table, by name, as `TargetSpec` defines them."""
        lists = {
            name: encode_label_lists(table, name, target) for name, target in spec.targets.items() if name in self.lists
        }
        others = {name: target for name, target in spec.targets.items() if name not in lists}
        encoded = encode_targets(table, replace(spec, targets=others), self.targets, self.notation)
        return {name: lists.get(name, encoded.get(name)) for name in spec.targets}  # type: ignore[misc]

    def encode_weights(self, table: Table) -> Tensor | None:
        """Encode the weights of a table's rows, float32 [N]; None for equal weights."""
        return None if self.weight_column is None else encode_weights(table, self.weight_column, self.notation)


def _allow_missing(spec: DatasetSpec) -> DatasetSpec:
    """Allow missing labels of all targets, as any Arrow column does, so that their loss doesn't depend on the rows."""
    targets = {name: replace(target, missing=True) for name, target in spec.targets.items()}
    return replace(spec, targets=targets)


def split_targets(
    path: str, declared: Mapping[str, Any], columns: SetColumns
) -> tuple[dict[str, TargetType | None], dict[str, Sequence[str] | None]]:
    """Divide the targets into those of a table and those of lists.

    Args:
        path: path or id of the data set, for messages.
        declared: target → its declared type, or None.
        columns: types of the set's columns.

    Returns:
        `targets` and `lists` of `SetEncoding`.

    Raises:
        ConfigError: a target is declared `multilabel` and its column doesn't hold lists, or vice versa.
    """
    targets: dict[str, TargetType | None] = {}
    lists: dict[str, Sequence[str] | None] = {}
    for name, type_ in declared.items():
        names = columns.names.get(name)
        if name in columns.lists and (type_ == "tags" or (isinstance(type_, dict) and type_.get("type") == "tags")):
            stated = {"type": "tags", "classes": list(names or ()), "others": "error"}
            targets[name] = stated if names and type_ == "tags" else type_
        elif name in columns.lists:
            if type_ not in (None, "multilabel"):
                raise ConfigError(f"{path}: target {name!r} holds lists, which can only be `multilabel` or `tags`")
            lists[name] = names
        elif type_ == "multilabel":
            raise ConfigError(
                f"{path}: target {name!r} is declared `multilabel`, but its column doesn't hold lists; for columns of "
                f"0 and 1, list them: `targets: {{{name}: [column, column]}}`"
            )
        elif names is not None and type_ in (None, "classes"):
            targets[name] = {"type": "classes", "classes": list(names), "others": "error"}
        else:
            targets[name] = None if type_ is None and name not in columns.texts else type_ or "classes"
    return targets, lists
