"""Solvers written once for NumPy and torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

# NumPy's or torch's: what a solver uses of them has the same name and meaning in both.
Array = Any
Module = Any


def on_host(tensor: Tensor) -> bool:
    """Return whether a value of the tensor can be read without waiting for a device."""
    return tensor.device.type == "cpu"


@torch.no_grad()
def solved(solver: Callable[..., Any], *given: Any) -> Any:
    """What `solver(xp, *given)` returns, an array or a tuple of arrays; xp: NumPy or torch.

    On the CPU it is computed by NumPy, whose operations on ten numbers take a third of torch's time; elsewhere by
    torch, without waiting for the device, so that how much is computed can't depend on values there.
    """
    if not all(on_host(x) for x in given if isinstance(x, Tensor)):
        return solver(torch, *given)
    with np.errstate(all="ignore"):
        found = solver(np, *(x.numpy() if isinstance(x, Tensor) else x for x in given))
    return tuple(map(torch.from_numpy, found)) if isinstance(found, tuple) else torch.from_numpy(found)


def solve(xp: Module, matrix: Array, right: Array) -> Array:
    """x with `matrix` [t, t] x = `right` [t]; not finite where there is none."""
    if xp is torch:
        return torch.linalg.solve_ex(matrix, right).result
    try:
        return np.linalg.solve(matrix, right)
    except np.linalg.LinAlgError:
        return np.full_like(right, np.nan)
