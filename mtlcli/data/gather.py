"""Batches gathered from examples that are on the device."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

FetchBatch = Callable[[int, int], Tensor]  # positions [start, stop) of an epoch → inputs on the device


def make_gather(inputs: Tensor, rows: Tensor) -> FetchBatch:
    """Return a function that gathers inputs[rows[start:stop]] in one copy.

    The copy is of 8-byte words if an input consists of whole words: on the CPU, gathering a batch of images is then
    four times as fast, since the copy is no longer split among threads.

    Args:
        inputs: resident inputs [N, *input_shape].
        rows: int64 [amount], on the same device.

    Returns:
        Function of (start, stop).
    """
    words = None
    if inputs.is_contiguous() and inputs[0].nbytes % 8 == 0 and inputs.data_ptr() % 8 == 0 and inputs.ndim > 1:
        words = inputs.flatten(1).view(torch.int64)
    if words is None:
        return lambda start, stop: inputs.index_select(0, rows[start:stop])
    dtype, shape = inputs.dtype, (-1, *inputs.shape[1:])
    return lambda start, stop: words.index_select(0, rows[start:stop]).view(dtype).view(shape)
