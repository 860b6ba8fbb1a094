"""Choice of a table's feature columns."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from mtlcli.data.formats.cells import BLOCK, Cells, NumberCells
from mtlcli.data.formats.numerals import Floats, Notation, detect_notation
from mtlcli.data.formats.table_rows import Table
from mtlcli.errors import ConfigError

MIN_ROWS = 20  # rows of a table from which on columns are judged by their values
TEXT = "it is text that differs in every row"
# Names of an index column: pandas writes an empty name and reads it as `Unnamed: 0` or `Unnamed: 0.1`; readr as `...1`.
UNNAMED = re.compile(r"|Unnamed: \d+(\.\d+)*|\.\.\.\d+")
_IDENTIFIER = re.compile(r"(?i:(.*[\W_])?(id|ids|uuid|guid|index|idx|row[\W_]?(id|nr|no|number)))|.*[a-z](ID|Id)")
# Names of an index column, such as R's `rownames` and `X`, that are also used for other columns.
_ROW_NUMBER = re.compile(r"(?i:rownames|row[\W_]?(name)?s?|rn|obs|nr|no|number|#|level_\d+)\.?|X(\.\d+)?")


@dataclass(frozen=True)
class Features:
    """Feature columns of a table, in order.

    Attributes:
        names: names of the columns.
        excluded: column → reason for which it was left out, although the user didn't exclude it.
        identifiers: numeric features that the user didn't list and whose names are those of identifiers.
    """

    names: Sequence[str]
    excluded: dict[str, str]
    identifiers: Sequence[str]


def choose_features(
    table: Table,
    features: Sequence[str] | None,
    exclude: Collection[str],
    reserved: Collection[str],
    declared: Collection[str],
    notation: Notation,
) -> Features:
    """Choose the feature columns of a table.

    If `features` is None, these are all columns except the reserved and excluded ones, columns without a name and, in a
    table of 20 rows or more: columns that number the rows (consecutive whole numbers in any order, or increasing ones
    if the column is called `rownames`, `nr` or similar), columns of text that differs in every row, and columns of
    whole numbers that differ in every row and whose name is that of an identifier (`id`, `customer_id`, `uuid`,
    `index`). Such columns are used nevertheless if they are declared, or if no other column would be left.

    Args:
        table: the table.
        features: columns listed by the user, or None.
        exclude: columns excluded by the user.
        reserved: columns of targets and splits.
        declared: columns whose type the user declared.
        notation: notation of numbers and dates.

    Returns:
        The feature columns.

    Raises:
        ConfigError: a listed column is reserved, excluded or listed more than once, or there is no feature column.
    """
    if features is None:
        names = [name for name in table.columns if name not in reserved and name not in exclude]
        excluded = _find_excluded(table, names, notation, declared)
        names = [name for name in names if name not in excluded]
    else:
        names, excluded = list(features), {}
        conflicts = ((reserved, "a feature and a target or the split"), (exclude, "in `features` and `exclude`"))
        for others, what in conflicts:
            if both := [name for name in names if name in others]:
                raise ConfigError(table.locate(f"{', '.join(map(repr, both))} can't be {what} at once"))
    if len(set(names)) < len(names):
        raise ConfigError(table.locate("`features` names a column more than once"))
    if not names:
        raise ConfigError(table.locate("no feature column is left"))
    identifiers = _find_identifiers(table, names, notation, declared) if features is None else ()
    return Features(names, excluded, identifiers)


def _find_excluded(table: Table, names: Sequence[str], notation: Notation, declared: Collection[str]) -> dict[str, str]:
    candidates = [name for name in names if name not in declared]
    nameless = {name: "it has no name in the header" for name in candidates if UNNAMED.fullmatch(name)}
    judged = {
        name: why
        for name in candidates
        if name not in nameless and (why := _explain_exclusion(name, table.columns[name], len(table), notation))
    }
    return nameless if len(nameless) + len(judged) == len(names) else nameless | judged


def _find_identifiers(
    table: Table, names: Sequence[str], notation: Notation, declared: Collection[str]
) -> Sequence[str]:
    return [
        name
        for name in names
        if name not in declared and _IDENTIFIER.fullmatch(name)
        if not (read := table.columns[name].numbers(notation, name))[1] and _whole(read[0])
    ]


def _explain_exclusion(name: str, cells: Cells, rows: int, notation: Notation) -> str | None:
    """Reason for which a column only identifies the rows, or None."""
    if rows < MIN_ROWS or (isinstance(cells, NumberCells) and not _whole(cells.data)) or not cells.all_differ():
        return None
    parsed, wrong = cells.numbers(notation, name)  # in the order of the rows, since all values are distinct
    if len(wrong) == rows:
        if detect_notation([value or "" for value in islice(cells.values, BLOCK)]):
            return None  # numbers or dates in another notation, which are an error
        return TEXT
    if wrong or not _whole(parsed):
        return None
    rising = bool((np.diff(parsed) > 0).all())
    if (np.diff(np.sort(parsed)) == 1).all() or (rising and _ROW_NUMBER.fullmatch(name)):
        return "it numbers the rows"
    return "its name and values are those of an identifier" if _IDENTIFIER.fullmatch(name) else None


def _whole(parsed: Floats) -> bool:
    present = parsed[~np.isnan(parsed)]
    return bool((present == np.floor(present)).all())
