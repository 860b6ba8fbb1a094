"""What a method remembers of each task, where only some tasks are present."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def take(buffer: Tensor, present: Sequence[int]) -> Tensor:
    """The rows of a [T, …] buffer that belong to the present tasks, [t, …]: the buffer itself where all are."""
    return buffer if len(present) == len(buffer) else buffer[_index(buffer, present)]


def put(buffer: Tensor, present: Sequence[int], rows: Tensor) -> None:
    """Write [t, …] rows back to a [T, …] buffer, in its type; the absent tasks' rows stay."""
    if rows is buffer:
        return
    if len(present) == len(buffer):
        buffer.copy_(rows)
    else:
        buffer.index_copy_(0, _index(buffer, present), rows.to(buffer.dtype))


def combine(weights: Tensor, rows: Tensor) -> Tensor:
    """Rᵀw [P] of rows [t, P], in the rows' type even under autocast, which leaves `out=` alone."""
    return torch.mv(rows.mT, weights.to(rows.dtype), out=rows.new_empty(rows.shape[1]))


def block_width(matrix: Tensor) -> int:
    """How many columns of a matrix [t, P] stay in the cache while several operations go over them."""
    return int((2**17 if matrix.device.type == "cpu" else 2**26) // len(matrix))


def _index(buffer: Tensor, present: Sequence[int]) -> Tensor:
    # A plain copy of the indices to the device would wait for it.
    return torch.tensor(present).to(buffer.device, non_blocking=True)
