"""The point of a convex hull of gradients that `mgda` and `cagrad` look for, exactly: an active-set method."""

from __future__ import annotations

import torch
from torch import Tensor

from mtlcli.weighting.solvers.backend import on_host
from mtlcli.weighting.solvers.gramian import ROUNDING, positive_ridge, units

RIDGE = 1e-10  # at least: as if each gradient had a part of its own, 1e-5 of its length, orthogonal to all others
SHORTEST = 1e-15
BLOCK_STEPS = 6
TINY = 1e-30


def cosines(gramian: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(G of the gradients at unit length, with the ridge [t, t]; their lengths [t]; which of them are zero [t]).

    A length below 1e-15 of the longest is zero, and counts as that. With the ridge all eigenvalues are positive.
    """
    unit, lengths, _ = units(torch, gramian)
    floor = SHORTEST * lengths.amax()
    zero = lengths <= floor
    lengths = torch.maximum(lengths, floor).clamp_(min=TINY)
    unit = unit.masked_fill(zero | zero.unsqueeze(1), 0.0)
    least = max(RIDGE, ROUNDING * len(lengths) * torch.finfo(gramian.dtype).eps)  # float32 knows no 1 + 1e-10
    unit.diagonal().add_(positive_ridge(torch, unit, least))
    return unit, lengths, zero


@torch.no_grad()
def nearest_to_zero(
    unit: Tensor, lengths: Tensor, out: Tensor, pull: Tensor | None = None, radius: Tensor | None = None
) -> Tensor:
    """The w ≥ 0, Σw = 1, that minimizes ‖Jᵀw‖; or gᵀJᵀw + r ‖Jᵀw‖, with a given vector g and radius r.

    unit, lengths: from `cosines`. out: [t], the tasks that get no weight, their lengths infinite. pull: [t], the
    products of g and the gradients at unit length. radius: r [].
    Returns z [t] ≥ 0, the weights for the gradients at unit length (w is z / lengths, scaled to a sum of 1), of such a
    size that ‖Jᵀw‖ is r (1 without a pull), the parts that the ridge adds counted in.

    With S, the tasks whose weight isn't 0, known, both have a closed form: the products of Jᵀz + g with the gradients
    of S are some ν, all the same, so z = ν C⁻¹(1/lengths) − C⁻¹ pull on S, and ν follows from the size of z. Only S has
    to be found. It starts as all tasks; a few times, everything of the wrong sign changes sides at once, which is
    mostly enough. After that (Lawson and Hanson 1974, chapter 23) z moves towards the solution on S as far as it stays
    ≥ 0, and what has become 0 leaves S; or, where it arrives, what improves most by it joins S. That lowers what is
    minimized with every step, so no S comes back: it ends at the exact minimum.
    """
    count = len(unit)
    inverse = (lengths.amin() / lengths).nan_to_num(0.0)  # up to a factor, which makes no difference
    tolerance = -8 * torch.finfo(unit.dtype).eps
    barrier = torch.finfo(unit.dtype).max ** 0.5
    size = torch.ones_like(lengths[0]) if radius is None else radius
    sides, base = inverse.unsqueeze(1), torch.zeros_like(lengths)
    if pull is not None:
        sides, square = torch.stack([inverse, pull], 1), size * size
        base = pull
    base = base.masked_fill(out, torch.inf)  # never too little, so what is out stays out
    barred = out
    system = torch.empty_like(unit)
    diagonal = system.diagonal()
    at = inverse
    for step in range(BLOCK_STEPS + 3 * count):
        # A diagonal that is as good as infinite keeps a task out of the system, whose shape stays the same.
        system.copy_(unit)
        diagonal.masked_fill_(barred, barrier)
        factor = torch.linalg.cholesky_ex(system)[0]
        half = torch.linalg.solve_triangular(factor, sides, upper=False)
        solved = torch.linalg.solve_triangular(factor.mT, half, upper=True)
        if pull is None:
            solution = solved.squeeze(1)
            level = size / torch.linalg.vector_norm(half)
            target = level * solution
        else:
            solution, offset = solved.unbind(1)
            (a, b), (_, c) = (row.unbind() for row in half.T @ half)
            # Without a root, the minimum is infinitely far off, in the direction that this ν gives.
            level = (b + torch.addcmul(b * b, a, square - c).relu().sqrt()) / a
            target = level * solution - offset
        target.masked_fill_(barred, 0.0)
        slack = torch.addmv(base - level * inverse, unit, target)
        wanted = (slack < tolerance * target.sum()) & barred
        if step < BLOCK_STEPS:
            at = target.relu()
            changing = (target < at) | wanted
        else:
            ratios = (at / -target).masked_fill_(target >= 0, torch.inf)
            ratio = ratios.amin()
            arrived = ratio == torch.inf
            leaving = (ratios <= ratio) & ~arrived
            at = torch.where(arrived, target, (at + ratio * target).masked_fill_(leaving, 0.0))
            changing = leaving | (wanted & (slack <= slack.amin()) & arrived)
        barred = barred ^ changing
        if on_host(unit) and not bool(changing.any()):
            break
    return at * (size / (at @ (unit @ at)).clamp(min=0.0).sqrt().clamp(min=TINY))
