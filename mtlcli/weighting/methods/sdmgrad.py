"""A common descent direction near the mean gradient, from independent samples of the gradients."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor

from mtlcli.registry import weightings
from mtlcli.weighting.gradients import JacobianWeighting
from mtlcli.weighting.rows import combine, put
from mtlcli.weighting.simplex import restrict, running_means, threshold
from mtlcli.weighting.weighting import WeightedTask


@weightings.register("sdmgrad")
class DirectionOrientedGradient(JacobianWeighting):
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
    summed to.

    Options:
        regularization: λ, how strongly the mean gradient draws; 0: MGDA (0.3 in the paper's experiments).
        step_size: β, in units of 1 / the largest row sum of |G₁ᵀ G₂|; above 2 it may not converge.
        iterations: S.
    """

    gradients = ("parameters",)  # the features of different examples can't be multiplied
    samples = 3
    shares: Tensor

    def __init__(
        self,
        tasks: Sequence[WeightedTask],
        *,
        regularization: NonNegativeFloat = 0.3,
        step_size: PositiveFloat = 1.0,
        iterations: PositiveInt = 20,
    ) -> None:
        super().__init__(tasks)
        self.regularization = regularization
        self.step_size = step_size
        self.iterations = iterations
        self.register_buffer("shares", torch.full((len(self.tasks),), 1.0 / len(self.tasks)))

    @torch.no_grad()
    def update(
        self, jacobian: Tensor, gramian: Tensor, losses: Tensor, present: Sequence[int]
    ) -> tuple[Tensor, Tensor]:
        """See `JacobianWeighting.update`."""
        count = len(present)
        first, second, third = jacobian.unbind()
        # Autocast leaves `out=` alone. Gradients of 1e19 overflow in float32.
        products = torch.mm(first, second.mT, out=first.new_empty(count, count)).nan_to_num_().to(gramian.dtype)
        shares, total = restrict(self.shares, present, gramian)
        shares = self.solve(products, shares)
        put(self.shares, present, total * shares)
        weights = (count * shares + self.regularization) / (1.0 + self.regularization)
        return combine(weights, third), weights

    def solve(self, products: Tensor, shares: Tensor) -> Tensor:
        """w after S iterations from `shares` [t], with `products` [t, t] = G₁ᵀ G₂."""
        largest = products.abs().sum(1).max().clamp_(min=torch.finfo(products.dtype).tiny)
        descent = products * (-self.step_size / largest)
        pull = descent.mean(1) * self.regularization
        descent.diagonal().add_(1.0)
        means = running_means(len(shares), shares)
        for _ in range(self.iterations):
            moved = torch.addmv(pull, descent, shares)
            shares = moved.sub_(threshold(moved, means)).relu_()
        return shares
