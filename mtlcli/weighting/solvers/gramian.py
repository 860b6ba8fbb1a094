"""Gramian of the tasks' gradients, and quantities that several methods derive from it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from mtlcli.weighting.solvers.backend import Array, Backend, is_on_host

FLOAT32_BLOCK = 1024  # columns whose products are summed together on devices without float64
ROUNDING = 16  # relative rounding error of a gradient, and of a few operations on a matrix, in units of eps
MAX_RIDGES = 14  # number of ridges to try, each ten times the previous one


def exact_dtype(device: torch.device) -> torch.dtype:
    """Return the type in which Gramians and weights are computed: float64, or float32 on MPS, which has no float64."""
    return torch.float32 if device.type == "mps" else torch.float64


def compute_gramian(rows: Tensor) -> Tensor:
    """Compute the Gramian G = J Jᵀ in float64.

    Solvers depend on the small eigenvalues of G. A float32 product leaves errors of 1e-7 of the largest eigenvalue in
    them, so that a singular G looks regular or indefinite. In float64 the product of two float32 numbers is exact, and
    the sum keeps a relative error of about 1e-16 √P. On MPS, short blocks are multiplied and then summed in float32,
    which limits the error to that of a few additions instead of P.

    Args:
        rows: [n, P], the rows of J.

    Returns:
        [n, n] Gramian, of type `exact_dtype`.
    """
    exact = exact_dtype(rows.device)
    if exact == torch.float32:
        return _in_short_blocks(rows)
    gramian = torch.zeros(len(rows), len(rows), dtype=exact, device=rows.device)
    for block in _converted(rows, exact):
        gramian.addmm_(block, block.T)
    return gramian


def multiply_by_gramian(rows: Tensor, weights: Tensor) -> Tensor:
    """Compute G w = J (Jᵀw) in one pass over J, without the n² products of G.

    Args:
        rows: [n, P], the rows of J.
        weights: [n], vector w.

    Returns:
        [n] products, in the type of the weights.
    """
    products = torch.zeros_like(weights)
    for block in _converted(rows, weights.dtype):
        products.addmv_(block, weights @ block)
    return products


def _converted(rows: Tensor, exact: torch.dtype) -> Iterator[Tensor]:
    """Yield blocks of columns that fit the cache, converted into one buffer, so that J is never copied as a whole."""
    width = block_width(rows)
    buffer = torch.empty(len(rows), min(width, rows.shape[1]), dtype=exact, device=rows.device)
    for block in torch.split(rows, width, 1):
        yield buffer[:, : block.shape[1]].copy_(block)


def _in_short_blocks(rows: Tensor) -> Tensor:
    count = rows.shape[1] // FLOAT32_BLOCK
    size = count * FLOAT32_BLOCK
    blocks, rest = rows[:, :size].reshape(len(rows), count, FLOAT32_BLOCK).transpose(0, 1), rows[:, size:]
    gramian: Tensor = (blocks @ blocks.mT).sum(0) + rest @ rest.T
    return gramian


def normalize_gramian(xp: Backend, gramian: Array) -> tuple[Array, Array, Array]:
    """Normalize the Gramian to that of the unit gradients, their cosine matrix.

    Args:
        xp: Backend, NumPy or torch.
        gramian: [t, t], Gramian of the gradients.

    Returns:
        Cosines [t, t], norms [t] of the gradients, and inverse norms [t]. Row, column and inverse norm of a zero
            gradient are 0. Negative squares and cosines beyond ±1, which are due to rounding, are clipped.
    """
    lengths = xp.sqrt(xp.clip(gramian.diagonal(), 0.0, None))
    inverses = xp.where(lengths > 0, 1.0 / lengths, 0.0)
    return xp.clip(gramian * inverses[:, None] * inverses, -1.0, 1.0), lengths, inverses


def compute_norms(gramian: Tensor) -> Tensor:
    """Compute the norms [t] of the gradients from their Gramian [t, t]."""
    return gramian.diagonal().clamp(min=0.0).sqrt()


def rank_tolerance(gramian: Tensor) -> float:
    """Return the fraction of the largest eigenvalue below which an eigenvalue may be due to rounding.

    Singular values of J are the square roots of the eigenvalues. The entries of J come from float32 arithmetic with
    relative errors of a few eps, so that a singular value is known to 16 eps of the largest (2e-6) and an eigenvalue to
    the square of that. Errors of the eigensolver are eps of the Gramian's own type times its size.

    Args:
        gramian: [t, t], of which the type and size are used.

    Returns:
        Relative tolerance.
    """
    gradient_eps, gramian_eps = torch.finfo(torch.float32).eps, torch.finfo(gramian.dtype).eps
    return max((ROUNDING * gradient_eps) ** 2, ROUNDING * len(gramian) * gramian_eps)


def find_ridge(xp: Backend, matrix: Array, least: float) -> Any:
    """Find a ridge r for which all eigenvalues of `matrix` + r I are at least r/2.

    The result is `least` if that is sufficient, as for a Gramian that is exact in float64. For a matrix that rounding
    has made indefinite, as in float32, it is the first of `least` × 10, 100, … for which a Cholesky factorization
    succeeds.

    Args:
        xp: Backend, NumPy or torch.
        matrix: [t, t], symmetric.
        least: Smallest ridge.

    Returns:
        Ridge as a float; 0-d on devices other than the CPU.
    """
    ridges = [least * 10.0**power for power in range(MAX_RIDGES)]
    if xp is torch and not is_on_host(matrix):
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


def select_rows(buffer: Tensor, present: Sequence[int]) -> Tensor:
    """Select the rows of the present tasks.

    Args:
        buffer: [T, …], one row per task.
        present: Indices of the t present tasks, ascending.

    Returns:
        [t, …] rows; `buffer` itself, not a copy, if all tasks are present.
    """
    return buffer if len(present) == len(buffer) else buffer[_index(buffer, present)]


def write_rows(buffer: Tensor, present: Sequence[int], rows: Tensor) -> None:
    """Write the rows of the present tasks to a buffer in place, in its type; rows of absent tasks are unchanged.

    Args:
        buffer: [T, …], one row per task.
        present: Indices of the t present tasks, ascending.
        rows: [t, …], new rows.
    """
    if rows is buffer:
        return
    if len(present) == len(buffer):
        buffer.copy_(rows)
    else:
        buffer.index_copy_(0, _index(buffer, present), rows.to(buffer.dtype))


def combine_rows(weights: Tensor, rows: Tensor) -> Tensor:
    """Compute the weighted sum of rows, in their type, also under autocast (which does not apply to `out=`).

    Args:
        weights: [t], one per row.
        rows: [t, P], for example the Jacobian J.

    Returns:
        [P] sum, Jᵀw.
    """
    return torch.mv(rows.mT, weights.to(rows.dtype), out=rows.new_empty(rows.shape[1]))


def block_width(matrix: Tensor) -> int:
    """Return the number of columns of a matrix [t, P] that stay in the cache during several passes over them."""
    return int((2**17 if matrix.device.type == "cpu" else 2**26) // len(matrix))


def _index(buffer: Tensor, present: Sequence[int]) -> Tensor:
    # a blocking copy of the indices to the device would wait for it
    return torch.tensor(present).to(buffer.device, non_blocking=True)
