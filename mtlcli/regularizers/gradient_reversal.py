"""The gradient-reversal layer of adversarial training, and its schedule."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor


def reverse_gradient(x: Tensor, factor: Tensor) -> Tensor:
    """x itself, whose gradient arrives multiplied by −factor. x: any shape; factor: 0-d, on the same device.

    Source: Ganin et al., Domain-adversarial training of neural networks, JMLR 2016, section 4.2.
    """
    found: Tensor = _Reversal.apply(x, factor)
    return found


def ganin_factor(progress: float) -> float:
    """λ_p = 2 / (1 + exp(−10 p)) − 1 of the progress p from 0 to 1: from 0 to nearly 1, half way there at p = 0.11.

    Source: Ganin et al. 2016, section 5.2, with their γ = 10.
    """
    return 2 / (1 + math.exp(-10 * progress)) - 1


class _Reversal(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: Tensor) -> Tensor:
        ctx.save_for_backward(factor)
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (factor,) = ctx.saved_tensors
        return -factor * gradient, None
