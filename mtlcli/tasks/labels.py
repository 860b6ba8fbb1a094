"""Which labels there are, and means over them: nothing here waits for the device or makes a NaN of a missing label."""

from __future__ import annotations

import torch
from torch import Tensor

from mtlcli.specs import IGNORE_INDEX


def labelled(target: Tensor) -> Tensor:
    """Where `target` holds a label, bool of its shape: not IGNORE_INDEX in integers, not NaN in floats."""
    return target.isnan().logical_not() if target.is_floating_point() else target != IGNORE_INDEX


def at_least_float32(tensor: Tensor) -> Tensor:
    """The tensor as float32, or as it is where it is float64."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def masked_mean(values: Tensor, mask: Tensor, dim: int = 0) -> Tensor:
    """Mean of the `values` in the `mask` along `dim`; 0 with a zero gradient where the mask is empty.

    A value outside the mask gets a gradient of exactly 0, but must be finite for that: 0 × ∞ is NaN.
    """
    return values.masked_fill(~mask, 0.0).sum(dim) / mask.sum(dim).clamp(min=1)
