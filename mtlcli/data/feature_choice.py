"""The choice of a table's features: the named columns, or all that do more than number or identify the rows."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from mtlcli.data.numerals import Floats, Notation, resemblance
from mtlcli.data.table import Cells, Table

FEWEST = 20  # rows of a table in which a column is judged by its values
# pandas writes its index under an empty name and reads that as `Unnamed: 0`, or `Unnamed: 0.1`; readr as `...1`
UNNAMED = re.compile(r"|Unnamed: \d+(\.\d+)*|\.\.\.\d+")
_IDENTIFIER = re.compile(r"(?i:(.*[\W_])?(id|ids|uuid|guid|index|idx|row[\W_]?(id|nr|no|number)))|.*[a-z](ID|Id)")
# Names of an index, such as R's `rownames` and its `X`, that are also those of other things.
_ROW_NUMBER = re.compile(r"(?i:rownames|row[\W_]?(name)?s?|rn|obs|nr|no|number|#|level_\d+)\.?|X(\.\d+)?")


@dataclass(frozen=True)
class Features:
    """The feature columns of a table, in order.

    excluded: column → why it was left out without being named. identifiers: the numeric features that are called
    identifiers and are not named either.
    """

    names: Sequence[str]
    excluded: dict[str, str]
    identifiers: Sequence[str]


def choose_features(
    table: Table,
    features: Sequence[str] | None,
    exclude: Collection[str],
    apart: Collection[str],
    declared: Collection[str],
    notation: Notation,
) -> Features:
    """The features that are named, or all columns but `apart` (targets, the split), `exclude`, and these:

    a column without a name; and in a table of 20 rows or more a column that numbers the rows (consecutive whole
    numbers in any order, or increasing ones where it is called `rownames`, `nr` or the like), one of text that is
    different in every row, and one of whole numbers that is different in every row and is called an identifier (`id`,
    `customer_id`, `uuid`, `index`). A column that is `declared` something is kept, and so are all where nothing else
    would be left.
    ConfigError where a named column is among `apart` or `exclude`, or named twice, and where there is no feature.
    """
    if features is None:
        names = [name for name in table.columns if name not in apart and name not in exclude]
        excluded = _left_out(table, names, notation, declared)
        names = [name for name in names if name not in excluded]
    else:
        names, excluded = list(features), {}
        for others, what in ((apart, "a feature and a target or the split"), (exclude, "in `features` and `exclude`")):
            if both := [name for name in names if name in others]:
                raise table.error(f"{', '.join(map(repr, both))} can't be {what} at once")
    if len(set(names)) < len(names):
        raise table.error("`features` names a column more than once")
    if not names:
        raise table.error("there is no feature column left")
    identifiers = _called_identifiers(table, names, notation, declared) if features is None else ()
    return Features(names, excluded, identifiers)


def _left_out(table: Table, names: Sequence[str], notation: Notation, declared: Collection[str]) -> dict[str, str]:
    open_ = [name for name in names if name not in declared]
    nameless = {name: "it has no name in the header" for name in open_ if UNNAMED.fullmatch(name)}
    judged = {
        name: why
        for name in open_
        if name not in nameless and (why := _identifies(name, table.columns[name], len(table), notation))
    }
    return nameless if len(nameless) + len(judged) == len(names) else nameless | judged


def _called_identifiers(
    table: Table, names: Sequence[str], notation: Notation, declared: Collection[str]
) -> Sequence[str]:
    return [
        name
        for name in names
        if name not in declared and _IDENTIFIER.fullmatch(name)
        if not (read := notation.numbers(table.columns[name].values, name))[1] and _whole(read[0])
    ]


def _identifies(name: str, cells: Cells, rows: int, notation: Notation) -> str | None:
    """The reason why a column only identifies the rows; None where it doesn't."""
    if rows < FEWEST or len(cells.values) != rows or None in cells.values:
        return None
    parsed, wrong = notation.numbers(cells.values, name)  # in the order of the rows, as each has its own
    if len(wrong) == rows:
        if resemblance([value or "" for value in cells.values]):
            return None  # numbers or dates in another notation, which are an error
        return "it is text that is different in every row"
    if wrong or not _whole(parsed):
        return None
    rising = bool((np.diff(parsed) > 0).all())
    if (np.diff(np.sort(parsed)) == 1).all() or (rising and _ROW_NUMBER.fullmatch(name)):
        return "it numbers the rows"
    return "by its name and values it identifies the rows" if _IDENTIFIER.fullmatch(name) else None


def _whole(parsed: Floats) -> bool:
    present = parsed[~np.isnan(parsed)]
    return bool((present == np.floor(present)).all())
