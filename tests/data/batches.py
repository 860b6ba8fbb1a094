"""Datasets in memory and loaders over them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from mtlcli.data.base import Examples
from mtlcli.data.loader import Batch, Loader
from mtlcli.data.placement import Loading, Placement
from mtlcli.registry import samplers
from mtlcli.specs import IGNORE_INDEX

CPU = torch.device("cpu")
TASKS = {"digit": ("a", "digit"), "ink": ("a", "ink"), "garment": ("b", "garment")}


class Lazy:
    """Inputs that are read one at a time."""

    def __init__(self, inputs: Tensor) -> None:
        self.inputs = inputs

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, row: int) -> Tensor:
        return self.inputs[row]


def examples(n_a: int = 23, n_b: int = 57, side: int = 8) -> dict[str, Examples]:
    """Two datasets: `a` has two targets with missing labels; `b` uses every second row of its tensors."""
    generator = torch.Generator().manual_seed(0)

    def images(n: int) -> Tensor:
        return torch.randint(0, 256, (n, 1, side, side), dtype=torch.uint8, generator=generator)

    digit, ink = torch.arange(n_a) % 10, torch.rand(n_a, generator=generator)
    digit[::3], ink[1::4] = IGNORE_INDEX, torch.nan
    return {
        "a": Examples(images(n_a), {"digit": digit, "ink": ink}),
        "b": Examples(images(2 * n_b), {"garment": torch.arange(2 * n_b)}, torch.arange(0, 2 * n_b, 2)),
    }


def loader(
    parts: dict[str, Examples] | None = None,
    *,
    sampling: str = "proportional",
    seed: int = 0,
    loading: Loading = "auto",
    workers: int = 0,
    batch_size: int = 7,
    augment: dict[str, list[Any]] | None = None,
) -> Loader:
    parts = parts or examples()
    sampler = samplers[sampling].target([len(split) for split in parts.values()], batch_size)
    return Loader(parts, TASKS, sampler, seed, Placement(CPU, loading, workers), augment)


def plain(batches: Iterable[Batch]) -> list[dict[str, Any]]:
    """Convert batches to plain lists, for bit-exact comparison (NaN as a string)."""
    return [
        {
            "inputs": {alias: tensor.tolist() for alias, tensor in batch.inputs.items()},
            "targets": {task: [str(value) for value in tensor.tolist()] for task, tensor in batch.targets.items()},
            "counts": batch.counts,
        }
        for batch in batches
    ]
