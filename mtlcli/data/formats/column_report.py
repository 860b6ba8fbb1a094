"""Report on a table's columns: types, ranges, missing values, and categories unknown to a model."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor

from mtlcli.data.formats.cells import Cells, NumberCells
from mtlcli.data.formats.feature_choice import MIN_ROWS, TEXT, Features
from mtlcli.data.formats.numerals import Floats, Notation, find_dotted_thousands
from mtlcli.data.formats.table_rows import Table
from mtlcli.data.formats.text_rows import TextRows
from mtlcli.data.samplers.base import Rows
from mtlcli.data.splitting import Mask
from mtlcli.specs import MISSING, UNKNOWN, Column, DatasetSpec
from mtlcli.text import quote

# Limits above which a note is written.
UNKNOWN_SHARE = 0.05  # share of a split's rows that are unknown in a column
MISSING_SHARE = 0.5  # share of a split's rows that are missing in a column
CLASS_SHARE = 0.5  # number of a target's classes relative to the rows
MAX_LISTED = 3  # columns or groups of categories in a note


@dataclass(frozen=True)
class ColumnFacts:
    """Facts about a feature column in the training rows.

    Attributes:
        name: name of the column.
        type: `numeric`, `date`, `boolean`, `categorical` or `text`.
        missing: share of the rows without a value.
        levels: number of categories; None for other types.
        low: smallest number; for a date, in days since 1970-01-01; None for categories and texts.
        high: largest number, likewise.
        features: number of features of a text; None for other types, and for texts that a trunk reads.
    """

    name: str
    type: str
    missing: float
    levels: int | None = None
    low: float | None = None
    high: float | None = None
    features: int | None = None


@dataclass(frozen=True)
class Unseen:
    """Counts of a column's cells without information for a model.

    Attributes:
        unknown: number of rows with a category that doesn't occur in training.
        missing: number of rows without a value.
        rows: number of all rows.
    """

    unknown: int
    missing: int
    rows: int


class TableReport:
    """Facts about the columns of a table, and counts of unknown and missing values.

    Args:
        table: the table.
        columns: encodings of the feature columns.
        train: rows of the training split.
        notation: notation of numbers and dates.
        features: choice of the feature columns, or None if a checkpoint determines them.
    """

    def __init__(
        self, table: Table, columns: Sequence[Column], train: Rows, notation: Notation, features: Features | None
    ) -> None:
        by_source = {column.source: column for column in columns}
        sizes = Counter(column.source for column in columns)
        self.facts = [
            _summarize_column(table.columns[name], column, train, notation, sizes[name])
            for name, column in by_source.items()
        ]
        self.features = features
        self.table = replace(table, columns={n: cells for n, cells in table.columns.items() if n not in by_source})
        self._dotted = _find_dotted(table, notation)
        self._missing: dict[str, Mask] = {  # of numbers and texts; a missing category has a code
            name: cells.missing_rows()
            for name, column in by_source.items()
            if column.levels is None and (cells := table.columns[name]).has_missing
        }

    @property
    def excluded(self) -> dict[str, str]:
        """Column → reason for which it is not a feature."""
        return {} if self.features is None else self.features.excluded

    def unseen(self, inputs: Tensor | TextRows, columns: Sequence[Column], rows: Rows) -> dict[str, Unseen]:
        """Count unknown and missing values.

        Args:
            inputs: encoded inputs of the table, [N, columns].
            columns: encodings of the columns.
            rows: rows to count in.

        Returns:
            Column → counts; columns without such values are omitted.
        """
        assert isinstance(inputs, Tensor)
        codes = inputs.numpy()
        columns_with_gaps = {}
        for position, column in enumerate(columns):
            unknown = missing = 0
            if column.levels is not None:
                values = codes[rows, position]
                unknown, missing = int((values == UNKNOWN).sum()), int((values == MISSING).sum())
            elif column.source in self._missing and column.source not in columns_with_gaps:
                missing = int(self._missing[column.source][rows].sum())
            if unknown or missing:
                columns_with_gaps[column.source] = Unseen(unknown, missing, len(rows))
        return columns_with_gaps

    def notes(self, inputs: Tensor | TextRows, spec: DatasetSpec, subsets: Mapping[str, Rows]) -> list[str]:
        """List notes for the user: columns left out, similar categories, many unknown or missing values.

        Args:
            inputs: encoded inputs of the table, [N, columns].
            spec: specification of the dataset.
            subsets: name of a subset, such as "the split 'test'" → its rows.

        Returns:
            One sentence per note.
        """
        notes = [
            f"column {name!r} is not used as a feature: {why}. To use it, list it under `features` with all other "
            f"features, or under `{'text' if why == TEXT else 'categorical'}`; to silence this note, list it under "
            f"`exclude`"
            for name, why in self.excluded.items()
        ]
        notes += [
            f"column {name!r} is read as a number, although its name is that of an identifier; if it is one, list it "
            f"under `categorical` or `exclude`"
            for name in (() if self.features is None else self.features.identifiers)
        ]
        names = {f"column {column.name!r}": column.levels for column in spec.columns}
        names |= {f"target {name!r}": target.classes for name, target in spec.targets.items()}
        notes += [note for what, levels in names.items() if (note := _note_similar_levels(what, levels or ()))]
        notes += [
            f"target {name!r} has {target.size} classes in {len(inputs)} rows, too few rows of each to learn from; are "
            f"its values numbers, names or free text?"
            for name, target in spec.targets.items()
            if target.type == "classes" and len(inputs) >= MIN_ROWS and target.size > CLASS_SHARE * len(inputs)
        ]
        notes += [
            f"column {column.name!r} is used as a feature, but its values are the names of splits; if it assigns the "
            f"rows to splits, set `split_column: {column.name}`"
            for column in spec.columns
            if len(levels := set(column.levels or ())) > 1 and levels <= {"train", "val", "test"}
        ]
        numbers = [column.name for column in spec.columns if column.levels is None and column.text is None]
        numbers += [name for name, target in spec.targets.items() if target.type == "real"]
        notes += [note for name in numbers if (note := self._note_thousands(name))]
        for subset, rows in subsets.items():
            notes += _note_gaps(subset, self.unseen(inputs, spec.columns, rows))
        return notes

    def _note_thousands(self, name: str) -> str | None:
        """Note numbers whose dots may separate thousands."""
        if (value := self._dotted.get(name)) is None:
            return None
        return (
            f"column {name!r} is read with a decimal point ({value!r} as {float(value)}), although each number has "
            f'three digits after the dot or no dot; if dots separate thousands, set `thousands: "."` and '
            f'`decimal: ","`'
        )


def _summarize_column(cells: Cells, column: Column, train: Rows, notation: Notation, size: int) -> ColumnFacts:
    missing = float(cells.missing_rows()[train].mean()) if cells.has_missing else 0.0
    if column.levels is not None:
        return ColumnFacts(column.name, "categorical", missing, len(column.levels))
    if column.text is not None:
        return ColumnFacts(column.source, "text", missing, features=size)
    parsed = cells.numbers(notation, column.name)[0][cells.positions(train)]
    present = parsed[~np.isnan(parsed)]  # may be empty for a table to evaluate that is in another notation
    low, high = (float(present.min()), float(present.max())) if len(present) else (None, None)
    kinds = dict.fromkeys(dict(notation.dates), "date") | dict.fromkeys(dict(notation.booleans), "boolean")
    return ColumnFacts(column.name, kinds.get(column.name, "numeric"), missing, None, low, high)


def _find_dotted(table: Table, notation: Notation) -> dict[str, str]:
    """Find the columns of numbers whose dots may separate thousands, with an example."""
    if (notation.decimal, notation.thousands) != (".", ""):
        return {}
    examples = {}
    for name, cells in table.columns.items():
        if isinstance(cells, NumberCells) and not _maybe_dotted(cells.data):
            continue  # the texts of such a column are in the file only
        if value := find_dotted_thousands(cells.values):
            examples[name] = value
    return examples


def _maybe_dotted(numbers: Floats) -> bool:
    """Return whether numbers can consist of thousands with a dot and smaller ones, see `find_dotted_thousands`."""
    present = numbers[~np.isnan(numbers)]
    thousandths = present * 1000
    return bool(
        (np.abs(present) < 1000).all()
        and (present == np.floor(present)).any()
        and (np.abs(thousandths - np.round(thousandths)) < 1e-6).all()
    )


def _note_gaps(subset: str, columns: Mapping[str, Unseen]) -> list[str]:
    """Note the columns of a subset in which more than a certain share of the rows is unknown or missing."""
    notes = []
    for kind, share in (("unknown", UNKNOWN_SHARE), ("missing", MISSING_SHARE)):
        counts = {name: getattr(gaps, kind) for name, gaps in columns.items()}
        many = {name: count for name, count in counts.items() if count > share * columns[name].rows}
        if many:
            what = "categories that don't occur in training" if kind == "unknown" else "no value"
            listed = [f"{name!r} ({n} of {columns[name].rows} rows)" for name, n in list(many.items())[:MAX_LISTED]]
            more = f" and {len(many) - MAX_LISTED} more" if len(many) > MAX_LISTED else ""
            notes.append(f"{subset} has {what} in the columns {', '.join(listed)}{more}")
    return notes


def _note_similar_levels(what: str, levels: Sequence[str]) -> str | None:
    """Note categories that differ only in case, spaces or Unicode form."""
    spellings: dict[str, list[str]] = {}
    for level in levels:
        folded = unicodedata.normalize("NFKC", " ".join(level.split())).casefold()
        spellings.setdefault(folded, []).append(level)
    alike = [" and ".join(map(quote, group)) for group in spellings.values() if len(group) > 1]
    if not alike:
        return None
    more = f", and {len(alike) - MAX_LISTED} more" if len(alike) > MAX_LISTED else ""
    return (
        f"{what}: {', '.join(alike[:MAX_LISTED])}{more} count as different categories, although they differ only in "
        f"case, spaces or Unicode form"
    )
