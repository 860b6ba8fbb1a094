"""A report on a table's columns: types, ranges, missing values, and categories that a model doesn't know."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from mtlcli.data.formats.csv_reader import Cells, Table
from mtlcli.data.formats.numerals import Floats, Notation, detect_notation, find_dotted_thousands
from mtlcli.data.shuffling import Rows
from mtlcli.data.splitting import Mask
from mtlcli.specs import MISSING, UNKNOWN, Column, DatasetSpec
from mtlcli.text import shown

UNKNOWN_SHARE = 0.05  # of a split's rows: with more in a column, a note says so
MISSING_SHARE = 0.5
MOST_CLASSES = 0.5  # of the rows: with more classes of a target, a note says so
SHOWN = 3


@dataclass(frozen=True)
class ColumnFacts:
    """A feature column of the training rows.

    type: `numeric`, `date` or `categorical`. missing: share of the rows. levels: number of categories. low, high: the
    range of a numeric one, of a date in days since 1970-01-01.
    """

    name: str
    type: str
    missing: float
    levels: int | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Unseen:
    """Of a column in some rows: how many hold a category not seen in training, how many no value, and of how many."""

    unknown: int
    missing: int
    rows: int


class TableReport:
    """Facts on the columns of a table over the training rows, and counts of the cells that tell a model nothing.

    facts: of each feature column. features: which columns are features, and which are not; None where a checkpoint
    says so.
    """

    def __init__(
        self, table: Table, columns: Sequence[Column], train: Rows, notation: Notation, features: Features | None
    ) -> None:
        self.facts = [_summarize_column(table.columns[column.name], column, train, notation) for column in columns]
        self.features = features
        self._table, self._notation = table, notation
        self._missing: dict[str, Mask] = {  # of numeric columns; a missing category has a code
            column.name: cells.index == cells.values.index(None)
            for column in columns
            if column.levels is None and None in (cells := table.columns[column.name]).values
        }

    @property
    def excluded(self) -> dict[str, str]:
        return {} if self.features is None else self.features.excluded

    def unseen(self, inputs: Tensor, columns: Sequence[Column], rows: Rows) -> dict[str, Unseen]:
        """Column → its unknown and missing values among `rows`; columns without such are left out."""
        codes = inputs.numpy()
        columns_with_gaps = {}
        for position, column in enumerate(columns):
            unknown = missing = 0
            if column.levels is not None:
                values = codes[rows, position]
                unknown, missing = int((values == UNKNOWN).sum()), int((values == MISSING).sum())
            elif column.name in self._missing:
                missing = int(self._missing[column.name][rows].sum())
            if unknown or missing:
                columns_with_gaps[column.name] = Unseen(unknown, missing, len(rows))
        return columns_with_gaps

    def notes(self, inputs: Tensor, spec: DatasetSpec, parts: Mapping[str, Rows]) -> list[str]:
        """Sentences for the user: columns left out, look-alike categories, gaps above their share.

        parts: name of a part of the table, such as "the split 'test'" → its rows.
        """
        notes = [
            f"column {name!r} is not used as a feature: {why}. To use it, list it under `features` with all other "
            f"features, or under `categorical`; to silence this note, list it under `exclude`"
            for name, why in self.excluded.items()
        ]
        notes += [
            f"column {name!r} is read as a number, although it is called an identifier; if it is one, list it under "
            f"`categorical` or `exclude`"
            for name in (() if self.features is None else self.features.identifiers)
        ]
        names = {f"column {column.name!r}": column.levels for column in spec.columns}
        names |= {f"target {name!r}": target.classes for name, target in spec.targets.items()}
        notes += [note for what, levels in names.items() if (note := _note_similar_levels(what, levels or ()))]
        notes += [
            f"target {name!r} has {target.size} classes in {len(inputs)} rows, too few rows of each to learn from; are "
            f"its values numbers, names or free text?"
            for name, target in spec.targets.items()
            if target.type == "classes" and len(inputs) >= FEWEST and target.size > MOST_CLASSES * len(inputs)
        ]
        notes += [
            f"column {column.name!r} is used as a feature, and its values are the names of splits; if it says the "
            f"split of each row, set `split_column: {column.name}`"
            for column in spec.columns
            if len(levels := set(column.levels or ())) > 1 and levels <= {"train", "val", "test"}
        ]
        numbers = [column.name for column in spec.columns if column.levels is None]
        numbers += [name for name, target in spec.targets.items() if target.type == "real"]
        notes += [note for name in numbers if (note := self._thousands(name))]
        for part, rows in parts.items():
            notes += _note_gaps(part, self.unseen(inputs, spec.columns, rows))
        return notes

    def _thousands(self, name: str) -> str | None:
        """A sentence on numbers whose dots may stand between thousands."""
        plain = (self._notation.decimal, self._notation.thousands) == (".", "")
        if not plain or not (value := find_dotted_thousands(self._table.columns[name].values)):
            return None
        return (
            f"column {name!r} is read with a decimal point, as {float(value)} in {value!r}, although each number has "
            f'three digits behind the dot or no dot; if dots stand between thousands, set `thousands: "."` and '
            f'`decimal: ","`'
        )


def _summarize_column(cells: Cells, column: Column, train: Rows, notation: Notation) -> ColumnFacts:
    missing = float((cells.index[train] == cells.values.index(None)).mean()) if None in cells.values else 0.0
    if column.levels is not None:
        return ColumnFacts(column.name, "categorical", missing, len(column.levels))
    parsed = notation.numbers(cells.values, column.name)[0][cells.positions(train)]
    present = parsed[~np.isnan(parsed)]  # of other notations in a table to evaluate there are none
    low, high = (float(present.min()), float(present.max())) if len(present) else (None, None)
    kind = "date" if column.name in dict(notation.dates) else "numeric"
    return ColumnFacts(column.name, kind, missing, None, low, high)


def _note_gaps(part: str, columns: Mapping[str, Unseen]) -> list[str]:
    """A sentence for each kind of gap that is above its share of the rows of a part."""
    notes = []
    for kind, share in (("unknown", UNKNOWN_SHARE), ("missing", MISSING_SHARE)):
        counts = {name: getattr(gaps, kind) for name, gaps in columns.items()}
        many = {name: count for name, count in counts.items() if count > share * columns[name].rows}
        if many:
            what = "categories that training has not seen" if kind == "unknown" else "no value"
            listed = [f"{name!r} ({n} of {columns[name].rows} rows)" for name, n in list(many.items())[:SHOWN]]
            more = f" and {len(many) - SHOWN} more" if len(many) > SHOWN else ""
            notes.append(f"{part} has {what} in the columns {', '.join(listed)}{more}")
    return notes


def _note_similar_levels(what: str, levels: Sequence[str]) -> str | None:
    """A sentence on the categories that differ only in case, spaces or Unicode form, where there are any."""
    spellings: dict[str, list[str]] = {}
    for level in levels:
        folded = unicodedata.normalize("NFKC", " ".join(level.split())).casefold()
        spellings.setdefault(folded, []).append(level)
    alike = [" and ".join(map(shown, group)) for group in spellings.values() if len(group) > 1]
    if not alike:
        return None
    more = f", and {len(alike) - SHOWN} more" if len(alike) > SHOWN else ""
    return (
        f"{what}: {', '.join(alike[:SHOWN])}{more} count as different categories, although they differ only in case, "
        f"spaces or Unicode form"
    )


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
        excluded = _find_excluded(table, names, notation, declared)
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
    identifiers = _find_identifiers(table, names, notation, declared) if features is None else ()
    return Features(names, excluded, identifiers)


def _find_excluded(table: Table, names: Sequence[str], notation: Notation, declared: Collection[str]) -> dict[str, str]:
    open_ = [name for name in names if name not in declared]
    nameless = {name: "it has no name in the header" for name in open_ if UNNAMED.fullmatch(name)}
    judged = {
        name: why
        for name in open_
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
        if not (read := notation.numbers(table.columns[name].values, name))[1] and _whole(read[0])
    ]


def _explain_exclusion(name: str, cells: Cells, rows: int, notation: Notation) -> str | None:
    """The reason why a column only identifies the rows; None where it doesn't."""
    if rows < FEWEST or len(cells.values) != rows or None in cells.values:
        return None
    parsed, wrong = notation.numbers(cells.values, name)  # in the order of the rows, as each has its own
    if len(wrong) == rows:
        if detect_notation([value or "" for value in cells.values]):
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
