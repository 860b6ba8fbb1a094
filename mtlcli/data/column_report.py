"""A report on a table's columns: types, ranges, missing values, and categories that a model doesn't know."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from mtlcli.data.feature_choice import FEWEST, Features
from mtlcli.data.names import shown
from mtlcli.data.numerals import Notation, dotted_thousands
from mtlcli.data.table import Cells, Rows, Table
from mtlcli.specs import MISSING, UNKNOWN, Column, DatasetSpec

UNKNOWN_SHARE = 0.05  # of a split's rows: with more in a column, a note says so
MISSING_SHARE = 0.5
MOST_CLASSES = 0.5  # of the rows: with more classes of a target, a note says so
SHOWN = 3

Mask = np.ndarray[tuple[int], np.dtype[np.bool_]]


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
        self.facts = [_facts(table.columns[column.name], column, train, notation) for column in columns]
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
        notes += [note for what, levels in names.items() if (note := _alike(what, levels or ()))]
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
            notes += _gaps(part, self.unseen(inputs, spec.columns, rows))
        return notes

    def _thousands(self, name: str) -> str | None:
        """A sentence on numbers whose dots may stand between thousands."""
        plain = (self._notation.decimal, self._notation.thousands) == (".", "")
        if not plain or not (value := dotted_thousands(self._table.columns[name].values)):
            return None
        return (
            f"column {name!r} is read with a decimal point, as {float(value)} in {value!r}, although each number has "
            f'three digits behind the dot or no dot; if dots stand between thousands, set `thousands: "."` and '
            f'`decimal: ","`'
        )


def _facts(cells: Cells, column: Column, train: Rows, notation: Notation) -> ColumnFacts:
    missing = float((cells.index[train] == cells.values.index(None)).mean()) if None in cells.values else 0.0
    if column.levels is not None:
        return ColumnFacts(column.name, "categorical", missing, len(column.levels))
    parsed = notation.numbers(cells.values, column.name)[0][cells.positions(train)]
    present = parsed[~np.isnan(parsed)]  # of other notations in a table to evaluate there are none
    low, high = (float(present.min()), float(present.max())) if len(present) else (None, None)
    kind = "date" if column.name in dict(notation.dates) else "numeric"
    return ColumnFacts(column.name, kind, missing, None, low, high)


def _gaps(part: str, columns: Mapping[str, Unseen]) -> list[str]:
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


def _alike(what: str, levels: Sequence[str]) -> str | None:
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
