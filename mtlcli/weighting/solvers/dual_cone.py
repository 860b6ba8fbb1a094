"""Projections onto the dual cone of the tasks' gradients: the directions that conflict with none of them."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field, NonNegativeFloat
from torch import Tensor

from mtlcli.weighting.solvers.backend import on_host
from mtlcli.weighting.solvers.gramian import positive_ridge

# The types of the options that the methods hand over. A smaller reg_eps would be below what float64 resolves.
NormEps = NonNegativeFloat
RegEps = Annotated[float, Field(ge=1e-8, allow_inf_nan=False)]

ITERATIONS, PIVOTS = 25, 1000
ITERATIONS_ELSEWHERE, PIVOTS_ELSEWHERE = 60, 30  # than on the CPU, where there is no early end
SMALL = 16  # up to so many tasks, all rows are solved once more in less time than it takes to pick the unsolved


@torch.no_grad()
def project(rows: Tensor, gramian: Tensor, norm_eps: float, reg_eps: float) -> Tensor:
    """The weights v [n, t] of the projections of Jᵀu onto {d: J d ≥ 0}, for each row u of `rows` [n, t].

    v is the one solution of min vᵀ(G/tr(G) + reg_eps·I)v with v ≥ u (Quinton and Rey 2024, proposition 1). Where
    tr(G) < norm_eps, G counts as 0, and v is u (for u ≥ 0). A G that rounding has made indefinite gets more than
    reg_eps.

    With z = v − u and w = G v this is the linear complementarity problem z ≥ 0, w = G z + G u ≥ 0, zᵀw = 0, solved
    exactly by block principal pivoting (Kostreva 1978; Júdice and Pires 1994): guess which z are free, solve for them
    and for the other w, and exchange all that came out negative. Where that doesn't make them fewer than ever, only the
    last of them is exchanged until it has: Murty's rule, which always ends, since G is positive definite.

    On the CPU it ends when all rows are solved. Elsewhere, reading that would wait for the device: the pivots are fixed
    in number, and a row that isn't solved after them gets weights that are merely v ≥ u.
    """
    identity = torch.eye(len(gramian), dtype=gramian.dtype, device=gramian.device)
    trace, floor = gramian.diagonal().sum(), max(norm_eps, torch.finfo(gramian.dtype).tiny)
    regular = torch.where(trace >= floor, gramian / trace, 0.0)
    regular = regular + positive_ridge(torch, regular, reg_eps) * identity
    right = rows @ regular
    if not on_host(gramian):
        free = _guess(right, regular, identity, reg_eps, ITERATIONS_ELSEWHERE)
        return rows - _pivot_carefully(regular, identity, right, free, PIVOTS_ELSEWHERE).clamp(max=0.0)
    if not bool((right < 0).any()):
        return rows  # nothing conflicts
    small = len(gramian) <= SMALL
    # A single row of a small problem is solved in the time that a better guess takes.
    free = right < 0 if small and len(rows) == 1 else _guess(right, regular, identity, reg_eps, ITERATIONS)
    for _ in range(4 if small else 2):
        signed, wanted = _pivot(regular, identity, right, free)
        if torch.equal(free, wanted):
            break
        free, before = wanted, free
    else:  # on the CPU a shape may depend on values
        unsolved = (free != before).any(1)
        signed[unsolved] = _pivot_carefully(regular, identity, right[unsolved], free[unsolved], PIVOTS)
    return rows - signed.clamp(max=0.0)


def _guess(right: Tensor, gramian: Tensor, identity: Tensor, smallest: float, iterations: int) -> Tensor:
    """Which z are free, [n, t], as far as some iterations of the modulus method (van Bokhoven 1981) can tell.

    With z = |x| + x and w = ω(|x| − x) the problem is the fixed point x = (ω + G)⁻¹((ω − G)|x| − G u).
    """
    omega = 1.5 * (smallest / len(gramian)) ** 0.5  # about the geometric mean of the extreme eigenvalues: fastest there
    inverse = torch.linalg.inv_ex(gramian.add(identity, alpha=omega)).inverse
    constant = (right @ inverse).neg_()
    reflection = inverse.mul_(2 * omega).sub_(identity)
    x = constant.clone()
    for _ in range(iterations):
        x = torch.addmm(constant, x.abs_(), reflection)
    free: Tensor = x > 0
    return free


def _pivot(gramian: Tensor, identity: Tensor, right: Tensor, free: Tensor) -> tuple[Tensor, Tensor]:
    """−z of the free and w of the others [n, t], and which should be free by the signs of these [n, t]."""
    columns = torch.where(free.unsqueeze(1), gramian, identity)  # w − G z = G u
    signed = torch.linalg.solve_ex(columns, right).result
    tolerance = 1e3 * torch.finfo(gramian.dtype).eps  # a 0 that came out as ±1e-16 stays where it is
    return signed, torch.add(signed, free, alpha=-2 * tolerance) < -tolerance


def _pivot_carefully(gramian: Tensor, identity: Tensor, right: Tensor, free: Tensor, pivots: int) -> Tensor:
    """−z of the free and w of the others [n, t], when those are free that should be."""
    reads, (count, size) = on_host(gramian), free.shape
    places = torch.arange(size, device=gramian.device)
    fewest = torch.full((count, 1), size + 1, device=gramian.device)
    for _ in range(pivots):
        signed, wanted = _pivot(gramian, identity, right, free)
        if reads and torch.equal(wanted, free):
            break
        wrong = wanted != free
        number = wrong.sum(1, keepdim=True)
        last = places == torch.where(wrong, places, -1).amax(1, keepdim=True)
        free = free ^ (wrong & (last | (number < fewest)))
        fewest = torch.minimum(number, fewest)
    return signed
