"""The bargaining solution that `nash_mtl` and `fairgrad` look for: Newton's method."""

from __future__ import annotations

import torch
from torch import Tensor

from mtlcli.weighting.gramian import norms

SHORTEST = 1e-15
RIDGE = 1e-8
QUICK, STEPS = 6, 40
REFINEMENTS = 4
NEAR, NEAREST = 1e-2, 1e-4  # a step from an error of this size ends near the square of it
HOPELESS = 0.5
FARTHEST = 0.9


@torch.no_grad()
def bargain(gramian: Tensor, fairness: float) -> Tensor:
    """α [t] > 0 with (G α)_t = α_t^(−1/a), a being the fairness, scaled to a sum of t.

    gramian: G [t, t]. A zero gradient (below 1e-15 of the longest) has no part in it: its α is 1, and those of the
    others sum to their number.

    Newton's method mostly gets there in a few steps. Where some combination of the gradients is 0 it never does, there
    being no solution: α grows without bound, towards a direction. With 1e-8 added to the squares of all cosines of a
    gradient with itself there always is one, and it gives that direction; Newton's method starts again from it without
    the ridge, as there may be a solution far off.
    """
    lengths = norms(gramian)
    zero = lengths <= SHORTEST * lengths.amax()
    lengths = lengths.masked_fill(zero, 1.0)
    cosines = gramian / lengths / lengths.unsqueeze(1)
    diagonal = cosines.diagonal()
    diagonal.masked_fill_(zero, 1.0)
    # In terms of β = α ‖g‖ and h = ‖g‖^(1/a − 1): C β = h β^(−1/a), for fairness 1 whatever the lengths.
    scale = beta = torch.ones_like(lengths)
    if fairness != 1:
        exponents = ((1 / fairness - 1) * (lengths / lengths.mean()).log()).clamp(-60.0, 60.0)
        scale = exponents.exp()
        beta = (exponents * (fairness / (fairness + 1))).exp()  # the solution where all are at right angles
    start = beta
    beta, converged = _newton(cosines, scale, beta, fairness, QUICK, NEAREST, torch.inf)
    if gramian.device.type != "cpu" or not bool(converged):
        ridge = max(RIDGE, 16 * len(lengths) * torch.finfo(gramian.dtype).eps)  # float32 knows no 1 + 1e-8
        diagonal.add_(ridge)
        # Not finite where a singular C couldn't be factorized; in float32, with a large a, even with the ridge.
        ridged = torch.where(beta.isfinite().all(), beta, start)
        ridged, _ = _newton(cosines, scale, ridged, fairness, STEPS, NEAR, torch.inf)
        diagonal.sub_(ridge)
        refined, refining = _newton(cosines, scale, ridged, fairness, REFINEMENTS, NEAREST, HOPELESS)
        ridged = torch.where(ridged.isfinite().all(), ridged, start)
        beta = torch.where(converged, beta, torch.where(refining, refined, ridged))
    weights = (beta / lengths).masked_fill_(zero, 0.0)
    others = zero.logical_not().sum()
    return (weights * (others / weights.sum())).masked_fill_(zero, 1.0)


def _newton(
    cosines: Tensor, scale: Tensor, beta: Tensor, fairness: float, steps: int, near: float, hopeless: float
) -> tuple[Tensor, Tensor]:
    """(β, whether it has converged []), from a start β; until the error was `near` before a step, or is `hopeless`.

    The products B = β_i C_ij β_j shall have the row sums k = h β^(1 − 1/a). A change of β by the factors 1 + x changes
    them by about (B + diag(k/a)) x − (k − B1), Newton's step being the x for which that is 0. A task by itself would
    have x = (k − B)/(B + k/a), while its solution is β (k/B)^(a/(1 + a)): as a function of that x, β times

        ((1 + x) / (1 − x/a))^(a/(1 + a)),

    which is 1 + x near the solution, so that it converges as Newton's method does, and far from it takes fewer steps.
    """
    power, order = fairness / (1 + fairness), 1 - 1 / fairness
    slope = wanted = error = scale
    for _ in range(steps):
        products = cosines * beta * beta.unsqueeze(1)
        if fairness != 1:
            wanted = scale * beta**order
            slope = wanted / fairness
        missing = wanted - products.sum(1)
        products.diagonal().add_(slope)
        factor = torch.linalg.cholesky_ex(products)[0]
        solved = torch.linalg.solve_triangular(factor, missing.unsqueeze(1), upper=False)
        change = torch.linalg.solve_triangular(factor.mT, solved, upper=True).squeeze(1)
        change = change.clamp(-FARTHEST, FARTHEST * fairness)
        if fairness == 1:
            beta = beta * change.atanh().exp()  # the same
            error = missing.abs().amax()
        else:
            beta = beta * (power * (change.log1p() - (change / -fairness).log1p())).exp()
            error = (missing / wanted).abs().amax()
        if cosines.device.type == "cpu" and not near < float(error) < hopeless:
            break
    return beta, error <= near
