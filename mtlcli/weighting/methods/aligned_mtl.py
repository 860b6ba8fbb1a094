"""Aligned-MTL: alignment of the principal components of the gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from mtlcli.registry import weightings
from mtlcli.weighting.base import GramianWeighting, WeightedTask
from mtlcli.weighting.solvers.gramian import rank_tolerance


@weightings.register("aligned_mtl")
class AlignedMTL(GramianWeighting):
    """Aligned-MTL: replace the gradients by the nearest orthogonal ones of equal length, and sum them.

    With the eigenvalues λ_1 ≥ … ≥ λ_R > 0 and eigenvectors V of G, R being its rank:

        B = σ V diag(1/√λ) Vᵀ,    σ = √λ_R,    w = B·1,    update = Jᵀw, the sum of the rows of B J

    All singular values of B J are σ, so that its condition number is 1. σ is the length of the aligned gradients, by
    default the smallest singular value of J, so the weights have a scale of their own: identical tasks get weights of
    1, as do orthogonal gradients of equal length, and weights become smaller the closer the gradients are to linear
    dependence. The weights are invariant to a common scale of all gradients. The update may conflict with a task. If
    all gradients are 0, all weights are 1.

    Note:
        Deviations from the paper. The task weights of the paper, its pre-defined w, are 1 each, as in the official code
        (TorchJD: 1/T). Eigenvalues below 4e-12 of the largest count as 0, since rounding of float32 gradients can cause
        them: (16 eps)² with eps = 1.2e-7. The official code's threshold is λ_1·T·eps.

    Args:
        tasks: The T tasks.
        scale: Eigenvalue that σ² equals: the smallest (`min`, as in the paper), the `median` (the lower of two), or the
            mean of all (`rmse`).

    References:
        Senushkin, Patakin, Kuznetsov and Konushin, "Independent Component Alignment for Multi-Task Learning", CVPR
        2023, arXiv:2305.19000, algorithm 1.
    """

    def __init__(self, tasks: Sequence[WeightedTask | str], *, scale: Literal["min", "median", "rmse"] = "min") -> None:
        super().__init__(tasks)
        self.scale = scale

    @torch.no_grad()
    def weights(self, gramian: Tensor, losses: Tensor, present: Sequence[int]) -> Tensor:
        """See `GramianWeighting.weights`."""
        count = len(gramian)
        values, vectors = torch.linalg.eigh(gramian)  # ascending
        kept = values > values[-1].clamp(min=0.0) * rank_tolerance(gramian)
        rank = kept.sum()
        if self.scale == "rmse":
            square = torch.where(kept, values, 0.0).sum() / rank
        else:
            index = count - rank + ((rank - 1).div(2, rounding_mode="floor") if self.scale == "median" else 0)
            square = values.gather(0, index.clamp(0, count - 1).unsqueeze(0))
        factors = torch.where(kept, (square / values).sqrt(), 0.0)
        weights = vectors @ (factors * vectors.sum(0))
        return torch.where(rank > 0, weights, 1.0)
