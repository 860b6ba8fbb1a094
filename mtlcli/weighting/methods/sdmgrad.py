"""A common descent direction near the mean gradient, from independent samples of the gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat
from torch import Tensor

from mtlcli.registry import weightings
from mtlcli.weighting.base import GramianWeighting, WeightedTask
from mtlcli.weighting.solvers.backend import Array, Module, solved
from mtlcli.weighting.solvers.gramian import put
from mtlcli.weighting.solvers.simplex import restrict, running_means, threshold


@weightings.register("sdmgrad")
class SDMGrad(GramianWeighting):
    """SDMGrad: the common descent direction, drawn to the mean gradient, without the bias of a single sample.

    Xiao, Ban and Ji, "Direction-oriented Multi-objective Learning: Simple and Provable Stochastic Algorithms", NeurIPS
    2023, Algorithm 1. The step's examples are divided into three parts, whose gradients are the columns of G₁, G₂ and
    G₃, with means g₀(G). S times, from the w of the step before (1/T in the first one), with Π the projection onto the
    simplex:

        w ← Π(w − β G₁ᵀ (G₂ w + λ g₀(G₂))),    then update = T (G₃ w + λ g₀(G₃)) / (1 + λ)

    This is gradient descent on ½ ‖G w + λ g₀‖² with an estimate of its gradient that is unbiased, as G₁ and G₂ are
    independent. The paper's update is G₃ w + λ g₀(G₃), which is (1 + λ) times a mean of the tasks; as in the official
    code, it is scaled to the sum of the tasks: the weights T (w + λ/T) / (1 + λ) sum to T.

    Scale-invariant: all losses times a number is the update times it.

    Deviations: the S iterations of a step share their G₁ and G₂, where Algorithm 1 draws new ones for each (the
    official code shares them too). β is `step_size` divided by the largest row sum of |G₁ᵀ G₂|: with 1, the iterations
    are sure to converge if G₁ = G₂. The official code divides by the squared mean norm of the gradients instead, with
    a step of 10 and a momentum of 0.5 that Algorithm 1 hasn't; its w then jumps about the simplex (of random gradients
    of 10 tasks, 20 such iterations reach 7 times the least ‖G w + λ g₀‖², these 20 reach twice the least). Its three
    samples are one and the same buffer, by mistake, so that it has only the last one; here they are three. A task that
    is absent from a step keeps its w; those present have w scaled to sum to 1 for the step, and back to what they
    summed to. G₃ itself is never there: the third part goes backward once, with the weights found.

    Options:
        regularization: λ, how strongly the mean gradient draws; 0: MGDA (0.3 in the paper's experiments).
        step_size: β, in units of 1 / the largest row sum of |G₁ᵀ G₂|; above 2 it may not converge.
        iterations: S.
    """

    gradients = ("parameters",)  # the features of different examples can't be multiplied
    independent = True
    shares: Tensor

    def __init__(
        self,
        tasks: Sequence[WeightedTask],
        *,
        regularization: NonNegativeFloat = 0.3,
        step_size: PositiveFloat = 1.0,
        iterations: Annotated[int, Field(gt=0, le=10_000)] = 20,
    ) -> None:
        super().__init__(tasks)
        self.regularization = regularization
        self.step_size = step_size
        self.iterations = iterations
        self.register_buffer("shares", torch.full((len(self.tasks),), 1.0 / len(self.tasks)))

    @torch.no_grad()
    def weights(self, gramian: Tensor, losses: Tensor, present: Sequence[int]) -> Tensor:
        """See `GramianWeighting.weights`. Moves w."""
        count = len(present)
        shares, total = restrict(self.shares, present, gramian)
        shares = solved(descend, gramian, shares, *running_means(count, gramian),
                        self.step_size, self.regularization, self.iterations)  # fmt: skip
        put(self.shares, present, total * shares)
        weights: Tensor = (count * shares + self.regularization) / (1.0 + self.regularization)
        return weights


def descend(
    xp: Module,
    products: Array,
    shares: Array,
    means: Array,
    shifts: Array,
    step_size: float,
    regularization: float,
    iterations: int,
) -> Array:
    """w [t] after so many iterations from `shares`, with `products` [t, t] = G₁ᵀ G₂, by NumPy or torch.

    means, shifts: `running_means`.
    """
    largest = xp.clip(abs(products).sum(1).max(), float(xp.finfo(products.dtype).tiny), None)
    descent = products * (-step_size / largest)
    pull = descent.mean(1) * regularization
    descent = descent + xp.diag(shifts * 0.0 + 1.0)
    zero = shifts * 0.0
    for _ in range(iterations):
        moved = pull + descent @ shares
        shares = xp.maximum(moved - threshold(xp, moved, means, shifts), zero)
    return shares
