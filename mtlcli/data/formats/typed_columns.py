"""Typed Arrow columns (of Parquet and JSON) as the cells of a table."""

from __future__ import annotations

from typing import Any

from mtlcli.data.formats.arrow_import import import_arrow
from mtlcli.data.formats.column_builder import Kind
from mtlcli.data.formats.numerals import ISO, Notation
from mtlcli.data.formats.word_lists import spell_words

READ = "numbers, text, booleans, dates and times are read"


def describe_unreadable(kind: Any) -> str | None:
    """Describe an Arrow type that can't be a column of a table.

    Args:
        kind: the `pyarrow.DataType`.

    Returns:
        The reason, or None for a type that is read.
    """
    types = import_arrow("the column").types
    if types.is_dictionary(kind):
        return describe_unreadable(kind.value_type)
    text = types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)
    number = types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind)
    moment = types.is_date(kind) or types.is_timestamp(kind) or types.is_time(kind)
    if text or number or moment or types.is_boolean(kind) or types.is_null(kind):
        return None
    return f"has the type {kind}, but only {READ}"


def convert_column(column: Any, kind: Kind, notation: Notation, name: str) -> Any:
    """Convert a column to an array that `ColumnBuilder.add_array` takes.

    Texts are those that a text file would have: 1 and 0 for truth values, dates in ISO 8601 or in the format under
    `dates`, UTC if they have a time zone. NaN is a missing value.

    Args:
        column: `pyarrow.Array` of a type that is read.
        kind: representation of the column.
        notation: notation of numbers and dates, in which the column's texts are read.
        name: name of the column.

    Returns:
        `pyarrow.Array` of float64, of strings, or of strings with a dictionary.
    """
    arrow, compute = import_arrow("the column"), import_arrow("the column", "pyarrow.compute")
    types, string = arrow.types, arrow.string()
    if types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if types.is_floating(column.type):
        column = compute.if_else(compute.is_nan(column), arrow.scalar(None, column.type), column)
    if types.is_integer(column.type) or types.is_floating(column.type):
        if kind == "numbers":
            try:
                return compute.cast(column, arrow.float64())
            except arrow.ArrowInvalid:  # an integer that float64 doesn't represent
                pass
        return _distinct_texts(column, lambda values: _to_decimal_mark(compute.cast(values, string), notation))
    if types.is_decimal(column.type):
        return _distinct_texts(column, lambda values: _to_decimal_mark(compute.cast(values, string), notation))
    if types.is_date(column.type) or types.is_timestamp(column.type):
        form = dict(notation.dates).get(name, ISO)
        return _distinct_texts(column, lambda values: _format_moments(values, form))
    if types.is_boolean(column.type):
        return compute.if_else(column, "1", "0")
    return compute.cast(column, string)


def is_list(type_: Any) -> bool:
    """Return whether an Arrow type is one of lists."""
    types = import_arrow("the column").types
    return bool(types.is_list(type_) or types.is_large_list(type_) or types.is_fixed_size_list(type_))


def is_word_list(type_: Any) -> bool:
    """Return whether an Arrow type is one of lists whose entries can be cells."""
    return is_list(type_) and describe_unreadable(type_.value_type) is None


def spell_lists(column: Any) -> Any:
    """Convert a column of lists to one of texts.

    Args:
        column: `pyarrow.Array` of lists.

    Returns:
        `pyarrow.Array` of strings, see `spell_words`.
    """
    arrow = import_arrow("the column")
    return arrow.array([None if row is None else spell_words(row) for row in column.to_pylist()], arrow.string())


def _distinct_texts(column: Any, format_values: Any) -> Any:
    """Return a dictionary array of texts, which are formatted once for each distinct value."""
    arrow = import_arrow("the column")
    encoded = column.dictionary_encode()
    return arrow.DictionaryArray.from_arrays(encoded.indices, format_values(encoded.dictionary))


def _to_decimal_mark(texts: Any, notation: Notation) -> Any:
    if notation.decimal == ".":
        return texts
    return import_arrow("the column", "pyarrow.compute").replace_substring(texts, ".", notation.decimal)


def _format_moments(values: Any, form: str) -> Any:
    arrow, compute = import_arrow("the column"), import_arrow("the column", "pyarrow.compute")
    if arrow.types.is_date(values.type):
        return compute.strftime(compute.cast(values, arrow.date32()), format="%Y-%m-%d" if form == ISO else form)
    zone = "Z" if values.type.tz else ""
    unit = values.type.unit
    values = compute.cast(values, arrow.timestamp(unit, "UTC" if zone else None))
    if form != ISO:  # Arrow's %S has the decimals of the unit, Python's has none
        values = compute.cast(values, arrow.timestamp("s", values.type.tz), safe=False)
        return compute.strftime(values, format=form)
    texts = compute.strftime(values, format="%Y-%m-%d %H:%M:%S")
    texts = compute.replace_substring_regex(texts, r"\.?0*$", "") if unit != "s" else texts  # of the fraction
    texts = compute.replace_substring_regex(texts, " 00:00:00$", "") if not zone else texts
    return compute.binary_join_element_wise(texts, zone, "")
