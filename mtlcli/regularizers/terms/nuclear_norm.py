"""The nuclear norm of layers' weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mtlcli.registry import regularizers
from mtlcli.regularizers.base import Regularizer, Subject
from mtlcli.regularizers.layers import Patterns, find_layers
from mtlcli.specs import TrunkPass


@regularizers.register("nuclear_norm")
class NuclearNorm(Regularizer):
    """The sum of the singular values of layers' weights: the convex surrogate of their rank.

        Ω = Σ_layers ‖W‖_* = Σ_layers Σ_i σ_i(W)

    The layers stay as they are; a convolution's weight is its (out × in·k·k) matrix (of several groups: in / groups).
    Every step costs a singular value decomposition of each, inside which torch waits for a GPU. `multi_nuclear_norm`
    needs neither, and makes the layers smaller.

    The gradient is P Qᵀ, of the singular vectors whose singular values aren't 0 (above max(m, n) ε σ₁): the subgradient
    of least norm, stable for singular values that are equal or 0, where that of torch's decomposition isn't.

    Source: Fazel, Hindi and Boyd, A rank minimization heuristic with application to minimum order system approximation,
    ACC 2001; the subdifferential: Watson, Characterization of the subdifferential of some matrix norms, 1992.
    ValueError for a pattern that matches nothing.

    Options:
        layers: names of the trunk's layers, or patterns of them (`fc1`, `conv*`), as `named_modules` has them.
    """

    default_strength = 1e-3

    def __init__(self, subject: Subject, *, layers: Patterns = ["*"]) -> None:  # noqa: B006 (never changed)
        super().__init__()
        self.layers = [layer.module for layer in find_layers(subject, layers)]

    def term(self, passes: Sequence[TrunkPass]) -> Tensor:
        """See `Regularizer`."""
        return torch.stack([nuclear_norm(layer.weight.flatten(1)) for layer in self.layers]).sum()


def nuclear_norm(matrix: Tensor) -> Tensor:
    """‖W‖_* of [m, n], 0-d, with the gradient P Qᵀ; NaN, not an error, of what isn't finite."""
    found: Tensor = _NuclearNorm.apply(matrix)
    return found


class _NuclearNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, matrix: Tensor) -> Tensor:
        finite = matrix.isfinite().all()
        p, s, q = torch.linalg.svd(matrix.masked_fill(~finite, 0.0), full_matrices=False)
        floor = max(matrix.shape) * torch.finfo(matrix.dtype).eps * s[0]
        ctx.save_for_backward((p * (s > floor)) @ q)
        norm: Tensor = s.sum().masked_fill(~finite, float("nan"))
        return norm

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        direction: Tensor = ctx.saved_tensors[0]
        return gradient * direction
