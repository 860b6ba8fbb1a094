"""ExcessMTL: robust weights by excess risks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor

from mtlcli.registry import weightings
from mtlcli.weighting.base import JacobianWeighting, WeightedTask
from mtlcli.weighting.solvers.gramian import block_width, combine_rows, select_rows, write_rows

FLOOR = 1e-7
MAX_LOGARITHM = 1e4  # of a weight; a difference of a few hundred is the most that a softmax can represent
TINY = 1e-30


@weightings.register("excess_mtl")
class ExcessMTL(JacobianWeighting):
    """ExcessMTL: increase the weights of tasks with a high excess risk, unaffected by label noise.

    With the gradients g_t of every step (squares and roots are element-wise):

        S_t ← S_t + g_t²,    Ê_t = Σ g_t² / √(S_t + 1e-7),    w_t ∝ w_t exp(η Ê_t / Ê_t⁰),    update = Σ_t w_t g_t

    Ê_t estimates the excess risk, the difference of the loss to its minimum, by a Taylor expansion with a diagonal
    Hessian as in AdaGrad. Ê_t⁰ is its mean over the first `warmup_steps` steps, in which all weights are 1 (section
    3.2: the ratio Ê / Ê⁰ makes tasks of different units comparable). The weights sum to T, as in the official code
    (paper: 1).

    Note:
        Deviations from the paper. The default of one warm-up step is the official code's; appendix C.1 of the paper
        mentions three epochs, which `warmup_steps` can be set to. In the code the weights can become infinite or NaN
        (they are products, divided by Ê⁰ even if it is 0); here their logarithms are stored, and a step with an Ê of 0
        does not count as a warm-up step of the task. A task that is absent from a step keeps its S and Ê⁰. The
        exponents are relative to their mean over the present tasks that have finished their warm-up, which cancels
        between these, so that the weights of the others stay in proportion; the weights of the present tasks sum to
        their number.

    Args:
        tasks: The T tasks.
        robust_step_size: Step size η of the weights.
        warmup_steps: Number of steps over which Ê⁰ is averaged.

    References:
        He, Zhou, Zhang, Yun, Xu, Zeng, Chilimbi and Zhao, "Robust Multi-Task Learning with Excess Risks", ICML 2024,
        arXiv:2402.02009, equations 6, 7 and 9.
    """

    gradients = ("parameters",)  # features belong to the examples of one step and cannot be summed over steps
    squares: Tensor
    logarithms: Tensor
    baselines: Tensor
    seen: Tensor

    def __init__(
        self,
        tasks: Sequence[WeightedTask | str],
        *,
        robust_step_size: PositiveFloat = 0.01,
        warmup_steps: PositiveInt = 1,
    ) -> None:
        super().__init__(tasks)
        self.robust_step_size = robust_step_size
        self.warmup_steps = warmup_steps
        self.register_buffer("logarithms", torch.zeros(len(self.tasks)))  # log-weights, up to a constant
        self.register_buffer("baselines", torch.zeros(len(self.tasks)))  # Ê⁰, complete after the warm-up
        self.register_buffer("seen", torch.zeros(len(self.tasks), dtype=torch.int64))  # warm-up steps so far

    def allocate(self, size: int) -> None:
        """Register the sums of squared gradients S, [T, size].

        Args:
            size: Number of columns of the Jacobian.
        """
        super().allocate(size)
        self.register_buffer("squares", torch.zeros(len(self.tasks), size))

    @torch.no_grad()
    def update(
        self, jacobian: Tensor, gramian: Tensor, losses: Tensor, present: Sequence[int]
    ) -> tuple[Tensor, Tensor]:
        """See `JacobianWeighting.update`."""
        squares, width = select_rows(self.squares, present), block_width(jacobian)
        excess = torch.zeros_like(gramian[0])
        for gradients, sums in zip(torch.split(jacobian, width, 1), torch.split(squares, width, 1), strict=True):
            sums.addcmul_(gradients, gradients)
            excess += (sums + FLOOR).rsqrt_().mul_(gradients).mul_(gradients).sum(1, dtype=gramian.dtype)
        write_rows(self.squares, present, squares)
        logarithms = self._update_logarithms(excess, present)
        weights = len(present) * logarithms.softmax(0)
        return combine_rows(weights, jacobian), weights

    def _update_logarithms(self, excess: Tensor, present: Sequence[int]) -> Tensor:
        """Update the log-weights by the excess risks Ê [t] of the step; return them, [t]."""
        seen, baselines = select_rows(self.seen, present), select_rows(self.baselines, present).to(excess.dtype)
        ready = seen >= self.warmup_steps
        ratios = torch.where(ready, excess / baselines.clamp(min=TINY), 0.0)
        ratios = torch.where(ready, ratios - ratios.sum() / ready.sum().clamp(min=1), 0.0)
        logarithms = select_rows(self.logarithms, present).to(excess.dtype) + self.robust_step_size * ratios
        logarithms = logarithms.clamp(-MAX_LOGARITHM, MAX_LOGARITHM)
        write_rows(self.logarithms, present, logarithms)
        write_rows(self.baselines, present, torch.where(ready, baselines, baselines + excess / self.warmup_steps))
        write_rows(self.seen, present, seen + (~ready & (excess > 0)))
        return logarithms
