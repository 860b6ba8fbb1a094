"""NumPy and torch as interchangeable backends of the solvers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

# NumPy or torch: solvers use only functions that both have under the same name.
Array = Any
Backend = Any


def is_on_host(tensor: Tensor) -> bool:
    """Return True if values of the tensor can be read without waiting for a device."""
    return tensor.device.type == "cpu"


@torch.no_grad()
def run_solver(solver: Callable[..., Any], *arguments: Any) -> Any:
    """Call `solver(xp, *arguments)` with NumPy for tensors on the CPU, with torch elsewhere.

    On the CPU, NumPy needs a third of torch's time for operations on ten numbers. On other devices nothing waits for
    the device, so that the number of operations cannot depend on values.

    Args:
        solver: Function of the backend `xp` (NumPy or torch) and the arguments; returns an array or a tuple of arrays.
        *arguments: Tensors, which become arrays on the CPU, and any other values.

    Returns:
        Result of the solver, as a tensor or a tuple of tensors.
    """
    if not all(is_on_host(x) for x in arguments if isinstance(x, Tensor)):
        return solver(torch, *arguments)
    with np.errstate(all="ignore"):
        result = solver(np, *(x.numpy() if isinstance(x, Tensor) else x for x in arguments))
    return tuple(map(torch.from_numpy, result)) if isinstance(result, tuple) else torch.from_numpy(result)


def solve_linear(xp: Backend, matrix: Array, right: Array) -> Array:
    """Solve a linear system of t equations.

    Args:
        xp: Backend, NumPy or torch.
        matrix: [t, t], left-hand side.
        right: [t], right-hand side.

    Returns:
        [t] solution; not finite if the matrix is singular.
    """
    if xp is torch:
        return torch.linalg.solve_ex(matrix, right).result
    try:
        return np.linalg.solve(matrix, right)
    except np.linalg.LinAlgError:
        return np.full_like(right, np.nan)
