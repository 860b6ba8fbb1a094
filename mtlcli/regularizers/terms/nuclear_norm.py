"""Nuclear norm of the weights of layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mtlcli.registry import regularizers
from mtlcli.regularizers.base import Regularizer, Subject
from mtlcli.regularizers.layers import LayerPatterns, find_layers
from mtlcli.specs import TrunkPass


@regularizers.register("nuclear_norm")
class NuclearNorm(Regularizer):
    """Nuclear norm of the weights of layers: the sum of their singular values, the convex envelope of the rank.

        Ω = Σ_layers ‖W‖_* = Σ_layers Σ_i σ_i(W)

    The layers are left unchanged; the matrix of a convolution is (out × in·k·k), with in / groups for several groups.
    Every step computes a singular value decomposition of each layer, in which torch synchronizes with a GPU.
    `multi_nuclear_norm` avoids both, and makes the layers smaller.

    The gradient is P Qᵀ, computed from the singular vectors whose singular values are not 0 (above max(m, n) ε σ₁). It
    is the subgradient of least norm, and stable for singular values that are equal or 0, unlike the gradient of torch's
    decomposition.

    References:
        Fazel, Hindi and Boyd, A rank minimization heuristic with application to minimum order system approximation,
            ACC 2001.
        Watson, Characterization of the subdifferential of some matrix norms, Linear Algebra and its Applications 1992.

    Args:
        subject: the regularized network.
        layers: names of the trunk's layers in `named_modules`, or patterns of them (`fc1`, `conv*`), each of
            which must match a layer.
    """

    default_strength = 1e-3

    def __init__(self, subject: Subject, *, layers: LayerPatterns = ["*"]) -> None:  # noqa: B006 (never changed)
        super().__init__()
        self.layers = [layer.module for layer in find_layers(subject, layers)]

    def term(self, passes: Sequence[TrunkPass]) -> Tensor:
        """See `Regularizer.term`."""
        return torch.stack([nuclear_norm(layer.weight.flatten(1)) for layer in self.layers]).sum()


def nuclear_norm(matrix: Tensor) -> Tensor:
    """Compute the nuclear norm of a matrix, with the gradient P Qᵀ.

    Args:
        matrix: W, [m, n].

    Returns:
        ‖W‖_*, 0-d; NaN if the matrix is not finite.
    """
    norm: Tensor = _NuclearNorm.apply(matrix)
    return norm


class _NuclearNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, matrix: Tensor) -> Tensor:
        finite = matrix.isfinite().all()
        p, s, q = torch.linalg.svd(matrix.masked_fill(~finite, 0.0), full_matrices=False)
        tolerance = max(matrix.shape) * torch.finfo(matrix.dtype).eps * s[0]
        ctx.save_for_backward((p * (s > tolerance)) @ q)
        norm: Tensor = s.sum().masked_fill(~finite, float("nan"))
        return norm

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        direction: Tensor = ctx.saved_tensors[0]
        return gradient * direction
