"""SDMGrad: stochastic direction-oriented multi-objective gradient descent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat
from torch import Tensor

from mtlcli.registry import weightings
from mtlcli.weighting.base import GramianWeighting, WeightedTask
from mtlcli.weighting.solvers.backend import Array, Backend, run_solver
from mtlcli.weighting.solvers.gramian import combine_rows, compute_gramian, write_rows
from mtlcli.weighting.solvers.simplex import find_threshold, make_running_means, restrict_to_present


@weightings.register("sdmgrad")
class SDMGrad(GramianWeighting):
    """SDMGrad: regularize MGDA towards the mean gradient, unbiased by independent samples of the gradients.

    The examples of a step are divided into three parts, whose gradients are the columns of G₁, G₂ and G₃, with the
    means g₀(G). S times, from the w of the previous step (1/T in the first), with Π the projection onto the simplex:

        w ← Π(w − β G₁ᵀ (G₂ w + λ g₀(G₂))),    then update = T (G₃ w + λ g₀(G₃)) / (1 + λ)

    This is gradient descent on ½ ‖G w + λ g₀‖² with an estimate of the gradient that is unbiased, as G₁ and G₂ are
    independent. The paper's update G₃ w + λ g₀(G₃) is (1 + λ) times a mean of the tasks; here, as in the official code,
    it is scaled to the sum of the tasks: the weights T (w + λ/T) / (1 + λ) sum to T. Scaling all losses scales the
    update.

    Note:
        Deviations from the paper. The S iterations of a step share G₁ and G₂, as in the official code, where algorithm
        1 draws new ones for each. β is `step_size` divided by the largest row sum of |G₁ᵀ G₂|: with 1, the iterations
        converge if G₁ = G₂. The official code divides by the squared mean norm of the gradients instead, with a step
        size of 10 and a momentum of 0.5, which is not in algorithm 1; its w then oscillates (on random gradients of 10
        tasks, 20 of its iterations reach 7 times the minimum of ‖G w + λ g₀‖², 20 iterations of this implementation
        twice). Its three samples share one buffer, so that only the last one is used; here they are separate. A task
        that is absent from a step keeps its w; the w of the present tasks are scaled to sum to 1 for the step, and back
        to their previous sum. G₃ is not computed explicitly: the third part needs one backward pass with the weights.

    Args:
        tasks: The T tasks.
        regularization: Strength λ of the regularization towards the mean gradient; 0 is MGDA. The paper's experiments
            use 0.3.
        step_size: Step size β, in units of 1 / the largest row sum of |G₁ᵀ G₂|; above 2 it may not converge.
        iterations: Number of iterations S.

    References:
        Xiao, Ban and Ji, "Direction-oriented Multi-objective Learning: Simple and Provable Stochastic Algorithms",
        NeurIPS 2023, arXiv:2305.18409, algorithm 1.
    """

    gradients = ("parameters",)  # features of different examples have no inner products
    independent = True
    shares: Tensor

    def __init__(
        self,
        tasks: Sequence[WeightedTask | str],
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
        """Update w and return the weights, see `GramianWeighting.weights`."""
        count = len(present)
        shares, total = restrict_to_present(self.shares, present, gramian)
        shares = run_solver(iterate_weights, gramian, shares, *make_running_means(count, gramian),
                        self.step_size, self.regularization, self.iterations)  # fmt: skip
        write_rows(self.shares, present, total * shares)
        weights: Tensor = (count * shares + self.regularization) / (1.0 + self.regularization)
        return weights

    @torch.no_grad()
    def forward(self, jacobian: Tensor, losses: Tensor | None = None, present: Sequence[int] | None = None) -> Tensor:
        """Combine the gradients of one optimizer step, for use outside of a training run.

        Args:
            jacobian: [3, t, P], the gradients of the present tasks on three independent samples of the examples.
            losses: Not used.
            present: Indices of the present tasks, ascending; all tasks by default.

        Returns:
            [P] update J₃ᵀw, with weights w from the first two samples.

        Raises:
            ValueError: If the Jacobians are not those of three samples.
        """
        if jacobian.ndim != 3 or len(jacobian) != 3:
            raise ValueError(f"SDMGrad: expected Jacobians [3, t, P] of three samples, got {list(jacobian.shape)}")
        first, second, third = jacobian.detach()
        losses, present = self._checked(third, losses, present)
        count = len(present)
        self.start_step()
        return combine_rows(
            self.weights(compute_gramian(torch.cat([first, second]))[:count, count:], losses, present), third
        )


def iterate_weights(
    xp: Backend,
    products: Array,
    shares: Array,
    means: Array,
    shifts: Array,
    step_size: float,
    regularization: float,
    iterations: int,
) -> Array:
    """Run the iterations of SDMGrad on w.

    Args:
        xp: Backend, NumPy or torch.
        products: [t, t], inner products G₁ᵀ G₂.
        shares: [t], initial w.
        means: [t, t], matrix from `make_running_means`.
        shifts: [t], shifts from `make_running_means`.
        step_size: Step size in units of 1 / the largest row sum of |G₁ᵀ G₂|.
        regularization: Strength λ.
        iterations: Number of iterations.

    Returns:
        [t] new w.
    """
    largest = xp.clip(abs(products).sum(1).max(), float(xp.finfo(products.dtype).tiny), None)
    descent = products * (-step_size / largest)
    pull = descent.mean(1) * regularization
    descent = descent + xp.diag(shifts * 0.0 + 1.0)
    zero = shifts * 0.0
    for _ in range(iterations):
        updated = pull + descent @ shares
        shares = xp.maximum(updated - find_threshold(xp, updated, means, shifts), zero)
    return shares
