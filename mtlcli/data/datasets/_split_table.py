"""Base class of datasets whose examples are the rows of a table, which are divided into splits."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mtlcli.data.base import Dataset, Examples, LazyInputs
from mtlcli.data.content_hash import Hashes
from mtlcli.data.formats.column_errors import suggest_type
from mtlcli.data.formats.table_splits import TableSplits
from mtlcli.data.formats.text_inputs import choose_answers
from mtlcli.specs import DatasetSpec, TargetSpec
from mtlcli.text_spec import TextSpec

Loaded = tuple[DatasetSpec, Tensor | LazyInputs, dict[str, Tensor], TableSplits]
"""The specification, inputs and targets of all rows, and the rows of each split."""


class SplitTable(Dataset):
    """Base class of datasets whose examples are the rows of a table.

    A subclass implements `_load`, which keeps its result in `_loaded`, uses the specification in `_stored` unless it
    is None, and sets `_weights` if the rows have weights.

    Args:
        val: see `Dataset`.
        augment: see `Dataset`.

    Attributes:
        paths: split → table of its rows; only `train` if the splits are in one table.
        split_column: column with the split of each row, or None.
        targets: target → its declared type, or None.
    """

    paths: dict[str, Path]
    split_column: str | None
    targets: Mapping[str, Any]
    _weights: Tensor | None = None
    _stored: DatasetSpec | None = None
    _loaded: Any = None
    _texts: TextSpec | None = None

    def __init__(self, *, val: float, augment: list[str | dict[str, Any]] | None = None) -> None:
        super().__init__(val=val, augment=augment)
        self._non_numbers: dict[str, str | None] = {}  # target of classes → place of its first non-number

    def keep_prompt(self, texts: TextSpec) -> None:
        """See `KeepsPrompts`."""
        self._texts = choose_answers(texts, self.targets)

    @abstractmethod
    def _load(self) -> Loaded:
        """Read the table once."""

    def restore(self, spec: DatasetSpec) -> DatasetSpec:
        self._stored, self._loaded = spec, None
        self._read.clear()
        self._val.clear()
        return self._load()[0]

    def type_hint(self, target: str, spec: TargetSpec) -> str:
        return suggest_type(target, spec, self._non_numbers.get(target))

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
