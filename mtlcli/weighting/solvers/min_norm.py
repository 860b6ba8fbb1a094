"""Min-norm point in the convex hull of the gradients, for MGDA and CAGrad, by an exact active-set method."""

from __future__ import annotations

import torch
from torch import Tensor

from mtlcli.weighting.solvers.backend import is_on_host
from mtlcli.weighting.solvers.gramian import ROUNDING, find_ridge, normalize_gramian

RIDGE = 1e-10  # at least; equivalent to a component of 1e-5 of each gradient's length that is orthogonal to all others
ZERO_LENGTH = 1e-15  # relative to the longest gradient
BLOCK_STEPS = 6
TINY = 1e-30


def prepare_cosines(gramian: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the regularized cosine matrix of the gradients.

    A gradient shorter than 1e-15 of the longest counts as zero, with that length. The ridge makes all eigenvalues
    positive.

    Args:
        gramian: [t, t], Gramian of the gradients.

    Returns:
        Cosine matrix with the ridge [t, t], lengths of the gradients [t], and a mask of the zero gradients [t].
    """
    unit, lengths, _ = normalize_gramian(torch, gramian)
    floor = ZERO_LENGTH * lengths.amax()
    zero = lengths <= floor
    lengths = torch.maximum(lengths, floor).clamp_(min=TINY)
    unit = unit.masked_fill(zero | zero.unsqueeze(1), 0.0)
    least = max(RIDGE, ROUNDING * len(lengths) * torch.finfo(gramian.dtype).eps)  # 1 + 1e-10 is 1 in float32
    unit.diagonal().add_(find_ridge(torch, unit, least))
    return unit, lengths, zero


@torch.no_grad()
def solve_min_norm(
    unit: Tensor, lengths: Tensor, out: Tensor, pull: Tensor | None = None, radius: Tensor | None = None
) -> Tensor:
    """Minimize ‖Jᵀw‖ subject to w ≥ 0, Σw = 1; or gᵀJᵀw + r ‖Jᵀw‖ for a given vector g and radius r.

    If the set S of tasks with a nonzero weight is known, both problems have a closed form: the products of Jᵀz + g with
    the gradients in S are a common value ν, so that z = ν C⁻¹(1/lengths) − C⁻¹ pull on S, and ν follows from the size
    of z. Only S is searched for. It starts as the set of all tasks; in a few block steps, all tasks with a wrong sign
    change sides at once, which is mostly sufficient. After that (Lawson and Hanson 1974, chapter 23), z moves towards
    the solution on S as far as it stays nonnegative, and tasks whose weight becomes zero leave S; when it arrives, the
    task that improves the objective most joins S. Each step lowers the objective, so no S is repeated, and the method
    ends at the exact minimum.

    Args:
        unit: [t, t], cosine matrix from `prepare_cosines`.
        lengths: [t], lengths of the gradients from `prepare_cosines`.
        out: [t], mask of tasks that get no weight; their lengths are infinite.
        pull: [t], products of g with the unit gradients; None for the first problem.
        radius: 0-d, radius r; None for the first problem.

    Returns:
        [t] weights z ≥ 0 of the unit gradients, scaled such that ‖Jᵀw‖, with the part due to the ridge, is r (1 without
            a pull). The weights w are z / lengths, scaled to a sum of 1.
    """
    count = len(unit)
    inverse = (lengths.amin() / lengths).nan_to_num(0.0)  # up to a factor, which cancels
    tolerance = -8 * torch.finfo(unit.dtype).eps
    barrier = torch.finfo(unit.dtype).max ** 0.5
    size = torch.ones_like(lengths[0]) if radius is None else radius
    sides, base = inverse.unsqueeze(1), torch.zeros_like(lengths)
    if pull is not None:
        sides, square = torch.stack([inverse, pull], 1), size * size
        base = pull
    base = base.masked_fill(out, torch.inf)  # infinite slack keeps these tasks out
    barred = out
    system = torch.empty_like(unit)
    diagonal = system.diagonal()
    at = inverse
    for step in range(BLOCK_STEPS + 3 * count):
        # a diagonal that is practically infinite removes a task from the system without changing its shape
        system.copy_(unit)
        diagonal.masked_fill_(barred, barrier)
        factor = torch.linalg.cholesky_ex(system)[0]
        half = torch.linalg.solve_triangular(factor, sides, upper=False)
        solutions = torch.linalg.solve_triangular(factor.mT, half, upper=True)
        if pull is None:
            solution = solutions.squeeze(1)
            level = size / torch.linalg.vector_norm(half)
            target = level * solution
        else:
            solution, offset = solutions.unbind(1)
            (a, b), (_, c) = (row.unbind() for row in half.T @ half)
            # without a root the minimum is at infinity, in the direction given by this ν
            level = (b + torch.addcmul(b * b, a, square - c).relu().sqrt()) / a
            target = level * solution - offset
        target.masked_fill_(barred, 0.0)
        slack = torch.addmv(base - level * inverse, unit, target)
        joining = (slack < tolerance * target.sum()) & barred
        if step < BLOCK_STEPS:
            at = target.relu()
            changing = (target < at) | joining
        else:
            ratios = (at / -target).masked_fill_(target >= 0, torch.inf)
            ratio = ratios.amin()
            arrived = ratio == torch.inf
            leaving = (ratios <= ratio) & ~arrived
            at = torch.where(arrived, target, (at + ratio * target).masked_fill_(leaving, 0.0))
            changing = leaving | (joining & (slack <= slack.amin()) & arrived)
        barred = barred ^ changing
        if is_on_host(unit) and not bool(changing.any()):
            break
    return at * (size / (at @ (unit @ at)).clamp(min=0.0).sqrt().clamp(min=TINY))
