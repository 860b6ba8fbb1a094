"""Gradient surgery: each task's gradient loses what opposes the others'."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mtlcli.registry import weightings
from mtlcli.weighting.base import GramianWeighting, Seeded, WeightedTask
from mtlcli.weighting.solvers.gramian import units


class SequentialProjection(Seeded, GramianWeighting):
    """Base of the methods in which each task's gradient meets the others' one after another, in a random order."""

    def __init__(self, tasks: Sequence[WeightedTask]) -> None:
        super().__init__(tasks)
        self._keys: Tensor | None = None

    def start_step(self) -> None:
        """Draw the step's orders: each task's is that of its row of keys [T, T], in which it comes last itself."""
        keys = torch.rand(len(self.tasks), len(self.tasks), generator=self.generator, dtype=torch.float64)
        self._keys = keys.fill_diagonal_(2.0)

    def orders(self, present: Sequence[int]) -> Tensor:
        """[t−1, t], on the CPU: column i holds the positions (among `present`) of the others, in the order of task i.

        An absent task makes no difference to the order of those present.
        """
        assert self._keys is not None, "start_step() draws the orders, and wasn't called"
        keys = self._keys
        if len(present) < len(self.tasks):
            index = torch.tensor(present)
            keys = keys[index[:, None], index]
        return keys.argsort(1)[:, :-1].T.contiguous()

    @staticmethod
    def total(added: Tensor, orders: Tensor, lengths: Tensor, inverses: Tensor) -> Tensor:
        """The weights [t] of Σ_i g_i', where g_i' = g_i + ‖g_i‖ Σ_s added_s[i] g_j/‖g_j‖ with j = orders_s[i].

        added: [t−1, t].
        """
        coefficients = lengths.new_zeros(len(lengths), len(lengths)).scatter(1, orders.T, added.T)
        return (lengths[:, None] * coefficients).sum(0).mul_(inverses).add_(1.0)


@weightings.register("pcgrad")
class PCGrad(SequentialProjection):
    """PCGrad: each task's gradient is projected onto the normal planes of those it conflicts with; the sum of them all.

    Yu, Kumar, Gupta, Levine, Hausman and Finn, "Gradient Surgery for Multi-Task Learning", NeurIPS 2020, algorithm 1.
    From g_i' = g_i, for each other task j in a random order, drawn anew for each i at each step:

        g_i' ← g_i' − min(0, g_i'·g_j) / ‖g_j‖² g_j,    update = Σ_i g_i'

    The g_j are the tasks' *original* gradients, not the projected ones. All of it is done on the Gramian, with
    g_i' = Σ_k C_ik g_k, for all i at once: t−1 steps in all.

    The weights, Σ_i C_ik, are in the scale of the sum of the tasks: without conflict all are 1. They are at least 1.
    With two tasks the update conflicts with neither, and is that of `upgrad`; with more it may. A scaling of all losses
    scales the update.

    Deviations: none from the paper. Its official code draws one order a step, which all tasks share.
    """

    @torch.no_grad()
    def weights(self, gramian: Tensor, losses: Tensor, present: Sequence[int]) -> Tensor:
        """See `GramianWeighting.weights`."""
        if len(present) == 1:
            return torch.ones_like(losses, dtype=gramian.dtype)
        cosines, lengths, inverses = units(torch, gramian)
        orders = self.orders(present).to(gramian.device, non_blocking=True)
        opposed = -cosines  # row i: minus the products of g_i'/‖g_i‖ with each g_j/‖g_j‖
        added = []
        for order, column in zip(orders.unbind(), orders.unsqueeze(-1).unbind(), strict=True):
            added.append(opposed.gather(1, column).relu_())
            opposed.addcmul_(added[-1], cosines.index_select(0, order), value=-1)
        return self.total(torch.cat(added, 1).T, orders, lengths, inverses)
