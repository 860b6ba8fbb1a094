"""Weights that are learned, so that every task trains at a similar rate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from pydantic import Field, PositiveFloat
from torch import Tensor

from mtlcli.registry import weightings
from mtlcli.weighting.base import GramianWeighting, WeightedTask
from mtlcli.weighting.solvers.gramian import norms, put, take

DECAYS, EPSILON = (0.9, 0.999), 1e-8  # Adam's
LEAST = 1e-6
LARGEST_NORM = 1e18  # its square fits into float32


@weightings.register("gradnorm")
class GradNorm(GramianWeighting):
    """GradNorm: weights that bring the norms of the weighted gradients to a common scale, larger for slower tasks.

    Chen, Badrinarayanan, Lee and Rabinovich, "GradNorm: Gradient Normalization for Adaptive Loss Balancing in Deep
    Multitask Networks", ICML 2018, equations 1 and 2 and algorithm 1. In step s, with L_t(0) its first loss:

        G_t = w_t ‖∇L_t‖,    Ḡ = mean G_t,    L̃_t = L_t(s) / L_t(0),    r_t = L̃_t / mean L̃
        L_grad = Σ_t |G_t − Ḡ r_t^α|,    Ḡ r_t^α being constants to its gradient by w
        w(s+1) = w(s) − Adam(∂L_grad/∂w),    scaled to Σ_t w_t = T

    The step uses w(s); w(0) is 1. The gradients are those of the last layer that the tasks share, all its parameters;
    `gradients: parameters` or `features` takes the norms of those instead. The heads have weight 1.

    Deviations: a weight is at least 1e-6 before they are scaled; the paper doesn't say what keeps them positive. An
    absent task keeps its weight and what Adam remembers of it; those present are scaled to sum to their
    number in the step, and to the share of T they had before it. The paper suggests log C for L(0) where the first loss
    depends on the initialization; here it is the first loss seen. A loss of 0 or less counts as 0, and where all are 0,
    or one was when first seen, r or L̃ is 1. With `every: k`, one step here is k of the run's.

    Options:
        alpha: α, how strongly the tasks are pulled to one rate of training; at 0, all gradients get the same norm.
        lr: the learning rate of Adam for the weights, the paper's.
    """

    gradients = ("last_layer", "parameters", "features")
    learned: Tensor
    first: Tensor
    mean: Tensor
    square: Tensor
    steps: Tensor

    def __init__(
        self,
        tasks: Sequence[WeightedTask],
        *,
        alpha: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.5,
        lr: PositiveFloat = 0.025,
    ) -> None:
        super().__init__(tasks)
        self.alpha = alpha
        self.lr = lr
        self.register_buffer("learned", torch.ones(len(self.tasks)))
        self.register_buffer("first", torch.full((len(self.tasks),), float("nan")))  # NaN where there is none yet
        for name in ("mean", "square", "steps"):  # Adam's
            self.register_buffer(name, torch.zeros(len(self.tasks)))

    @torch.no_grad()
    def weights(self, gramian: Tensor, losses: Tensor, present: Sequence[int]) -> Tensor:
        """See `GramianWeighting.weights`."""
        state = (self.learned, self.first, self.mean, self.square, self.steps)
        learned, first, mean, square, steps = (take(each, present).to(gramian.dtype) for each in state)
        share = learned.mean()
        weights = learned / share
        losses = losses.to(self.first.dtype).to(gramian.dtype).clamp(min=0.0)  # rounded as `first` is
        first = torch.where(first.isnan(), losses, first)
        lengths = norms(gramian).clamp(max=LARGEST_NORM)
        gradient = lengths * torch.sign(weights * lengths - self._targets(weights * lengths, losses, first))

        steps = steps + 1
        mean = DECAYS[0] * mean + (1 - DECAYS[0]) * gradient
        square = DECAYS[1] * square + (1 - DECAYS[1]) * gradient.square()
        deviation = (square / (1 - DECAYS[1] ** steps)).sqrt() + EPSILON
        moved = (weights - self.lr * mean / (1 - DECAYS[0] ** steps) / deviation).clamp(min=LEAST)
        learned = moved / moved.mean() * share
        for each, rows in zip(state, (learned, first, mean, square, steps), strict=True):
            put(each, present, rows)
        return weights

    def _targets(self, lengths: Tensor, losses: Tensor, first: Tensor) -> Tensor:
        """Ḡ r^α: what the norms of the weighted gradients [t] should be."""
        ratios = (losses / first).nan_to_num(nan=1.0, posinf=1.0)
        rates = (ratios / ratios.mean()).nan_to_num(nan=1.0, posinf=1.0)
        return lengths.mean() * rates**self.alpha
