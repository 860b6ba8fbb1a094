"""Points of the simplex: weights that are positive or 0 and sum to 1."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from mtlcli.weighting.solvers.backend import Array, Module
from mtlcli.weighting.solvers.gramian import take

TINY = 1e-30


def running_means(count: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """The [count, count] matrix that turns a vector into the means of its first k entries, and −1/k, k = 1 … count."""
    numbers = torch.arange(1, count + 1, dtype=like.dtype, device=like.device)
    return numbers.new_ones(count, count).tril_().div_(numbers[:, None]), -numbers.reciprocal_()


def threshold(xp: Module, vector: Array, means: Array, shifts: Array) -> Array:
    """The τ (0-d) for which max(v − τ, 0) sums to 1, of a vector v [t] whose entries are far below 1e15.

    It is the largest of (u_1 + … + u_k − 1) / k, where u is v in descending order (Held, Wolfe and Crowder 1974).

    xp: NumPy or torch. means, shifts: `running_means(t, vector)`.
    """
    # torch's topk takes half the time of its sort
    descending = vector.topk(len(vector))[0] if xp is torch else np.sort(vector)[::-1]
    return (means @ descending + shifts).max()


def project(vector: Tensor) -> Tensor:
    """The point of the simplex nearest to any finite `vector` [t]."""
    # The simplex doesn't notice a shift; without it, the 1 would drown in entries of 1e20.
    shifted = vector - vector.max()
    nearest: Tensor = (shifted - threshold(torch, shifted, *running_means(len(vector), vector))).relu_()
    return nearest


def restrict(shares: Tensor, present: Sequence[int], like: Tensor) -> tuple[Tensor, Tensor]:
    """What a point of the simplex of all tasks, [T], says of those present, and the part of the 1 that is theirs.

    like: gives the type of both.
    Returns (a point of the simplex of those present, [t]; the sum of their shares, 0-d). Where their shares are all 0,
    they are taken for equal.
    """
    own = take(shares, present).to(like.dtype) + TINY
    total = own.sum()
    return own / total, total
