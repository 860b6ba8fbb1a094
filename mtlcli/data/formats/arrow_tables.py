"""Conversion of Arrow tables to the cells of `Table`, so that columns are encoded as those of files."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mtlcli.data.formats.arrow_import import import_arrow
from mtlcli.data.formats.arrow_texts import to_numpy
from mtlcli.data.formats.cells import Cells
from mtlcli.data.formats.column_builder import ColumnBuilder, Kind
from mtlcli.data.formats.numerals import Notation
from mtlcli.data.formats.table_rows import Places, Table
from mtlcli.data.formats.typed_columns import convert_column, describe_unreadable, is_list
from mtlcli.data.formats.word_lists import spell_words
from mtlcli.errors import ConfigError

PLAIN = Notation()
Names = Sequence[str]  # names of the classes of a column of class numbers


@dataclass(frozen=True)
class SetPlaces:
    """Rows of the splits of a data set, which messages locate by split and row.

    Attributes:
        path: path or id of the data set.
        splits: first row of each split, and its name.
        numbers: number of each row in its split, from 0.
    """

    path: str
    splits: Sequence[tuple[int, str]]
    numbers: Sequence[int]

    def __len__(self) -> int:
        return len(self.numbers)

    def place(self, row: int) -> str:
        """Return PATH, the split and the row in it."""
        _, name = max(split for split in self.splits if split[0] <= row)
        return f"{self.path}: split {name!r}, row {self.numbers[row]}"


@dataclass(frozen=True)
class TableRule:
    """Rule by which Arrow columns become cells.

    Attributes:
        missing: texts that mean a missing value, in addition to null, NaN and the empty text.
        notation: notation of numbers and dates.
        names: column of class numbers, or of lists of them → names of the classes; -1 is a missing one.
        texts: columns that are compared as texts, even if they consist of numbers.
        words: columns of lists whose entries keep their places, see `spell_words`.
        numbers: columns that are expected to consist of numbers, which are read faster if they do.
    """

    missing: Collection[str] = ()
    notation: Notation = PLAIN
    names: Mapping[str, Names] = field(default_factory=dict)
    texts: Collection[str] = ()
    words: Collection[str] = ()
    numbers: Collection[str] = ()


def to_table(path: str, splits: Mapping[str, Any], rule: TableRule, numbers: Sequence[int] | None = None) -> Table:
    """Convert the rows of splits to one table.

    A cell is spelled as in a file: a boolean as 1 or 0, a date or time in ISO 8601, a list as JSON. Cells of records
    and of other types without a spelling are missing.

    Args:
        path: path or id of the data set, for messages.
        splits: name → `pyarrow.Table` with the same columns in each split.
        rule: the rule.
        numbers: number of each row in its split; None for all rows of the splits.

    Returns:
        The table, with the rows of the splits in order.

    Raises:
        ConfigError: a class number has no name.
    """
    starts = np.cumsum([0, *(len(rows) for rows in splits.values())]).tolist()
    if numbers is None:
        numbers = np.concatenate([np.arange(len(rows)) for rows in splits.values()]).tolist()
    places: Places = SetPlaces(path, tuple(zip(starts, splits, strict=False)), numbers)
    columns = {}
    for name in next(iter(splits.values())).column_names:
        try:
            columns[name] = _build(name, [rows.column(name) for rows in splits.values()], rule)
        except IndexError as error:
            raise ConfigError(f"{path}: column {name!r} has the class number {error}, which has no name") from error
    return Table(Path(path), columns, places)


def _build(name: str, parts: Sequence[Any], rule: TableRule, kind: Kind | None = None) -> Cells:
    if kind is None:
        kind = "numbers" if name in rule.numbers else "values"
    builder = ColumnBuilder(rule.missing, None if name in rule.texts else rule.notation, kind)
    for part in parts:
        for chunk in part.chunks:
            builder.add_array(_convert(chunk, name, builder.kind, rule))
    return builder.finish(lambda: _build(name, parts, rule, "texts"))


def _convert(array: Any, name: str, kind: Kind, rule: TableRule) -> Any:
    """Convert an Arrow array to one that `ColumnBuilder.add_array` takes."""
    arrow, names = import_arrow("the column"), rule.names.get(name)
    if is_list(array.type) and name in rule.words:
        return arrow.array([_spell_words(values, names) for values in array.to_pylist()], arrow.string())
    if is_list(array.type):
        return arrow.array([_spell_list(values, names) for values in array.to_pylist()], arrow.string())
    if describe_unreadable(array.type) is not None or arrow.types.is_null(array.type):
        return arrow.nulls(len(array), arrow.string())
    if names is not None and arrow.types.is_integer(array.type):
        numbers = to_numpy(array.cast(arrow.int64()).fill_null(-1), np.int64)
        if wrong := numbers[(numbers < -1) | (numbers >= len(names))][:1].tolist():
            raise IndexError(wrong[0])
        indices = arrow.array(numbers.astype(np.int32), mask=numbers == -1)
        return arrow.DictionaryArray.from_arrays(indices, arrow.array(list(names), arrow.string()))
    return convert_column(array, kind, rule.notation, name)


def _spell_list(values: Sequence[Any] | None, names: Names | None) -> str | None:
    """Spell a list of labels as JSON; class numbers by their names."""
    if values is None:
        return None
    present = [value for value in values if value is not None and value != -1] if names else values
    if names is not None and (wrong := [value for value in present if not 0 <= value < len(names)]):
        raise IndexError(wrong[0])
    labels = [names[value] if names else value for value in present if value is not None]
    return json.dumps(
        [label if isinstance(label, str) else _spell_label(label) for label in labels], ensure_ascii=False
    )


def _spell_words(values: Sequence[Any] | None, names: Names | None) -> str | None:
    """Spell a list of words or tags; class numbers by their names, -1 and null as missing."""
    if values is None or names is None:
        return None if values is None else spell_words(values)
    if wrong := [value for value in values if value is not None and not -1 <= value < len(names)]:
        raise IndexError(wrong[0])
    return spell_words([None if value in (None, -1) else names[value] for value in values])


def _spell_label(label: Any) -> str:
    return (
        str(int(label)) if isinstance(label, bool) or (isinstance(label, float) and label.is_integer()) else str(label)
    )


@dataclass(frozen=True)
class SetColumns:
    """Columns of a data set by their use.

    Attributes:
        names: column of class numbers, or of lists of them → names of the classes.
        lists: columns of lists of labels.
        images: columns of images.
        binary: columns of bytes, or of records with `bytes` and `path`, which may be those of files.
        texts: columns of texts.
        unusable: columns that can be neither features nor targets.
    """

    names: dict[str, Names]
    lists: list[str]
    images: list[str]
    binary: list[str]
    texts: list[str]
    unusable: list[str]


def list_columns(features: Mapping[str, Any]) -> SetColumns:
    """Classify the columns of a data set by their types.

    Args:
        features: name → feature type of the library `datasets`.

    Returns:
        The columns.
    """
    from datasets import ClassLabel, Features, Image

    types = import_arrow("the data set").types
    columns = SetColumns({}, [], [], [], [], [])
    for name, feature in features.items():
        type_ = Features({name: feature}).arrow_schema.field(name).type
        inner = getattr(feature, "feature", None)
        if isinstance(feature, ClassLabel) and feature.names:
            columns.names[name] = tuple(feature.names)
        if isinstance(inner, ClassLabel) and inner.names:
            columns.names[name] = tuple(inner.names)
        if isinstance(feature, Image):
            columns.images.append(name)
        elif is_list(type_):
            readable = not is_list(type_.value_type) and describe_unreadable(type_.value_type) is None
            (columns.lists if readable else columns.unusable).append(name)
        elif describe_unreadable(type_) is not None:
            columns.unusable.append(name)
            fields = {field.name for field in type_} if types.is_struct(type_) else set()
            if types.is_binary(type_) or types.is_large_binary(type_) or fields == {"bytes", "path"}:
                columns.binary.append(name)
        elif types.is_string(type_) or types.is_large_string(type_) or types.is_string_view(type_):
            columns.texts.append(name)
    return columns
