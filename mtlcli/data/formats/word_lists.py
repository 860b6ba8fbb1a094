"""Lists of words or tags in the cells of a table.

A list of a JSON or Arrow file is spelled as a text of its own. A cell of a text file is divided at white space.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mtlcli.data.formats.cells import Cells
from mtlcli.data.formats.table_rows import Table

MARK = "\ue000"  # begins a spelled list and ends each of its entries; a private character, which no text has
REPLACEMENT = "\ufffd"


def spell_words(words: Sequence[Any]) -> str:
    """Spell a list as a cell.

    Args:
        words: texts, numbers or truth values; None for a missing one.

    Returns:
        The cell.
    """
    return MARK + "".join(_spell(word) + MARK for word in words)


def _spell(word: Any) -> str:
    if word is None:
        return ""
    if isinstance(word, bool):
        return str(int(word))
    return str(word).replace(MARK, REPLACEMENT)


def split_words(cell: str | None) -> list[str]:
    """Return the entries of a cell: a spelled list, or words separated by white space; none of a missing cell."""
    if cell is None:
        return []
    return cell[1:].split(MARK)[:-1] if cell.startswith(MARK) else cell.split()


def show_words(cell: str) -> str:
    """Return a cell as text, with blanks between the entries of a list."""
    return " ".join(split_words(cell)) if cell.startswith(MARK) else cell


def join_lists(cells: Cells) -> Cells:
    """Return the cells of a column with its lists as texts; those of a column without lists themselves."""
    if not any(value is not None and value.startswith(MARK) for value in cells.values):
        return cells
    return Cells([None if value is None else show_words(value) for value in cells.values], cells.index)


class WordLists(Sequence[list[str]]):
    """The lists of a column, by row.

    Args:
        cells: the cells.
    """

    def __init__(self, cells: Cells) -> None:
        self.cells = cells

    def __len__(self) -> int:
        return len(self.cells)

    def __getitem__(self, at: Any) -> Any:
        if not isinstance(at, slice):
            return split_words(self.cells.value(at))
        return [split_words(self.cells.value(row)) for row in range(*at.indices(len(self)))]


def count_words(table: Table, column: str) -> np.ndarray[Any, Any]:
    """Count the entries of a column's cells.

    Args:
        table: the table.
        column: name of the column.

    Returns:
        int64 [N]; 0 for a missing cell.
    """
    cells = table.columns[column]
    counts: np.ndarray[Any, Any] = cells.spread(np.array([len(split_words(value)) for value in cells.values], np.int64))
    return counts
