"""Raw inputs → normalized ones."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mtlcli.specs import Shape


class Normalize(nn.Module):
    """(x − mean) / std in float32: raw [B, *input_shape], of any dtype, → float32 [B, *input_shape].

    mean, std: one value for all, or one for each channel (the first dimension of an image) or feature of a table.
    A feature that is constant (std 0) is only centred. Both are saved with the model.
    ValueError where their number fits neither.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, input_shape: Shape, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        count = len(mean)
        if len(std) != count or count not in (1, input_shape[0]):
            raise ValueError(
                f"statistics of inputs {'×'.join(map(str, input_shape))} are 1 or {input_shape[0]} means and as many "
                f"standard deviations, got {count} and {len(std)}"
            )
        shape = () if count == 1 else (count, *(1 for _ in input_shape[1:]))
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).reshape(shape))
        self.register_buffer("std", torch.tensor([s or 1.0 for s in std], dtype=torch.float32).reshape(shape))

    def forward(self, x: Tensor) -> Tensor:
        """Allocates the result and nothing else: it is written in place after the conversion to float32."""
        if x.dtype == torch.float32:
            return (x - self.mean).div_(self.std)
        return x.to(torch.float32).sub_(self.mean).div_(self.std)
