"""Images laid out channels-last.

Trunks made of convolutions keep their weights channels-last too (`module.to(memory_format=…)`): without that oneDNN
reorders at every call, and a step takes 1.4 times as long in fp32 and twice in bf16. Autograd gives such a weight a
gradient of the same strides. Code that sets `.grad` itself has to do so too (`torch.empty_like(parameter)`): torch's
fused optimizers (seen with 2.14 on the CPU) read a gradient of other strides in memory order: a wrong update.
"""

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
