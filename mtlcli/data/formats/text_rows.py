"""Texts of a dataset's examples, before they are tokenized."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

import numpy as np
from torch import Tensor

from mtlcli.data.formats.cells import BLOCK, Cells
from mtlcli.data.samplers.base import Rows


class TextRows:
    """The texts of N examples, which the run replaces by tokens.

    Args:
        columns: one sequence of N texts, or the two of pairs; None for a missing text. A cell can also be a list of
            words. A slice of a sequence is a sequence.
    """

    def __init__(self, columns: Sequence[Sequence[Any]]) -> None:
        self.columns = tuple(columns)

    def __len__(self) -> int:
        return len(self.columns[0])

    def __getitem__(self, row: int) -> Tensor:
        raise TypeError("a text is no tensor before it is tokenized")

    def blocks(self, size: int = BLOCK) -> Iterator[list[tuple[Any, ...]]]:
        """Yield the examples, each a tuple of its texts, as lists of moderate length."""
        for start in range(0, len(self), size):
            yield list(zip(*(column[start : start + size] for column in self.columns), strict=True))

    def select(self, rows: Rows) -> TextRows:
        """Return some examples."""
        return TextRows([[column[row] for row in rows.tolist()] for column in self.columns])

    def slice(self, start: int, stop: int) -> TextRows:
        """Return the examples from `start` to `stop`."""
        return TextRows([column[start:stop] for column in self.columns])

    def join(self, others: Sequence[TextRows]) -> TextRows:
        """Append the examples of others, which have as many texts each."""
        every = (self, *others)
        return TextRows([
            list(chain.from_iterable(rows.columns[at] for rows in every)) for at in range(len(self.columns))
        ])  # fmt: skip


class CellTexts(Sequence[str | None]):
    """The cells of a column of texts, by row.

    Args:
        cells: the cells.
    """

    def __init__(self, cells: Cells) -> None:
        self.cells = cells

    def __len__(self) -> int:
        return len(self.cells)

    def __getitem__(self, at: Any) -> Any:
        cells = self.cells
        if not isinstance(at, slice):
            return cells.value(at)
        if cells.index is None:
            return cells.values[at]
        values = cells.values
        return [values[position] for position in np.asarray(cells.index[at]).tolist()]
