"""The sum of the gradients after they are made orthogonal and equally long."""

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
    """Aligned-MTL: the gradients are replaced by the nearest orthogonal ones of equal length, and summed.

    Senushkin, Patakin, Kuznetsov and Konushin, "Independent Component Alignment for Multi-Task Learning", CVPR 2023,
    algorithm 1. With the eigenvalues λ_1 ≥ … ≥ λ_R > 0 and eigenvectors V of G, R being its rank:

        B = σ V diag(1/√λ) Vᵀ,    σ = √λ_R,    w = B·1,    update = Jᵀw: the sum of the rows of B J

    The singular values of B J are all σ, so that its condition number is 1. σ is the length of the aligned gradients,
    by default the smallest singular value of J: the weights have a scale of their own. It is 1 each for tasks alike, as
    it is for orthogonal gradients of one length, and the smaller, the nearer the gradients are to dependent ones.

    Eigenvalues below 4e-12 of the largest are taken for 0, which the rounding of float32 gradients can make them: in
    units of eps, (16 · 1.2e-7)².
    The weights are invariant to the scale of all the gradients. Non-conflict isn't promised. With all gradients 0, all
    weights are 1.

    Deviations: the task weights of the paper, its pre-defined w, are 1 each, as in the official code, where TorchJD's
    are 1/T. The official code takes eigenvalues for 0 below λ_1·T·eps.

    Options:
        scale: of the eigenvalues, the one σ² is: the smallest (`min`, the paper's), the `median` (the lower of two), or
            their mean (`rmse`).
    """

    def __init__(self, tasks: Sequence[WeightedTask], *, scale: Literal["min", "median", "rmse"] = "min") -> None:
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
            place = count - rank + ((rank - 1).div(2, rounding_mode="floor") if self.scale == "median" else 0)
            square = values.gather(0, place.clamp(0, count - 1).unsqueeze(0))
        factors = torch.where(kept, (square / values).sqrt(), 0.0)
        weights = vectors @ (factors * vectors.sum(0))
        return torch.where(rank > 0, weights, 1.0)
