"""The Gramian of the tasks' gradients, and the quantities that several methods derive from it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from mtlcli.weighting.solvers.backend import Array, Module, on_host

SHORT = 1024  # columns whose products are summed together where there is no float64
ROUNDING = 16  # in units of eps: the relative rounding error of a gradient, and of a few operations on a matrix
RIDGES = 14  # tried at most, each ten times the one before


def exact_type(device: torch.device) -> torch.dtype:
    """The type in which Gramians and weights are computed: float64 where the device has it, float32 on MPS."""
    return torch.float32 if device.type == "mps" else torch.float64


def inner_products(rows: Tensor) -> Tensor:
    """The Gramian G = J Jᵀ [n, n] of the rows of J [n, P], in `exact_type`.

    Solvers depend on the small eigenvalues of G. A float32 product leaves errors of 1e-7 of the largest eigenvalue in
    them, so that a singular G looks regular, or indefinite. The product of two float32 numbers is exact in float64, and
    the sum then keeps a relative error of about 1e-16 √P. On MPS, which has no float64, short blocks are multiplied and
    then summed, which keeps the error near that of a few additions instead of P.
    """
    exact = exact_type(rows.device)
    if exact == torch.float32:
        return _in_short_blocks(rows)
    gramian = torch.zeros(len(rows), len(rows), dtype=exact, device=rows.device)
    for block in _converted(rows, exact):
        gramian.addmm_(block, block.T)
    return gramian


def inner_products_with_sum(rows: Tensor, weights: Tensor) -> Tensor:
    """The products [n] of the rows of J [n, P] with their weighted sum Jᵀw, in the type of the weights [n].

    That is G w, in the time of reading J once and without the n² products of G.
    """
    products = torch.zeros_like(weights)
    for block in _converted(rows, weights.dtype):
        products.addmv_(block, weights @ block)
    return products


def _converted(rows: Tensor, exact: torch.dtype) -> Iterator[Tensor]:
    """Blocks of columns that fit the cache, each converted into the same buffer: there is no second copy of J."""
    width = block_width(rows)
    buffer = torch.empty(len(rows), min(width, rows.shape[1]), dtype=exact, device=rows.device)
    for block in torch.split(rows, width, 1):
        yield buffer[:, : block.shape[1]].copy_(block)


def _in_short_blocks(rows: Tensor) -> Tensor:
    count = rows.shape[1] // SHORT
    blocks, rest = rows[:, : count * SHORT].reshape(len(rows), count, SHORT).transpose(0, 1), rows[:, count * SHORT :]
    gramian: Tensor = (blocks @ blocks.mT).sum(0) + rest @ rest.T
    return gramian


def units(xp: Module, gramian: Array) -> tuple[Array, Array, Array]:
    """The Gramian C of the unit gradients, the gradients' norms [t] and the inverses of these, by NumPy or torch.

    The row, the column and the inverse of a zero gradient are 0. Rounding is kept from making a square negative or a
    cosine larger than 1.
    """
    lengths = xp.sqrt(xp.clip(gramian.diagonal(), 0.0, None))
    inverses = xp.where(lengths > 0, 1.0 / lengths, 0.0)
    return xp.clip(gramian * inverses[:, None] * inverses, -1.0, 1.0), lengths, inverses


def norms(gramian: Tensor) -> Tensor:
    """The norms of the tasks' gradients, [t]."""
    return gramian.diagonal().clamp(min=0.0).sqrt()


def rank_tolerance(gramian: Tensor) -> float:
    """The eigenvalue, as a part of the largest one, below which rounding can have made it.

    The singular values of J are the roots of the eigenvalues. The entries of J come from float32 arithmetic, with
    relative errors of a few eps, so a singular value is known to 16 eps of the largest (2e-6) and an eigenvalue to the
    square of that; and to the errors of the solver, which are those of the Gramian's own type times its size.
    """
    rows, own = torch.finfo(torch.float32).eps, torch.finfo(gramian.dtype).eps
    return max((ROUNDING * rows) ** 2, ROUNDING * len(gramian) * own)


def positive_ridge(xp: Module, matrix: Array, least: float) -> Any:
    """A number r such that all eigenvalues of `matrix` + r I are at least r/2; a float, or 0-d on another device.

    It is `least` where that is enough, as it is for a Gramian that is exact to float64. One that rounding has made
    indefinite, as float32 does, gets the first of `least` × 10, 100, … for which a Cholesky factorization succeeds.
    """
    ridges = [least * 10.0**power for power in range(RIDGES)]
    if xp is torch and not on_host(matrix):
        shifts = torch.tensor(ridges, dtype=matrix.dtype).to(matrix.device, non_blocking=True)
        identity = torch.eye(len(matrix), dtype=matrix.dtype, device=matrix.device)
        failures = torch.linalg.cholesky_ex(matrix + (0.5 * shifts)[:, None, None] * identity).info
        return shifts.gather(0, (failures == 0).to(torch.uint8).argmax(0, keepdim=True)).squeeze(0)
    tensor = torch.as_tensor(matrix)
    for ridge in ridges:
        shifted = tensor.clone()
        shifted.diagonal().add_(0.5 * ridge)
        if not bool(torch.linalg.cholesky_ex(shifted).info):
            break
    return ridge


def take(buffer: Tensor, present: Sequence[int]) -> Tensor:
    """The rows of a [T, …] buffer that belong to the present tasks, [t, …]: the buffer itself where all are."""
    return buffer if len(present) == len(buffer) else buffer[_index(buffer, present)]


def put(buffer: Tensor, present: Sequence[int], rows: Tensor) -> None:
    """Write [t, …] rows back to a [T, …] buffer, in its type; the absent tasks' rows stay."""
    if rows is buffer:
        return
    if len(present) == len(buffer):
        buffer.copy_(rows)
    else:
        buffer.index_copy_(0, _index(buffer, present), rows.to(buffer.dtype))


def combine(weights: Tensor, rows: Tensor) -> Tensor:
    """Rᵀw [P] of rows [t, P], in the rows' type even under autocast, which leaves `out=` alone."""
    return torch.mv(rows.mT, weights.to(rows.dtype), out=rows.new_empty(rows.shape[1]))


def block_width(matrix: Tensor) -> int:
    """How many columns of a matrix [t, P] stay in the cache while several operations go over them."""
    return int((2**17 if matrix.device.type == "cpu" else 2**26) // len(matrix))


def _index(buffer: Tensor, present: Sequence[int]) -> Tensor:
    # A plain copy of the indices to the device would wait for it.
    return torch.tensor(present).to(buffer.device, non_blocking=True)
