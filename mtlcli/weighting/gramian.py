"""The Gramian of the tasks' gradients, and the quantities that several methods derive from it."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from mtlcli.weighting.rows import block_width

SHORT = 1024  # columns whose products are summed together where there is no float64


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


def scaled(gramian: Tensor) -> tuple[Tensor, Tensor]:
    """G divided by the mean of its diagonal, and that mean (0-d); G = 0 stays 0, and its mean counts as 1.

    A solver's tolerances mean the same then whatever the units of the losses.
    """
    mean = gramian.diagonal().mean()
    mean = torch.where(mean > 0, mean, 1.0)
    return gramian / mean, mean


def units(gramian: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The Gramian of the gradients divided by their norms, the norms [t] and their inverses (0 for a zero one)."""
    lengths = norms(gramian)
    inverses = lengths.reciprocal().nan_to_num_(posinf=0.0)
    return gramian * inverses[:, None] * inverses, lengths, inverses


def norms(gramian: Tensor) -> Tensor:
    """The norms of the tasks' gradients, [t]."""
    return gramian.diagonal().clamp(min=0.0).sqrt()
