"""Preallocated rows of gradients."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class FlatGradients:
    """Preallocated matrix of gradients, of which every row holds a gradient of the same parameters.

    Each row is also available as one view per parameter, of the parameter's shape and strides, so that a gradient is
    copied in one call for all parameters, and a view can be a parameter's `.grad` (fused optimizers require its
    strides).

    Args:
        parameters: Parameters with P entries in total.
        rows: Number of rows.
        device: Device of the matrix.
        storage: Tensor of rows × P entries or more to use as memory, whose content is kept; None to allocate zeros.

    Attributes:
        matrix: Gradients, shape [rows, P], float32, or float64 if a parameter is.
        rows: For each row the views, one per parameter.
    """

    def __init__(
        self, parameters: Sequence[Tensor], rows: int, device: torch.device, storage: Tensor | None = None
    ) -> None:
        sizes = [parameter.numel() for parameter in parameters]
        self.size = sum(sizes)
        if storage is None:
            self.matrix = torch.zeros(rows, self.size, dtype=row_type(parameters), device=device)
        else:
            self.matrix = storage[: rows * self.size].view(rows, self.size)
        starts = [sum(sizes[:i]) for i in range(len(sizes))]
        self.rows = [
            [
                self.matrix.as_strided(parameter.shape, parameter.stride(), row * self.size + start)
                for parameter, start in zip(parameters, starts, strict=True)
            ]
            for row in range(rows)
        ]

    def put(self, row: int, gradients: Sequence[Tensor | None], add: bool = False) -> None:
        """Copy gradients, one per parameter, into a row, or add them to it; None counts as zero."""
        pairs = [(view, gradient) for view, gradient in zip(self.rows[row], gradients, strict=True)
                 if gradient is not None]  # fmt: skip
        if len(pairs) < len(gradients) and not add:
            self.matrix[row].zero_()
        if pairs:
            views, values = [view for view, _ in pairs], [gradient for _, gradient in pairs]
            if add:
                torch._foreach_add_(views, values)
            else:
                torch._foreach_copy_(views, values)


def row_type(tensors: Sequence[Tensor]) -> torch.dtype:
    """Return the type of a gradient's row: float32, or float64 if one of the tensors is."""
    return torch.float64 if any(tensor.dtype == torch.float64 for tensor in tensors) else torch.float32
