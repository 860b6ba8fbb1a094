"""Projection onto the probability simplex: weights that are nonnegative and sum to 1."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from mtlcli.weighting.solvers.backend import Array, Backend
from mtlcli.weighting.solvers.gramian import select_rows

TINY = 1e-30


def make_running_means(count: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Build the linear map from a vector to the means of its leading entries, for `find_threshold`.

    Args:
        count: Length t of the vectors.
        like: Tensor with the type and device of the result.

    Returns:
        Matrix [t, t] that maps v to the means of its first k entries, k = 1 … t, and the shifts −1/k, [t].
    """
    numbers = torch.arange(1, count + 1, dtype=like.dtype, device=like.device)
    return numbers.new_ones(count, count).tril_().div_(numbers[:, None]), -numbers.reciprocal_()


def find_threshold(xp: Backend, vector: Array, means: Array, shifts: Array) -> Array:
    """Find the τ for which max(v − τ, 0) sums to 1.

    It is the largest of (u_1 + … + u_k − 1) / k, with u the entries of v in descending order (Held, Wolfe and Crowder
    1974).

    Args:
        xp: Backend, NumPy or torch.
        vector: [t], vector v with entries far below 1e15.
        means: [t, t], matrix from `make_running_means`.
        shifts: [t], shifts from `make_running_means`.

    Returns:
        Threshold τ, 0-d.
    """
    # topk takes half the time of sort in torch
    descending = vector.topk(len(vector))[0] if xp is torch else np.sort(vector)[::-1]
    return (means @ descending + shifts).max()


def project_onto_simplex(vector: Tensor) -> Tensor:
    """Project a finite vector [t] onto the simplex: return its nearest point, [t]."""
    # The projection is invariant to a shift; without it, the 1 would be lost among entries of 1e20.
    shifted = vector - vector.max()
    projection: Tensor = (shifted - find_threshold(torch, shifted, *make_running_means(len(vector), vector))).relu_()
    return projection


def restrict_to_present(shares: Tensor, present: Sequence[int], like: Tensor) -> tuple[Tensor, Tensor]:
    """Restrict a point of the simplex of all tasks to the present tasks.

    Args:
        shares: [T], point of the simplex.
        present: Indices of the t present tasks, ascending.
        like: Tensor with the type of the results.

    Returns:
        Point of the simplex of the present tasks [t], and the sum of their shares (0-d). Shares that are all 0 become
        equal ones.
    """
    selected = select_rows(shares, present).to(like.dtype) + TINY
    total = selected.sum()
    return selected / total, total
