"""Statistics of inputs that are passed from Python."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from mtlcli.data.examples import Examples

SAMPLED = 1000  # examples that the statistics of inputs read one at a time are computed on
ROWS = 4096  # that are converted to float64 at once


def compute_input_statistics(train: Examples) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Compute mean and standard deviation of each channel or feature, in float64.

    Args:
        train: the training examples; of inputs that are read one at a time, 1,000 at most are used.

    Returns:
        Means and standard deviations.
    """
    rows = np.arange(len(train.inputs)) if train.rows is None else train.rows.numpy()
    if isinstance(train.inputs, Tensor):
        inputs: Tensor = train.inputs
        chunks = [rows[start : start + ROWS] for start in range(0, len(rows), ROWS)]
    else:
        sampled = rows[:: -(-len(rows) // SAMPLED)]
        inputs = torch.stack([train.inputs[int(row)] for row in sampled])
        chunks = [np.arange(len(sampled))]

    count = sum(len(chunk) for chunk in chunks) * (inputs[0].numel() // inputs.shape[1])
    reduced = [0, *range(2, inputs.ndim)]
    mean = torch.stack([_double(inputs, chunk).sum(reduced) for chunk in chunks]).sum(0) / count
    centred = mean.reshape(-1, *[1] * (inputs.ndim - 2))
    squares = torch.stack([(_double(inputs, chunk) - centred).square().sum(reduced) for chunk in chunks]).sum(0)
    return tuple(mean.tolist()), tuple((squares / count).sqrt().tolist())


def _double(inputs: Tensor, rows: Any) -> Tensor:
    return inputs[torch.from_numpy(rows)].double()
