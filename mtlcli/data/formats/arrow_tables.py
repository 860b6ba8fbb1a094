"""Conversion of Arrow tables to the cells of `Table`, so that columns are encoded as those of files."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mtlcli.data.formats.cells import Cells
from mtlcli.data.formats.table_rows import Table
from mtlcli.errors import ConfigError

Names = Sequence[str]  # names of the classes of a column of class numbers
Spell = Callable[[Any], str | None]


@dataclass(frozen=True)
class SplitRows:
    """Rows of the splits of a data set, which messages locate by split and row.

    Attributes:
        path: path or id of the data set.
        rows: number of rows.
        splits: first row of each split in the table, its name, and the number of this row in the split.
    """

    path: Path
    rows: int
    splits: tuple[tuple[int, str, int], ...]

    def __len__(self) -> int:
        return self.rows

    def place(self, row: int) -> str:
        """Return PATH, the split and the row in it, counted from 0."""
        start, name, first = max(split for split in self.splits if split[0] <= row)
        return f"{self.path}: split {name!r}, row {first + row - start}"


def to_table(
    path: str,
    splits: Mapping[str, Any],
    missing: Collection[str] = (),
    labels: Mapping[str, Names] | None = None,
    first: int = 0,
) -> Table:
    """Convert the rows of splits to one table.

    A cell is spelled as in a file: a whole number without a point, a boolean as 1 or 0, a date or time in ISO 8601, a
    list as JSON. A null, NaN and an empty text are missing.

    Args:
        path: path or id of the data set, for messages.
        splits: name → `pyarrow.Table` with the same columns in each split.
        missing: texts that mean a missing value.
        labels: column of class numbers → names of the classes; -1 is a missing one.
        first: number of the first row in its split.

    Returns:
        The table, with the rows of the splits in order.

    Raises:
        ConfigError: a class number has no name, or a column is of a type that is not supported.
    """
    import pyarrow as pa

    labels = labels or {}
    starts = np.cumsum([0, *(len(rows) for rows in splits.values())])
    places = tuple((int(start), name, first) for start, name in zip(starts, splits, strict=False))
    absent = frozenset(missing) | {""}
    columns = {}
    names = list(next(iter(splits.values())).column_names)
    for name in names:
        parts = [rows.column(name) for rows in splits.values()]
        types = {part.type for part in parts if not pa.types.is_null(part.type)}
        type_ = types.pop() if types else pa.null()
        chunks = [chunk.cast(type_) for part in parts for chunk in part.chunks]
        columns[name] = _cells(pa.chunked_array(chunks, type_), absent, labels.get(name), f"{path}: column {name!r}")
    return Table(Path(path), columns, SplitRows(Path(path), int(starts[-1]), places))


def _cells(column: Any, missing: frozenset[str], names: Names | None, where: str) -> Cells:
    import pyarrow as pa
    import pyarrow.compute as pc

    spell = _speller(column.type, names)
    if spell is None:
        return Cells((None,), np.zeros(len(column), np.int32))
    if _is_list(column.type):
        spelled = [spell(value) for value in column.to_pylist()]
        encoded = pa.chunked_array([pa.array(spelled, pa.string())]).dictionary_encode()
    else:
        encoded = column.dictionary_encode()
    encoded = encoded.unify_dictionaries().combine_chunks()
    if isinstance(encoded, pa.ChunkedArray):  # of an empty column
        encoded = pa.DictionaryArray.from_arrays(pa.array([], pa.int32()), pa.array([], pa.string()))
    try:
        texts = [spell(value) if not _is_list(column.type) else value for value in encoded.dictionary.to_pylist()]
    except IndexError as error:
        raise ConfigError(f"{where} has the class number {error}, but names of {len(names or ())} classes") from error
    positions: dict[str | None, int] = {}
    places = [positions.setdefault(None if text in missing else text, len(positions)) for text in texts]
    codes = pc.fill_null(encoded.indices, len(places)).to_numpy(zero_copy_only=False)
    if encoded.indices.null_count:
        places.append(positions.setdefault(None, len(positions)))
    index = np.array(places, np.int32)[codes] if places else np.zeros(0, np.int32)
    return Cells(tuple(positions), index)


def _is_list(type_: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_list(type_) or pa.types.is_large_list(type_) or pa.types.is_fixed_size_list(type_))


def _speller(type_: Any, names: Names | None = None) -> Spell | None:
    """Return the function that spells the values of an Arrow type; None for a type without a spelling."""
    import pyarrow as pa

    types = pa.types
    if _is_list(type_):
        inner = _speller(type_.value_type, names)
        return None if inner is None or _is_list(type_.value_type) else _list_speller(inner)
    if types.is_dictionary(type_):
        return _speller(type_.value_type)
    if names is not None and types.is_integer(type_):
        return _class_speller(names)
    if types.is_boolean(type_):
        return lambda value: str(int(value))
    if types.is_integer(type_) or types.is_decimal(type_):
        return str
    if types.is_floating(type_):
        return _spell_float
    if types.is_date(type_) or types.is_timestamp(type_):
        return lambda value: value.isoformat()
    if _is_text(type_):
        return lambda value: value.strip()
    return None


def _spell_float(value: float) -> str | None:
    if value != value:
        return None
    return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)


def _class_speller(names: Names) -> Spell:
    def spell(value: int) -> str | None:
        if value == -1:
            return None
        if not 0 <= value < len(names):
            raise IndexError(value)
        return names[value]

    return spell


def _list_speller(inner: Spell) -> Spell:
    def spell(values: list[Any] | None) -> str | None:
        return None if values is None else json.dumps([inner(v) for v in values if v is not None], ensure_ascii=False)

    return spell


@dataclass(frozen=True)
class SetColumns:
    """Columns of a data set by their use.

    Attributes:
        names: column of class numbers, or of lists of them → names of the classes.
        lists: columns of lists of labels.
        images: columns of images.
        texts: columns of texts.
        unusable: columns that can be neither features nor targets.
    """

    names: dict[str, Names]
    lists: list[str]
    images: list[str]
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

    columns = SetColumns({}, [], [], [], [])
    for name, feature in features.items():
        type_ = Features({name: feature}).arrow_schema.field(name).type
        inner = getattr(feature, "feature", None)
        if isinstance(feature, ClassLabel) and feature.names:
            columns.names[name] = tuple(feature.names)
        if isinstance(inner, ClassLabel) and inner.names:
            columns.names[name] = tuple(inner.names)
        if isinstance(feature, Image):
            columns.images.append(name)
        elif _speller(type_) is None:
            columns.unusable.append(name)
        elif _is_list(type_):
            columns.lists.append(name)
        elif _is_text(type_):
            columns.texts.append(name)
    return columns


def _is_text(type_: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_string(type_) or pa.types.is_large_string(type_) or pa.types.is_string_view(type_))
