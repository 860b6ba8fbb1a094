"""In each coordinate of the gradient, one sign only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from mtlcli.registry import weightings
from mtlcli.weighting.base import JacobianWeighting, Seeded, WeightedTask
from mtlcli.weighting.solvers.gramian import block_width, norms


@weightings.register("graddrop")
class GradDrop(Seeded, JacobianWeighting):
    """Gradient Sign Dropout (GradDrop): in each coordinate only the gradients of one sign, drawn at random, are kept.

    Chen, Ngiam, Huang, Luong, Kretzschmar, Chai and Anguelov, "Just Pick a Sign: Optimizing Deep Multitask Models with
    Gradient Sign Dropout", NeurIPS 2020, algorithm 1, with the identity for its f. In each coordinate,
    with U uniform on [0, 1) and drawn anew at each step, and leak ℓ:

        P = ½ (1 + Σ_t g_t / Σ_t |g_t|),    M_t = [P > U][g_t > 0] + [P < U][g_t < 0]
        update = Σ_t (ℓ + (1−ℓ) M_t) g_t

    It is in the scale of the sum of the tasks: where all agree in sign, it is the sum. It isn't made of weights; those
    in the log are the share of each task's squared gradient that was kept, Σ (ℓ + (1−ℓ) M_t) g_t² / Σ g_t² (1 for a
    zero gradient), the multiple of g_t that comes nearest to what was kept of it. A scaling of all losses scales the
    update. It may conflict with a task.

    Deviations: the paper's layer sits at an activation, multiplies the gradients with the sign of its input, sums them
    over the batch for P and has one U for all examples. Here each coordinate of the Jacobian is on its own, as in
    TorchJD: with `gradients: parameters` a coordinate is a parameter (the sum over the batch is in its gradient), with
    `gradients: features` one feature of one example. One leak for all tasks, where each may have its own in the paper.
    P = U counts as P < U.

    Options:
        leak: ℓ, the part of what would be dropped that is kept all the same; 1 is `uniform`.
    """

    reuses_weights = False

    def __init__(self, tasks: Sequence[WeightedTask], *, leak: Annotated[float, Field(ge=0, le=1)] = 0.0) -> None:
        super().__init__(tasks)
        self.leak = leak
        self._draw = torch.empty(0)  # on the CPU, made once: fresh memory for it takes as long as the drawing

    @torch.no_grad()
    def update(
        self, jacobian: Tensor, gramian: Tensor, losses: Tensor, present: Sequence[int]
    ) -> tuple[Tensor, Tensor]:
        """See `JacobianWeighting.update`. Goes through J once, in blocks of columns that stay in the cache."""
        size = jacobian.shape[1]
        if len(self._draw) < size:
            self._draw = torch.empty(size)
        draw = torch.rand(size, generator=self.generator, out=self._draw[:size])
        draw = draw.to(jacobian.device, non_blocking=True)
        lengths = norms(gramian)[:, None]
        inverses = torch.where(lengths > 1e-37, 1 / lengths, 0.0).to(jacobian.dtype)
        update, shares = torch.empty_like(jacobian[0]), torch.zeros_like(lengths[:, 0])
        block = block_width(jacobian)
        parts = zip(torch.split(jacobian, block, 1), torch.split(draw, block), torch.split(update, block), strict=True)
        for gradients, uniform, out in parts:
            total = gradients.sum(0)
            sign = torch.where(0.5 * (1 + total / gradients.abs().sum(0)) > uniform, 1.0, -1.0)
            kept = (gradients * sign).relu_()  # of the sign that is kept, made positive
            torch.mul(kept.sum(0), sign, out=out)
            if self.leak:
                out.mul_(1 - self.leak).add_(total, alpha=self.leak)
            shares += torch.linalg.vector_norm(kept.mul_(inverses), dim=1).square()
        weights = torch.where(inverses[:, 0] > 0, self.leak + (1 - self.leak) * shares, 1.0)
        return update, weights
