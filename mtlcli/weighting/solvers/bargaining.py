"""Solver of the bargaining equation G α = α^(−1/a) of Nash-MTL and FairGrad, by Newton's method."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from mtlcli.weighting.solvers.backend import Array, Backend, run_solver, solve_linear
from mtlcli.weighting.solvers.gramian import ROUNDING, find_ridge, normalize_gramian

ZERO_LENGTH = 1e-15  # relative to the longest gradient
RIDGE = 1e-8
FIRST_STEPS, RIDGED_STEPS, REFINEMENT_STEPS = 8, 40, 4
COARSE_ERROR, FINE_ERROR = 1e-2, 1e-4  # a Newton step from a relative error ends near the square of it
DIVERGED_ERROR = 0.5
MIN_SUM = 1e-8
MAX_CHANGE = 0.9


def solve_bargaining(gramian: Tensor, fairness: float) -> Tensor:
    """Solve (G α)_t = α_t^(−1/a) for α > 0, scaled to a sum of t.

    Newton's method mostly converges in a few steps. If a combination of the gradients vanishes, there is no solution: α
    grows without bound, towards a direction. A ridge of 1e-8, or more where rounding requires it, on the diagonal of
    the cosine matrix ensures a solution, which is close to that direction; Newton's method restarts from it without the
    ridge, in case a distant solution exists. On devices other than the CPU the number of steps is fixed.

    Args:
        gramian: [t, t], Gramian G of the gradients.
        fairness: Exponent parameter a; 1 is Nash-MTL's equation.

    Returns:
        [t] solution α. A zero gradient (below 1e-15 of the longest) gets 1, and the others sum to their number.
    """
    weights: Tensor = run_solver(solve_bargaining_with, gramian, fairness)
    return weights


def solve_bargaining_with(xp: Backend, gramian: Array, fairness: float) -> Array:
    """Solve the bargaining equation with the given backend, see `solve_bargaining`.

    Args:
        xp: Backend; NumPy stops as soon as it has converged, torch runs a fixed number of steps.
        gramian: [t, t], Gramian of the gradients.
        fairness: Exponent parameter a.

    Returns:
        [t] solution α.
    """
    cosines, lengths, _ = normalize_gramian(xp, gramian)
    zero = lengths <= ZERO_LENGTH * lengths.max()
    lengths = xp.where(zero, 1.0, lengths)
    cosines = xp.where(zero | zero[:, None], 0.0, cosines)
    cosines = cosines + xp.diag(xp.where(zero, 1.0, 0.0 * lengths))
    # In terms of β = α ‖g‖ and h = ‖g‖^(1/a − 1): C β = h β^(−1/a). For a = 1 it does not depend on the lengths.
    exponents = xp.clip((1 / fairness - 1) * xp.log(lengths / lengths.mean()), -60.0, 60.0)
    scale = xp.exp(exponents)
    start = xp.exp(exponents * (fairness / (fairness + 1)))  # the solution for orthogonal gradients
    # Rescale such that the sum of the equations β_i (Cβ)_i = h_i β_i^(1 − 1/a) holds: α is large if the gradients
    # nearly cancel.
    whole = (scale * start ** (1 - 1 / fairness)).sum()
    start = start * (whole / xp.clip(start @ (cosines @ start), MIN_SUM * whole, None)) ** (fairness / (fairness + 1))
    beta, converged = _newton(xp, cosines, scale, start, fairness, FIRST_STEPS, FINE_ERROR, float("inf"))
    if xp is torch or not converged:
        least = max(RIDGE, ROUNDING * len(lengths) * float(xp.finfo(gramian.dtype).eps))  # 1 + 1e-8 is 1 in float32
        ridge = find_ridge(xp, cosines, least)
        # Not finite if C is singular; in float32 and for a large a, even with the ridge.
        ridged = xp.where(xp.isfinite(beta).all(), beta, start)
        raised = cosines + ridge * xp.diag(xp.ones_like(lengths))
        ridged, _ = _newton(xp, raised, scale, ridged, fairness, RIDGED_STEPS, COARSE_ERROR, float("inf"))
        refined, refinement_converged = _newton(
            xp, cosines, scale, ridged, fairness, REFINEMENT_STEPS, FINE_ERROR, DIVERGED_ERROR
        )
        ridged = xp.where(xp.isfinite(ridged).all(), ridged, start)
        beta = xp.where(converged, beta, xp.where(refinement_converged, refined, ridged))
    weights = xp.where(zero, 0.0, beta / lengths)
    others = xp.where(zero, 0.0, xp.ones_like(lengths)).sum()
    return xp.where(zero, 1.0, weights * (others / weights.sum()))


def _newton(
    xp: Backend, cosines: Array, scale: Array, beta: Array, fairness: float, steps: int, near: float, hopeless: float
) -> tuple[Array, Array]:
    """Run Newton's method from β; return the solution [t], and whether it has converged (0-d).

    The products B_ij = β_i C_ij β_j must have the row sums k = h β^(1 − 1/a). Scaling β by the factors 1 + x changes
    the row sums by about (B + diag(k/a)) x − (k − B1); Newton's step is the x for which that is zero. For a single
    task, x = (k − B)/(B + k/a), while the solution is β (k/B)^(a/(1 + a)), which as a function of x is β times

        ((1 + x) / (1 − x/a))^(a/(1 + a)).

    The factor is 1 + x near the solution, so that it converges as Newton's method does, with fewer steps far from it.
    Iteration stops (NumPy only) once the error before a step was below `near` or above `hopeless`.
    """
    power, order = fairness / (1 + fairness), 1 - 1 / fairness
    # maximum and minimum with these take less time than a clip
    lowest, highest = scale * 0.0 - MAX_CHANGE, scale * 0.0 + MAX_CHANGE * fairness
    error = scale
    for _ in range(steps):
        row_sums = scale * beta**order
        residual = row_sums - beta * (cosines @ beta)
        products = cosines * beta * beta[:, None] + xp.diag(row_sums / fairness)
        change = xp.maximum(xp.minimum(solve_linear(xp, products, residual), highest), lowest)
        beta = beta * ((1.0 + change) / (1.0 - change / fairness)) ** power
        error = abs(residual / row_sums).max()
        if xp is np and not near < error < hopeless:
            break
    return beta, error <= near
