"""Interface of the readers of table files: batches of rows, and the options of a table that affect them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from mtlcli.data.formats.column_builder import Kind
from mtlcli.data.formats.numerals import Notation
from mtlcli.data.formats.table_rows import Places

PLAIN = Notation()


@dataclass(frozen=True)
class Dialect:
    """Notation of a table file.

    Attributes:
        delimiter: character between the values of delimited text; a comma means a tab in a .tsv file.
        missing: cells that mean a missing value, in addition to empty ones.
        notation: notation of numbers and dates.
        lists: columns whose values may be lists, which become cells by `spell_words`.
        tolerant: keep invalid rows as rows of missing values, and list them in `Table.faulty`, instead of raising an
            error.
    """

    delimiter: str = ","
    missing: Sequence[str] = ()
    notation: Notation = PLAIN
    tolerant: bool = False
    lists: Collection[str] = ()


@dataclass(frozen=True)
class Batch:
    """Consecutive rows.

    Attributes:
        columns: cells of each column, as a sequence of texts or as an Arrow array that `ColumnBuilder.add_array` takes;
            None for a column that wasn't requested.
        places: places of the rows.
        faulty: row in the batch → message, for invalid rows of a tolerant dialect.
    """

    columns: Sequence[Any]
    places: Places
    faulty: Mapping[int, str] = field(default_factory=dict)


class TableFile(Protocol):
    """Reader of a table file.

    Attributes:
        path: the file.
        names: names of the columns; a file without a header may add some with each batch.
        hint: end of the message about a missing column, such as a suggested delimiter.
        header: place of the names in the file, such as " in the file's first line".
        uses_arrow: whether cells can be Arrow arrays.
    """

    path: Path
    names: list[str]
    hint: str
    header: str
    uses_arrow: bool

    def batches(self, kinds: Sequence[Kind | None]) -> Iterator[Batch]:
        """Read the rows.

        Args:
            kinds: representation of each column, None for one that is not needed. It may change between batches. New
                columns are `values`.

        Returns:
            The batches, in order. A ConfigError is raised if the file is invalid; with the line.
        """
