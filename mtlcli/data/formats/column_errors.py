"""Errors about the values of a table's columns."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import islice

import numpy as np

from mtlcli.data.formats.cells import BLOCK, Cells
from mtlcli.data.formats.numerals import ISO, TRUTH, Floats, Notation, describe_notation, detect_notation
from mtlcli.data.formats.table_rows import Table
from mtlcli.errors import ConfigError
from mtlcli.specs import TargetSpec
from mtlcli.text import join_names, name_problem, quote


def refuse_other_notation(table: Table, name: str, cells: Cells, remedy: str) -> None:
    """Raise if values, none of which is a number, look like numbers or dates in another notation.

    Args:
        table: the table.
        name: name of the column.
        cells: its cells.
        remedy: how to declare them as categories.

    Raises:
        ConfigError: the values do; names the notation and how to set it.
    """
    present = [(at, value) for at, value in enumerate(islice(cells.values, BLOCK)) if value is not None]
    if likeness := detect_notation([value for _, value in present]):
        rows = cells.rows([present[likeness[0]][0]])[:1]
        raise ConfigError(table.locate(
            f"{quote_value(cells, rows)} in column {name!r} looks like {likeness[1]}. If its values are categories, "
            f"{remedy}{'' if 'targets' in remedy else '; to leave it out, add it to `exclude`'}", rows
        ))  # fmt: skip


def describe_mixed_types(table: Table, name: str, parsed: Floats, wrong: Sequence[int], remedy: str) -> str:
    """Describe the error of a column in which some values are numbers and others are not; it cites the rarer ones.

    Args:
        table: the table.
        name: name of the column.
        parsed: distinct values as numbers, NaN for others.
        wrong: positions of the distinct values that are not numbers.
        remedy: how to declare the column as categories.

    Returns:
        The error message.
    """
    cells = table.columns[name]
    rows, numbers = cells.rows(wrong), cells.rows(np.flatnonzero(~np.isnan(parsed)).tolist())
    if len(rows) > len(numbers):
        return table.locate(
            f"{quote_value(cells, numbers)} in column {name!r} is a number, but {len(rows)} of its values are not. "
            f"Correct it, or {remedy}", numbers
        )  # fmt: skip
    return table.locate(
        f"{quote_value(cells, rows)} in column {name!r} is not a finite number, but {len(numbers)} values are"
        f"{_describe_likeness(cells, rows)}. Correct it, add it to `missing` (which "
        f"replaces the default list), or {remedy}", rows
    )  # fmt: skip


def describe_non_numbers(table: Table, where: str, name: str, wrong: Sequence[int], notation: Notation) -> str:
    """Describe the error of cells that must be numbers, or dates if the column is listed under `dates`.

    Args:
        table: the table.
        where: description of the column, such as "numeric column".
        name: name of the column.
        wrong: positions of the distinct values that are not numbers.
        notation: notation of numbers and dates.

    Returns:
        The error message.
    """
    cells = table.columns[name]
    rows = cells.rows(wrong)
    target = "target" in where
    if (form := dict(notation.dates).get(name)) is not None:
        expected = "in ISO 8601, such as 2023-07-14" if form == ISO else f"of the format {form!r}"
        reason = f"is not a date {expected}: correct it, or set the format under `dates`"
    elif (words := dict(notation.booleans).get(name)) is not None:
        expected = join_names([*words, "1", "0"] if words else [*TRUTH, "1", "0"])
        reason = (
            f"is not a truth value ({expected}): correct it, or give the column's own words for 1 and 0, such as "
            f"`booleans: {{{name}: [ja, nein]}}`"
        )
    else:
        hint = suggest_classes(name) if target else ""
        reason = f"is not a {'' if target else 'finite '}number{_describe_likeness(cells, rows)}{hint}"
    return table.locate(f"{quote_value(cells, rows)} in the {where} {name!r} {reason}", rows)


def _describe_likeness(cells: Cells, rows: Sequence[int]) -> str:
    likeness = describe_notation(get_first_value(cells, rows))
    return f"; it looks like {likeness}" if likeness else ""


def suggest_type(name: str, target: TargetSpec, non_number: str | None) -> str:
    """Suggest how to change the type of a target, see `Dataset.type_hint`.

    Args:
        name: name of the target.
        target: its specification.
        non_number: place and value of the first cell of a target of classes that is not a number; None if there is
            none.

    Returns:
        One sentence, or "".
    """
    if target.type == "real":
        return f"To use its numbers as classes, declare `targets: {{{name}: classes}}`"
    if target.type != "classes":
        return ""
    if non_number:
        return f"It has values that are not numbers, the first at {non_number}"
    return f"It is declared as classes; to use its numbers, declare `targets: {{{name}: real}}`"


def suggest_classes(name: str) -> str:
    """Suggest to declare a target as classes, for the end of a message."""
    return f"; for categories, set `targets: {{{name}: classes}}`"


def check_names(table: Table, name: str, values: Collection[str]) -> None:
    """Check that the values of a column that become categories are valid names.

    Args:
        table: the table.
        name: name of the column.
        values: the values that become categories.

    Raises:
        ConfigError: a value is too long or has characters that can't be printed.
    """
    cells = table.columns[name]
    for at, value in enumerate(cells.values):
        if value in values and (why := name_problem(value or "")):
            raise ConfigError(table.locate(f"{quote(value)} in column {name!r} {why}", cells.rows([at])))


def get_first_value(cells: Cells, rows: Sequence[int]) -> str:
    """Return the value in the first of some rows."""
    return cells.value(rows[0]) or ""


def quote_value(cells: Cells, rows: Sequence[int]) -> str:
    """Return the value in the first of some rows, in quotes."""
    return quote(get_first_value(cells, rows))
