"""A table's columns → numbers and one-hot categories."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mtlcli.models.normalize import Normalize
from mtlcli.specs import Column

CODED = 2  # the code of a column's first level, see `Column`


class OneHot(nn.Module):
    """Raw columns [B, columns] → float32 [B, width]: a number as it is, a category as a 0 or 1 for each of its levels.

    In the order of the columns, and of their levels; all zeros where the category is missing, or wasn't seen in
    training. Whatever the number of columns, it takes three operations. Its buffers are saved with the model.
    """

    column: Tensor
    code: Tensor

    def __init__(self, columns: Sequence[Column]) -> None:
        super().__init__()
        wanted = [
            (position, code)
            for position, column in enumerate(columns)
            for code in ([-1] if column.levels is None else range(CODED, CODED + len(column.levels)))
        ]
        position, code = zip(*wanted, strict=True)
        self.width = len(wanted)
        self.register_buffer("column", torch.tensor(position))  # of each output
        self.register_buffer("code", torch.tensor(code, dtype=torch.float32))  # that it is 1 for; -1: a number

    def forward(self, x: Tensor) -> Tensor:
        x = x.index_select(1, self.column)
        return torch.where(self.code < 0, x, (x == self.code).to(x.dtype))


def standardized(columns: Sequence[Column]) -> nn.Module:
    """Raw columns [B, columns] → float32 [B, width]: numbers by their mean and standard deviation, one-hot categories.

    `OneHot`, and `Normalize` for the numbers in it.
    """
    one_hot = OneHot(columns)
    known = [
        (column.mean, column.std) if column.levels is None else (0.0, 1.0)
        for column in columns
        for _ in (column.levels if column.levels is not None else [None])
    ]
    mean, std = zip(*known, strict=True)
    return nn.Sequential(one_hot, Normalize((one_hot.width,), mean, std))
