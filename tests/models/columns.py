"""A small raw table for the tests of models."""

from __future__ import annotations

import torch
from torch import Tensor

from mtlcli.specs import Column

COLUMNS = (
    Column("town", ("Bonn", "Köln", "Ulm")),
    Column("age", None, mean=40.0, std=12.5, log_mean=3.6, log_std=0.4),
    Column("code", tuple(map(str, range(30)))),
    Column("sex", ("f", "m")),
    Column("gain", None, mean=-3.0, std=800.0, log_mean=0.5, log_std=2.5),
)


def rows(amount: int = 50, seed: int = 0) -> Tensor:
    """Create raw columns, float32 [amount, 5]; every column has an unseen (0) and a missing category (1)."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.empty(amount, len(COLUMNS))
    for at, column in enumerate(COLUMNS):
        if column.levels is None:
            x[:, at] = column.mean + column.std * torch.randn(amount, generator=generator)
        else:
            x[:, at] = torch.randint(0, 2 + len(column.levels), (amount,), generator=generator)
            x[0, at], x[1, at] = 0, 1
    return x
