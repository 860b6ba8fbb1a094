"""Base class of datasets whose examples are the rows of a table, which are divided into splits."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path

import torch
from torch import Tensor

from mtlcli.data.base import Dataset, Examples, LazyInputs
from mtlcli.data.content_hash import Hashes
from mtlcli.data.formats.table_splits import TableSplits
from mtlcli.specs import DatasetSpec

Loaded = tuple[DatasetSpec, Tensor | LazyInputs, dict[str, Tensor], TableSplits]
"""The specification, inputs and targets of all rows, and the rows of each split."""


class SplitTable(Dataset):
    """Base class of datasets whose examples are the rows of a table.

    A subclass implements `_load`, which sets `_weights` if the rows have weights.

    Attributes:
        paths: split → table of its rows; only `train` if the splits are in one table.
        split_column: column with the split of each row, or None.
    """

    paths: dict[str, Path]
    split_column: str | None
    _weights: Tensor | None = None

    @abstractmethod
    def _load(self) -> Loaded:
        """Read the table once."""

    def own_splits(self) -> tuple[str, ...]:
        return tuple(self._load()[3].rows)

    def read(self, split: str) -> Examples:
        _, inputs, targets, splits = self._load()
        return Examples(inputs, targets, torch.from_numpy(splits.rows[split]), self._weights)

    def whole(self) -> Examples:
        return Examples(*self._load()[1:3], weights=self._weights)

    def hashes(self, split: str) -> Hashes:
        splits = self._load()[3]
        return splits.hashes[splits.rows[split]]

    def all_hashes(self) -> Hashes:
        return self._load()[3].hashes

    def keys(self, split: str) -> Hashes:
        splits = self._load()[3]
        return splits.keys[splits.rows[split]]

    def draws_test(self) -> bool:
        return self.split_column is None and len(self.paths) == 1
