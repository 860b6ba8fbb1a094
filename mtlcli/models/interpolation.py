"""Interpolation of images to a fixed size, by two matrix products."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Interpolation(nn.Module):
    """Bilinear interpolation of images [B, C, H, W] → [B, C, h, w], antialiased in a dimension that shrinks.

    The filter is separable, so that the result is R x Cᵀ with a matrix for the rows and one for the columns. They are
    buffers, saved with the model. Unlike torch's interpolation, the products have a deterministic backward pass on a
    GPU, and every export format supports them.

    Args:
        before: height and width [H, W] of the inputs.
        after: height and width [h, w] of the outputs.
    """

    rows: Tensor
    columns: Tensor

    def __init__(self, before: tuple[int, ...], after: tuple[int, ...]) -> None:
        super().__init__()
        self.register_buffer("rows", interpolation_matrix(before[0], after[0]))
        self.register_buffer("columns", interpolation_matrix(before[1], after[1]).T.contiguous())

    def forward(self, x: Tensor) -> Tensor:
        """Interpolate images.

        Args:
            x: images, [B, C, H, W].

        Returns:
            Images, [B, C, h, w].
        """
        return self.rows.to(x.dtype) @ x @ self.columns.to(x.dtype)


def interpolation_matrix(before: int, after: int) -> Tensor:
    """Return the matrix [after, before] of torch's antialiased bilinear interpolation in one dimension.

    Args:
        before: length of the inputs.
        after: length of the outputs.

    Returns:
        The matrix, float32, whose rows sum to 1.
    """
    if before == after:
        return torch.eye(before)
    unit = torch.eye(before)[None, None]  # interpolated along its rows only
    return F.interpolate(unit, (after, before), mode="bilinear", antialias=True, align_corners=False)[0, 0]
