"""PCGrad: projecting conflicting gradients."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mtlcli.registry import weightings
from mtlcli.weighting.randomness import SequentialProjection
from mtlcli.weighting.solvers.gramian import normalize_gramian


@weightings.register("pcgrad")
class PCGrad(SequentialProjection):
    """PCGrad: project away the components of each task's gradient that conflict with other tasks.

    From g_i' = g_i, for each other task j in a random order, drawn anew for each i in each step:

        g_i' ← g_i' − min(0, g_i'·g_j) / ‖g_j‖² g_j,    update = Σ_i g_i'

    The g_j are the *original* gradients, not the projected ones. With g_i' = Σ_k C_ik g_k, everything is computed on
    the Gramian, for all i at once, in t−1 steps. The weights Σ_i C_ik are at least 1, and exactly 1 without conflicts.
    With two tasks the update equals that of `upgrad` and conflicts with neither task; with more it may. Scaling all
    losses scales the update.

    Note:
        Deviations: none from the paper. The official code draws one order per step for all tasks.

    Args:
        tasks: The T tasks.

    References:
        Yu, Kumar, Gupta, Levine, Hausman and Finn, "Gradient Surgery for Multi-Task Learning", NeurIPS 2020,
        arXiv:2001.06782, algorithm 1.
    """

    @torch.no_grad()
    def weights(self, gramian: Tensor, losses: Tensor, present: Sequence[int]) -> Tensor:
        """See `GramianWeighting.weights`."""
        if len(present) == 1:
            return torch.ones_like(losses, dtype=gramian.dtype)
        cosines, lengths, inverses = normalize_gramian(torch, gramian)
        orders = self.get_orders(present).to(gramian.device, non_blocking=True)
        opposed = -cosines  # row i: products of −g_i'/‖g_i‖ with each g_j/‖g_j‖
        steps = []  # column i of step s: the multiple of g_j/‖g_j‖ that is added to g_i'/‖g_i‖, j = orders[s, i]
        for order, column in zip(orders.unbind(), orders.unsqueeze(-1).unbind(), strict=True):
            steps.append(opposed.gather(1, column).relu_())
            opposed.addcmul_(steps[-1], cosines.index_select(0, order), value=-1)
        coefficients = lengths.new_zeros(len(lengths), len(lengths)).scatter(1, orders.T, torch.cat(steps, 1))
        weights: Tensor = (lengths[:, None] * coefficients).sum(0).mul_(inverses).add_(1.0)
        return weights
