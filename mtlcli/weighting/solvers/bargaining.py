"""The bargaining solution that `nash_mtl` and `fairgrad` look for: Newton's method."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from mtlcli.weighting.solvers.backend import Array, Module, solve, solved
from mtlcli.weighting.solvers.gramian import ROUNDING, positive_ridge, units

SHORTEST = 1e-15
RIDGE = 1e-8
QUICK, STEPS = 8, 40
REFINEMENTS = 4
NEAR, NEAREST = 1e-2, 1e-4  # a step from an error of this size ends near the square of it
HOPELESS = 0.5
FEWEST = 1e-8
FARTHEST = 0.9


def bargain(gramian: Tensor, fairness: float) -> Tensor:
    """α [t] > 0 with (G α)_t = α_t^(−1/a), a being the fairness, scaled to a sum of t.

    gramian: G [t, t]. A zero gradient (below 1e-15 of the longest) has no part in it: its α is 1, and those of the
    others sum to their number.

    Newton's method mostly gets there in a few steps. Where some combination of the gradients is 0 it never does, there
    being no solution: α grows without bound, towards a direction. With a ridge of 1e-8, more where rounding needs it,
    added to the cosines of the gradients with themselves there always is one, and it gives that direction; Newton's
    method starts again from it without the ridge, as there may be a solution far off. Elsewhere than on the CPU the
    number of steps is fixed.
    """
    weights: Tensor = solved(solution, gramian, fairness)
    return weights


def solution(xp: Module, gramian: Array, fairness: float) -> Array:
    """`bargain`, with `xp`, NumPy or torch. Only NumPy's stops as soon as it can."""
    cosines, lengths, _ = units(xp, gramian)
    zero = lengths <= SHORTEST * lengths.max()
    lengths = xp.where(zero, 1.0, lengths)
    cosines = xp.where(zero | zero[:, None], 0.0, cosines)
    cosines = cosines + xp.diag(xp.where(zero, 1.0, 0.0 * lengths))
    # In terms of β = α ‖g‖ and h = ‖g‖^(1/a − 1): C β = h β^(−1/a), for fairness 1 whatever the lengths.
    exponents = xp.clip((1 / fairness - 1) * xp.log(lengths / lengths.mean()), -60.0, 60.0)
    scale = xp.exp(exponents)
    start = xp.exp(exponents * (fairness / (fairness + 1)))  # the solution where all are at right angles
    # That times the number for which the sum of the equations β_i (Cβ)_i = h_i β_i^(1 − 1/a) holds: where the
    # gradients nearly cancel, α is large.
    whole = (scale * start ** (1 - 1 / fairness)).sum()
    start = start * (whole / xp.clip(start @ (cosines @ start), FEWEST * whole, None)) ** (fairness / (fairness + 1))
    beta, converged = _newton(xp, cosines, scale, start, fairness, QUICK, NEAREST, float("inf"))
    if xp is torch or not converged:
        least = max(RIDGE, ROUNDING * len(lengths) * float(xp.finfo(gramian.dtype).eps))  # float32 knows no 1 + 1e-8
        ridge = positive_ridge(xp, cosines, least)
        # Not finite where a singular C couldn't be factorized; in float32, with a large a, even with the ridge.
        ridged = xp.where(xp.isfinite(beta).all(), beta, start)
        raised = cosines + ridge * xp.diag(xp.ones_like(lengths))
        ridged, _ = _newton(xp, raised, scale, ridged, fairness, STEPS, NEAR, float("inf"))
        refined, refining = _newton(xp, cosines, scale, ridged, fairness, REFINEMENTS, NEAREST, HOPELESS)
        ridged = xp.where(xp.isfinite(ridged).all(), ridged, start)
        beta = xp.where(converged, beta, xp.where(refining, refined, ridged))
    weights = xp.where(zero, 0.0, beta / lengths)
    others = xp.where(zero, 0.0, xp.ones_like(lengths)).sum()
    return xp.where(zero, 1.0, weights * (others / weights.sum()))


def _newton(
    xp: Module, cosines: Array, scale: Array, beta: Array, fairness: float, steps: int, near: float, hopeless: float
) -> tuple[Array, Array]:
    """(β, whether it has converged []), from a start β; until the error was `near` before a step, or is `hopeless`.

    The products B = β_i C_ij β_j shall have the row sums k = h β^(1 − 1/a). A change of β by the factors 1 + x changes
    them by about (B + diag(k/a)) x − (k − B1), Newton's step being the x for which that is 0. A task by itself would
    have x = (k − B)/(B + k/a), while its solution is β (k/B)^(a/(1 + a)): as a function of that x, β times

        ((1 + x) / (1 − x/a))^(a/(1 + a)),

    which is 1 + x near the solution, so that it converges as Newton's method does, and far from it takes fewer steps.
    """
    power, order = fairness / (1 + fairness), 1 - 1 / fairness
    lowest, highest = scale * 0.0 - FARTHEST, scale * 0.0 + FARTHEST * fairness  # two of these are quicker than a clip
    error = scale
    for _ in range(steps):
        wanted = scale * beta**order
        missing = wanted - beta * (cosines @ beta)
        products = cosines * beta * beta[:, None] + xp.diag(wanted / fairness)
        change = xp.maximum(xp.minimum(solve(xp, products, missing), highest), lowest)
        beta = beta * ((1.0 + change) / (1.0 - change / fairness)) ** power
        error = abs(missing / wanted).max()
        if xp is np and not near < error < hopeless:
            break
    return beta, error <= near
