"""GradDrop: gradient sign dropout."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from mtlcli.registry import weightings
from mtlcli.weighting.base import JacobianWeighting, WeightedTask
from mtlcli.weighting.randomness import SeededMixin
from mtlcli.weighting.solvers.gramian import block_width, compute_norms


@weightings.register("graddrop")
class GradDrop(SeededMixin, JacobianWeighting):
    """GradDrop, Gradient Sign Dropout: keep only the gradients of one randomly drawn sign in each coordinate.

    In each coordinate, with U uniform on [0, 1), drawn anew in each step, and leak ℓ:

        P = ½ (1 + Σ_t g_t / Σ_t |g_t|),    M_t = [P > U][g_t > 0] + [P < U][g_t < 0]
        update = Σ_t (ℓ + (1−ℓ) M_t) g_t

    The scale is that of the sum of the tasks: where all signs agree, it is the sum. The update is not a weighted sum of
    the gradients. The logged weight is the kept fraction of a task's squared gradient (1 for a zero gradient), which is
    the multiple of g_t closest to what was kept of it:

        w_t = Σ (ℓ + (1−ℓ) M_t) g_t² / Σ g_t²

    Scaling all losses scales the update. The update may conflict with a task.

    Note:
        Deviations from the paper. The function f of the paper is the identity. The paper's layer acts on an activation:
        it multiplies the gradients by the sign of its input, sums them over the batch for P, and shares one U among all
        examples. Here, as in TorchJD, the coordinates of the Jacobian are independent: parameters with `gradients:
        parameters`, whose gradients include the sum over the batch, or the features of each example with `gradients:
        features`. All tasks have the same leak, where the paper allows one per task. P = U counts as P < U.

    Args:
        tasks: The T tasks.
        leak: Fraction ℓ of the dropped gradients that is kept; 1 is `uniform`.

    References:
        Chen, Ngiam, Huang, Luong, Kretzschmar, Chai and Anguelov, "Just Pick a Sign: Optimizing Deep Multitask Models
        with Gradient Sign Dropout", NeurIPS 2020, arXiv:2010.06808, algorithm 1.
    """

    reuses_weights = False

    def __init__(self, tasks: Sequence[WeightedTask | str], *, leak: Annotated[float, Field(ge=0, le=1)] = 0.0) -> None:
        super().__init__(tasks)
        self.leak = leak
        self._draw = torch.empty(0)  # reused CPU buffer: allocating it takes as long as drawing the numbers

    @torch.no_grad()
    def update(
        self, jacobian: Tensor, gramian: Tensor, losses: Tensor, present: Sequence[int]
    ) -> tuple[Tensor, Tensor]:
        """Combine the gradients in one pass over J, in blocks that fit the cache; see `JacobianWeighting.update`."""
        size = jacobian.shape[1]
        if len(self._draw) < size:
            self._draw = torch.empty(size)
        draw = torch.rand(size, generator=self.generator, out=self._draw[:size])
        draw = draw.to(jacobian.device, non_blocking=True)
        lengths = compute_norms(gramian)[:, None]
        inverses = torch.where(lengths > 1e-37, 1 / lengths, 0.0).to(jacobian.dtype)
        update, shares = torch.empty_like(jacobian[0]), torch.zeros_like(lengths[:, 0])
        block = block_width(jacobian)
        blocks = zip(torch.split(jacobian, block, 1), torch.split(draw, block), torch.split(update, block), strict=True)
        for gradients, uniform, out in blocks:
            total = gradients.sum(0)
            sign = torch.where(0.5 * (1 + total / gradients.abs().sum(0)) > uniform, 1.0, -1.0)
            kept = (gradients * sign).relu_()  # absolute values of the gradients with the kept sign
            torch.mul(kept.sum(0), sign, out=out)
            if self.leak:
                out.mul_(1 - self.leak).add_(total, alpha=self.leak)
            shares += torch.linalg.vector_norm(kept.mul_(inverses), dim=1).square()
        weights = torch.where(inverses[:, 0] > 0, self.leak + (1 - self.leak) * shares, 1.0)
        return update, weights
