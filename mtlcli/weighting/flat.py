"""Gradients side by side in one block of memory."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class FlatGradients:
    """A matrix [rows, P] made once: each row holds a gradient of all P numbers of some parameters.

    Each row is also there as one view per parameter, of the parameter's own shape and strides: a gradient is copied in
    for all parameters at once, and a view can be a parameter's `.grad` (fused optimizers want its strides).
    """

    def __init__(self, parameters: Sequence[Tensor], rows: int, device: torch.device) -> None:
        sizes = [parameter.numel() for parameter in parameters]
        self.size = sum(sizes)
        self.matrix = torch.zeros(rows, self.size, device=device)
        starts = [sum(sizes[:i]) for i in range(len(sizes))]
        self.rows = [
            [
                self.matrix.as_strided(parameter.shape, parameter.stride(), row * self.size + start)
                for parameter, start in zip(parameters, starts, strict=True)
            ]
            for row in range(rows)
        ]

    def put(self, row: int, gradients: Sequence[Tensor | None], add: bool = False) -> None:
        """Copy one gradient per parameter into a row, or add it; None stands for zero."""
        known = [(view, found) for view, found in zip(self.rows[row], gradients, strict=True) if found is not None]
        if len(known) < len(gradients) and not add:
            self.matrix[row].zero_()
        if known:
            views, there = [view for view, _ in known], [found for _, found in known]
            if add:
                torch._foreach_add_(views, there)
            else:
                torch._foreach_copy_(views, there)
