"""What every dataset is: a description, and examples by split."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from mtlcli.specs import DatasetSpec, Shape


class LazyInputs(Protocol):
    """Inputs that are read one at a time (image files): `inputs[i]` is a raw tensor of the dataset's input shape."""

    def __len__(self) -> int: ...
    def __getitem__(self, row: int) -> Tensor: ...


@dataclass(frozen=True)
class Examples:
    """The examples of one split.

    inputs: [N, *input_shape] in memory (uint8 for images), or read lazily. Splits carved from one another share it.
    targets: by name, [N] or [N, size], as `TargetSpec` says.
    rows: [n] int64, the rows of `inputs` and `targets` that belong to this split, in order; None: all.
    """

    inputs: Tensor | LazyInputs
    targets: dict[str, Tensor]
    rows: Tensor | None = None

    def __len__(self) -> int:
        return len(self.inputs) if self.rows is None else len(self.rows)


class Dataset(ABC):
    """Base of all datasets.

    val: share of the training examples that becomes the split `val`, drawn by seed, where the dataset has no such
        split of its own (0: no `val`).
    augment: torchvision `transforms.v2` by name, drawn anew for every example of the split `train`.
    """

    def __init__(self, *, val: float = 0.0, augment: list[str | dict[str, object]] | None = None) -> None:
        self.val = val
        self.augment = augment or []

    @abstractmethod
    def describe(self) -> DatasetSpec:
        """Shapes, targets and statistics, without reading more than needed. ConfigError for a missing or bad file."""

    @abstractmethod
    def read(self, split: str) -> Examples:
        """The examples of a split the data itself has. Fetches what isn't there, where the dataset can be fetched."""

    def restore(self, spec: DatasetSpec) -> None:
        """Take over what was fitted when a checkpoint was trained (vocabularies), instead of fitting it anew."""

    def examples(self, split: str, seed: int) -> Examples:
        """The examples of `split`; `train` and `val` are carved from the data's own `train` by `seed` if need be."""
        if self.val == 0 or split == "test" or "val" in self.own_splits():
            return self.read(split)
        whole = self.read("train")
        order = torch.randperm(len(whole), generator=torch.Generator().manual_seed(seed))
        cut = max(1, round(self.val * len(whole)))
        chosen = (order[:cut] if split == "val" else order[cut:]).sort().values
        return Examples(whole.inputs, whole.targets, chosen if whole.rows is None else whole.rows[chosen])

    def own_splits(self) -> tuple[str, ...]:
        """The splits the data itself has."""
        return ("train", "test")


def carved_splits(own: tuple[str, ...], val: float) -> tuple[str, ...]:
    """The splits a dataset offers: its own, and `val` where a share of `train` is set aside for it."""
    return own if "val" in own or val == 0 else ("train", "val", *own[1:])


__all__ = ["Dataset", "Examples", "LazyInputs", "Shape", "carved_splits"]
