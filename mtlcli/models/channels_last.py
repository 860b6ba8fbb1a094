"""Images laid out channels-last."""

from __future__ import annotations

import torch
from torch import Tensor


def channels_last(x: Tensor) -> Tensor:
    """[B, C, H, W] with the same values, channels-last in memory, so that a convolution's output is so too.

    Images of one channel are not copied: their memory is in that order already and only the strides need to say so
    (`contiguous(memory_format=…)` takes their usual strides for channels-last ones, and a convolution doesn't).
    """
    if x.shape[1] == 1:
        return x.movedim(1, -1).contiguous().movedim(-1, 1)
    return x.contiguous(memory_format=torch.channels_last)
