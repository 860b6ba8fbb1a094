"""Projections onto the dual cone of the gradients: the directions that conflict with no task."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field, NonNegativeFloat
from torch import Tensor

from mtlcli.weighting.solvers.backend import is_on_host
from mtlcli.weighting.solvers.gramian import find_ridge

# Types of the methods' options. A smaller reg_eps would be lost to rounding in float64.
NormEps = NonNegativeFloat
RegEps = Annotated[float, Field(ge=1e-8, allow_inf_nan=False)]

ITERATIONS, PIVOTS = 25, 1000
DEVICE_ITERATIONS, DEVICE_PIVOTS = 60, 30  # on devices other than the CPU, where the iteration cannot end early
SMALL = 16  # number of tasks up to which solving all rows again takes less time than selecting the unsolved ones


@torch.no_grad()
def project_onto_dual_cone(rows: Tensor, gramian: Tensor, norm_eps: float, reg_eps: float) -> Tensor:
    """Project Jᵀu onto {d: J d ≥ 0}, for each row u.

    The weights v are the unique solution of min vᵀ(G/tr(G) + reg_eps·I)v subject to v ≥ u (Quinton and Rey 2024,
    proposition 1). With z = v − u and w = G v this is the linear complementarity problem z ≥ 0, w = G z + G u ≥ 0,
    zᵀw = 0. It is solved exactly by block principal pivoting (Kostreva 1978; Júdice and Pires 1994): guess which z are
    free, solve for them and for the remaining w, and exchange all variables with a negative value. If that does not
    reduce their number, only the last of them is exchanged until it does (Murty's rule), which terminates since G is
    positive definite.

    On the CPU the iteration ends when all rows are solved. On other devices the number of pivots is fixed, since
    reading a result would wait; a row not solved by then gets weights that satisfy v ≥ u only.

    Args:
        rows: [n, t], weights u of the vectors to project.
        gramian: [t, t], Gramian G of the gradients.
        norm_eps: Trace of G below which G counts as zero; v is then u (for u ≥ 0).
        reg_eps: Ridge added to the normalized Gramian; increased if rounding has made G indefinite.

    Returns:
        [n, t] weights v of the projections.
    """
    identity = torch.eye(len(gramian), dtype=gramian.dtype, device=gramian.device)
    trace, floor = gramian.diagonal().sum(), max(norm_eps, torch.finfo(gramian.dtype).tiny)
    regular = torch.where(trace >= floor, gramian / trace, 0.0)
    regular = regular + find_ridge(torch, regular, reg_eps) * identity
    right = rows @ regular
    if not is_on_host(gramian):
        free = _guess(right, regular, identity, reg_eps, DEVICE_ITERATIONS)
        return rows - _pivot_carefully(regular, identity, right, free, DEVICE_PIVOTS).clamp(max=0.0)
    if not bool((right < 0).any()):
        return rows  # no conflict
    small = len(gramian) <= SMALL
    # Solving a single row of a small problem takes as long as computing a better guess.
    free = right < 0 if small and len(rows) == 1 else _guess(right, regular, identity, reg_eps, ITERATIONS)
    for _ in range(4 if small else 2):
        signed, new_free = _pivot(regular, identity, right, free)
        if torch.equal(free, new_free):
            break
        free, before = new_free, free
    else:
        unsolved = (free != before).any(1)  # on the CPU, a shape may depend on values
        signed[unsolved] = _pivot_carefully(regular, identity, right[unsolved], free[unsolved], PIVOTS)
    return rows - signed.clamp(max=0.0)


def _guess(right: Tensor, gramian: Tensor, identity: Tensor, smallest: float, iterations: int) -> Tensor:
    """Estimate which z are free, [n, t], by iterations of the modulus method (van Bokhoven 1981).

    With z = |x| + x and w = ω(|x| − x) the problem is the fixed point x = (ω + G)⁻¹((ω − G)|x| − G u).
    """
    omega = 1.5 * (smallest / len(gramian)) ** 0.5  # fastest near the geometric mean of the extreme eigenvalues
    inverse = torch.linalg.inv_ex(gramian.add(identity, alpha=omega)).inverse
    constant = (right @ inverse).neg_()
    reflection = inverse.mul_(2 * omega).sub_(identity)
    x = constant.clone()
    for _ in range(iterations):
        x = torch.addmm(constant, x.abs_(), reflection)
    free: Tensor = x > 0
    return free


def _pivot(gramian: Tensor, identity: Tensor, right: Tensor, free: Tensor) -> tuple[Tensor, Tensor]:
    """Return −z of the free and w of the other variables [n, t], and which should be free by their signs [n, t]."""
    columns = torch.where(free.unsqueeze(1), gramian, identity)  # w − G z = G u
    signed = torch.linalg.solve_ex(columns, right).result
    tolerance = 1e3 * torch.finfo(gramian.dtype).eps  # a 0 that is rounded to ±1e-16 does not change sides
    return signed, torch.add(signed, free, alpha=-2 * tolerance) < -tolerance


def _pivot_carefully(gramian: Tensor, identity: Tensor, right: Tensor, free: Tensor, pivots: int) -> Tensor:
    """Pivot by Murty's rule from the set `free`; return −z of the free and w of the other variables, [n, t]."""
    can_stop, (count, size) = is_on_host(gramian), free.shape
    positions = torch.arange(size, device=gramian.device)
    fewest = torch.full((count, 1), size + 1, device=gramian.device)
    for _ in range(pivots):
        signed, new_free = _pivot(gramian, identity, right, free)
        if can_stop and torch.equal(new_free, free):
            break
        wrong = new_free != free
        number = wrong.sum(1, keepdim=True)
        last = positions == torch.where(wrong, positions, -1).amax(1, keepdim=True)
        free = free ^ (wrong & (last | (number < fewest)))
        fewest = torch.minimum(number, fewest)
    return signed
