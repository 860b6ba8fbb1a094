"""Classes of a table's targets that the user states, in their order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mtlcli.data.formats.column_encoding import encode_levels
from mtlcli.data.formats.column_errors import get_first_value, quote_value
from mtlcli.data.formats.numerals import Notation
from mtlcli.data.formats.table_options import TargetType
from mtlcli.data.formats.table_rows import Table
from mtlcli.data.samplers.base import Rows
from mtlcli.data.splitting import Codes
from mtlcli.errors import suggest
from mtlcli.specs import MOST_CLASSES, TargetSpec
from mtlcli.text import join_names, name_problem, quote

ABSENT, OTHER = -1, -2  # codes of a missing label, and of a value that is no class


def check_classes(target: str, stated: Mapping[str, Any], notation: Notation) -> None:
    """Check the classes that the user states for a target.

    Args:
        target: name of the target.
        stated: `classes` and `others`, as `table_options.Classes` defines them.
        notation: notation of numbers.

    Raises:
        ValueError: a name is invalid or repeated, or there are too many.
    """
    names: Sequence[str] = stated["classes"]
    for name in names:
        if why := "is empty" if not name else name_problem(name):
            raise ValueError(f"the class {quote(name)} of the target {target!r} {why}")
    numbers = [notation.canonical(name) for name in names]
    counts = Counter(names if None in numbers else numbers)
    if repeated := [name for name, count in counts.items() if count > 1]:
        raise ValueError(f"the target {target!r} has the class {repeated[0]!r} more than once")
    if len(names) > MOST_CLASSES:
        raise ValueError(f"the target {target!r} has {len(names)} classes, more than {MOST_CLASSES}")


def class_codes(table: Table, name: str, classes: Sequence[str], notation: Notation) -> Codes:
    """Encode the values of a column by their positions among the classes.

    Args:
        table: the table.
        name: name of the column.
        classes: the classes, in order.
        notation: notation of numbers.

    Returns:
        int64, one for each distinct value; ABSENT for a missing one, OTHER for a value that is no class.
    """
    return encode_levels(table.columns[name].values, classes, notation, 0, ABSENT, OTHER)


def describe_other(table: Table, name: str, rows: Sequence[int], classes: Sequence[str], *, stated: bool) -> str:
    """Describe the error of values that are no class of a target.

    Args:
        table: the table.
        name: name of the target.
        rows: rows with such values.
        classes: the classes.
        stated: whether the user states the classes; if not, they are those of the training rows.

    Returns:
        The error message.
    """
    cells = table.columns[name]
    hint = suggest(get_first_value(cells, rows), classes)
    origin = "its `classes`" if stated else "those of the training rows"
    remedy = " Add it, or set `others: missing` to leave such rows out" if stated else ""
    return table.locate(
        f"target {name!r} has the class {quote_value(cells, rows)}, which is not among {origin}: "
        f"{join_names(classes)}.{hint}{remedy}", rows
    )  # fmt: skip


def note_classes(
    table: Table, declared: Mapping[str, TargetType | None], targets: Mapping[str, TargetSpec], train: Rows,
    notation: Notation,
) -> list[str]:  # fmt: skip
    """Note stated classes without a training row, and values that count as missing because they are no class.

    Args:
        table: the table.
        declared: target → its declared type, or None.
        targets: the targets.
        train: rows of the training split.
        notation: notation of numbers.

    Returns:
        One sentence per note.
    """
    notes = []
    for name, type_ in declared.items():
        if not isinstance(type_, dict) or type_.get("type") == "tags" or name not in targets:
            continue
        classes, cells = targets[name].classes or (), table.columns[name]
        codes = class_codes(table, name, classes, notation)
        counts = np.bincount(cells.spread(codes, train) - OTHER, minlength=len(classes) - OTHER)[-OTHER:]
        if absent := [quote(classes[at]) for at in np.flatnonzero(counts == 0)]:
            notes.append(f"target {name!r}: no training row has the class {join_names(absent)}")
        if rows := cells.rows(np.flatnonzero(codes == OTHER).tolist()):
            notes.append(
                f"target {name!r}: {len(rows)} labels count as missing because they are none of its classes, the first "
                f"{quote_value(cells, rows)} at {table.place(rows[0])}"
            )
    return notes
