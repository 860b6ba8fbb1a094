"""An update that has the same projection on every task's gradient."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mtlcli.registry import weightings
from mtlcli.weighting.gradients import GramianWeighting
from mtlcli.weighting.gramian import norms, scaled

# Of an eigenvalue, to the largest. The singular values of J, their roots, are known to about 1e-6: J is float32.
RANK_TOLERANCE = 1e-12


@weightings.register("imtl_g")
class ImpartialGradients(GramianWeighting):
    """IMTL-G, Impartial Multi-Task Learning's gradient balance: an update that projects equally on all unit gradients.

    Liu, Li, Kuang, Xue, Chen, Yang, Liao and Zhang, "Towards Impartial Multi-task Learning", ICLR 2021, section 3,
    with g_t the gradients and u_t = g_t/‖g_t‖:

        update·u_t is the same for all t,    Σ_t w_t = T

    The paper's closed form for it is w = T v / Σv with G v = d, d_t = ‖g_t‖. It is solved as C x = 1 with the cosines
    C, and v_t = x_t/‖g_t‖, which is exact however unequal the norms. Where the gradients are dependent, v is G⁺d, the
    least-squares solution of Quinton and Rey ("Jacobian Descent", 2024) and TorchJD.

    Promised: the direction of the update, up to its sign, doesn't change with the scale of any single loss. Not
    promised is descent: a weight may be negative, and where Σv is, the update has the same *negative* projection on all
    gradients, as it has in the paper. Where Σv is 0, to rounding, no weights sum to T, and all of them are 0: so with
    two opposed gradients, and with all gradients 0.

    Deviations: the paper's weights sum to 1. TorchJD's rule for a Σv of 0 is one of absolute size, and sets huge
    gradients to 0.
    """

    @torch.no_grad()
    def weights(self, gramian: Tensor, losses: Tensor, present: Sequence[int]) -> Tensor:
        """See `GramianWeighting.weights`."""
        count = len(gramian)
        gramian, _ = scaled(gramian)
        lengths = norms(gramian)
        positive = torch.where(lengths > 0, lengths, 1.0)
        solution, independent = _least_squares(gramian / torch.outer(positive, positive), torch.ones_like(lengths))
        solution = solution / positive
        # Elsewhere than on the CPU, reading whether the other one is needed would wait for the device.
        if gramian.device.type != "cpu" or not bool(independent):
            solution = torch.where(independent, solution, _least_squares(gramian, lengths)[0])
        total = solution.sum()
        vanishes = total.abs() <= _tolerance(gramian) * solution.abs().sum()
        return torch.where(vanishes, 0.0, count * solution / total)


def _least_squares(matrix: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """The shortest x [t] of the least |M x − b|, and whether M has full rank, 0-d."""
    values, vectors = torch.linalg.eigh(matrix)  # ascending
    kept = values > _tolerance(matrix) * values[-1]
    parts = right @ vectors
    # A part of b outside the range of M is 0 but for rounding, which would be magnified.
    seen = parts.abs() > _tolerance(matrix) * right.norm()
    return vectors @ torch.where(kept & seen, parts / values, 0.0), kept[0]


def _tolerance(matrix: Tensor) -> float:
    return max(RANK_TOLERANCE, len(matrix) * torch.finfo(matrix.dtype).eps)
