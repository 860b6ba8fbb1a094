"""GradNorm: gradient normalization for adaptive loss balancing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from pydantic import Field, PositiveFloat
from torch import Tensor

from mtlcli.registry import weightings
from mtlcli.weighting.base import GramianWeighting, WeightedTask
from mtlcli.weighting.solvers.gramian import compute_norms, select_rows, write_rows

DECAYS, EPSILON = (0.9, 0.999), 1e-8  # of Adam
MIN_WEIGHT = 1e-6
MAX_NORM = 1e18  # its square is finite in float32


@weightings.register("gradnorm")
class GradNorm(GramianWeighting):
    """GradNorm: learn weights that equalize the norms of the gradients, with larger ones for slower tasks.

    In step s, with L_t(0) the first loss of task t:

        G_t = w_t ‖∇L_t‖,    Ḡ = mean G_t,    L̃_t = L_t(s) / L_t(0),    r_t = L̃_t / mean L̃
        L_grad = Σ_t |G_t − Ḡ r_t^α|,    with Ḡ r_t^α constant in its gradient with respect to w
        w(s+1) = w(s) − Adam(∂L_grad/∂w),    scaled to Σ_t w_t = T

    The update uses w(s); w(0) is 1. The gradients are those of the last shared layer, all its parameters; with
    `gradients: parameters` or `features` the norms are those of these gradients. The heads have weight 1.

    Note:
        Deviations from the paper. A weight is at least 1e-6 before scaling; the paper does not specify how weights stay
        positive. An absent task keeps its weight and its Adam moments; the weights of the present tasks are scaled to
        sum to their number in the step, and scaled back to their previous share of T after it. The paper suggests log C
        for L(0) if the first loss depends on the initialization; here it is always the first loss. A loss of 0 or less
        counts as 0; if all are 0, or a first loss was, r or L̃ is 1. With `every: k`, one step of the method is made
        every k steps.

    Args:
        tasks: The T tasks.
        alpha: Strength α with which the training rates are equalized; 0 gives all gradients the same norm.
        lr: Learning rate of Adam for the weights, by default the paper's.

    References:
        Chen, Badrinarayanan, Lee and Rabinovich, "GradNorm: Gradient Normalization for Adaptive Loss Balancing in Deep
        Multitask Networks", ICML 2018, arXiv:1711.02257, equations 1 and 2 and algorithm 1.
    """

    gradients = ("last_layer", *GramianWeighting.gradients)
    uses_losses = True
    learned: Tensor
    first: Tensor
    mean: Tensor
    square: Tensor
    steps: Tensor

    def __init__(
        self,
        tasks: Sequence[WeightedTask | str],
        *,
        alpha: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.5,
        lr: PositiveFloat = 0.025,
    ) -> None:
        super().__init__(tasks)
        self.alpha = alpha
        self.lr = lr
        self.register_buffer("learned", torch.ones(len(self.tasks)))
        self.register_buffer("first", torch.full((len(self.tasks),), float("nan")))  # NaN before the first loss
        for name in ("mean", "square", "steps"):  # state of Adam
            self.register_buffer(name, torch.zeros(len(self.tasks)))

    @torch.no_grad()
    def weights(self, gramian: Tensor, losses: Tensor, present: Sequence[int]) -> Tensor:
        """See `GramianWeighting.weights`."""
        state = (self.learned, self.first, self.mean, self.square, self.steps)
        learned, first, mean, square, steps = (select_rows(buffer, present).to(gramian.dtype) for buffer in state)
        share = learned.mean()
        weights = learned / share
        losses = losses.to(self.first.dtype).to(gramian.dtype).clamp(min=0.0)  # rounded like `first`
        first = torch.where(first.isnan(), losses, first)
        lengths = compute_norms(gramian).clamp(max=MAX_NORM)
        gradient = lengths * torch.sign(weights * lengths - self._targets(weights * lengths, losses, first))

        steps = steps + 1
        mean = DECAYS[0] * mean + (1 - DECAYS[0]) * gradient
        square = DECAYS[1] * square + (1 - DECAYS[1]) * gradient.square()
        deviation = (square / (1 - DECAYS[1] ** steps)).sqrt() + EPSILON
        updated = (weights - self.lr * mean / (1 - DECAYS[0] ** steps) / deviation).clamp(min=MIN_WEIGHT)
        learned = updated / updated.mean() * share
        for buffer, rows in zip(state, (learned, first, mean, square, steps), strict=True):
            write_rows(buffer, present, rows)
        return weights

    def _targets(self, lengths: Tensor, losses: Tensor, first: Tensor) -> Tensor:
        """Return Ḡ r^α, the target norms of the weighted gradients, [t]."""
        ratios = (losses / first).nan_to_num(nan=1.0, posinf=1.0)
        rates = (ratios / ratios.mean()).nan_to_num(nan=1.0, posinf=1.0)
        return lengths.mean() * rates**self.alpha
