"""Errors about the cells of a column, each with the line of the first one."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from mtlcli.data.names import fault, shown
from mtlcli.data.numerals import ISO, Floats, Notation, looks_like, resemblance
from mtlcli.data.table import Cells, Table
from mtlcli.errors import ConfigError


def refuse_other_notation(table: Table, name: str, cells: Cells, remedy: str) -> None:
    """ConfigError where the values, none of which is a number, look like numbers or dates in another notation."""
    present = [at for at, value in enumerate(cells.values) if value is not None]
    if likeness := resemblance([cells.values[at] or "" for at in present]):
        rows = cells.rows([present[likeness[0]]])[:1]
        raise table.error(
            f"{quoted(cells, rows)} in column {name!r} looks like {likeness[1]}. If its values are categories, "
            f"{remedy}{'' if 'targets' in remedy else '; to leave it out, add it to `exclude`'}", rows
        )  # fmt: skip


def mixed(table: Table, name: str, parsed: Floats, wrong: Sequence[int], remedy: str) -> ConfigError:
    """The error for a column in which some values are numbers and others are not: it names the rarer ones."""
    cells = table.columns[name]
    rows, numbers = cells.rows(wrong), cells.rows(np.flatnonzero(~np.isnan(parsed)).tolist())
    if len(rows) > len(numbers):
        return table.error(
            f"{quoted(cells, numbers)} in column {name!r} is a number, and {len(rows)} values of it are not. "
            f"Correct it, or {remedy}", numbers
        )  # fmt: skip
    return table.error(
        f"{quoted(cells, rows)} in column {name!r} is no finite number, and {len(numbers)} values are"
        f"{_likeness(cells, rows)}. Correct it, add it to `missing` (a list "
        f"of your own replaces the default one), or {remedy}", rows
    )  # fmt: skip


def not_numbers(table: Table, where: str, name: str, wrong: Sequence[int], notation: Notation) -> ConfigError:
    """The error for cells that have to be numbers, or dates where the column is under `dates`, and are not."""
    cells = table.columns[name]
    rows = cells.rows(wrong)
    target = "target" in where
    if (form := dict(notation.dates).get(name)) is not None:
        known = "in ISO 8601, such as 2023-07-14" if form == ISO else f"of the format {form!r}"
        reason = f"is no date {known}: correct it, or set the format under `dates`"
    else:
        hint = classes_hint(name) if target else ""
        reason = f"is {'not a' if target else 'no finite'} number{_likeness(cells, rows)}{hint}"
    return table.error(f"{quoted(cells, rows)} in the {where} {name!r} {reason}", rows)


def _likeness(cells: Cells, rows: Sequence[int]) -> str:
    likeness = looks_like(first_value(cells, rows))
    return f"; it looks like {likeness}" if likeness else ""


def classes_hint(name: str) -> str:
    return f"; for categories say `targets: {{{name}: classes}}`"


def check_names(table: Table, name: str, known: Collection[str]) -> None:
    """ConfigError where a value of column `name` that becomes a category can't be a name."""
    cells = table.columns[name]
    for at, value in enumerate(cells.values):
        if value in known and (why := fault(value or "")):
            raise table.error(f"{shown(value)} in column {name!r} {why}", cells.rows([at]))


def filled(cells: Cells) -> int:
    """The number of distinct values that aren't missing."""
    return len(cells.values) - (None in cells.values)


def first_value(cells: Cells, rows: Sequence[int]) -> str:
    """The value of the first of the rows."""
    return cells.values[int(cells.index[rows[0]])] or ""


def quoted(cells: Cells, rows: Sequence[int]) -> str:
    """The value of the first of the rows, quoted."""
    return shown(first_value(cells, rows))
