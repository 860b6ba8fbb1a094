"""Weights from how far each task is from the best it could do."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor

from mtlcli.registry import weightings
from mtlcli.weighting.base import JacobianWeighting, WeightedTask
from mtlcli.weighting.solvers.gramian import block_width, combine, put, take

FLOOR = 1e-7
LARGEST = 1e4  # a logarithm of a weight; differences of a few hundred are the most that a weight can show
TINY = 1e-30


@weightings.register("excess_mtl")
class ExcessMTL(JacobianWeighting):
    """ExcessMTL: tasks that are further from their optimum count for more, which label noise isn't mistaken for.

    He, Zhou, Zhang, Yun, Xu, Zeng, Chilimbi and Zhao, "Robust Multi-Task Learning with Excess Risks", ICML 2024,
    equations 6, 7 and 9, with the gradients g_t of every step (squares and roots are of each entry):

        S_t ← S_t + g_t²,    Ê_t = Σ g_t² / √(S_t + 1e-7),    w_t ∝ w_t exp(η Ê_t / Ê_t⁰),    update = Σ_t w_t g_t

    Ê_t is an estimate of how far the loss is above its minimum, by a Taylor expansion with a diagonal Hessian as in
    AdaGrad. Ê_t⁰ is its mean over the first `warmup_steps` steps, in which all weights are 1 (section 3.2: Ê / Ê⁰ makes
    tasks of different units comparable). The paper's weights sum to 1, these to T, as in the official code.

    Deviations: one step of warm-up is what the official code has; appendix C.1 of the paper speaks of three epochs,
    which `warmup_steps` can be set to. The code lets its weights become infinite or NaN (they are products, and it
    divides by an Ê⁰ of 0); here their logarithms are kept, and a step in which a task's Ê is 0 is no step of its
    warm-up. A task that is absent from a step keeps its S and Ê⁰. The exponents are taken relative to their mean over
    the step's tasks that have had their warm-up (which makes no difference between these), so that the weights of the
    others stay in relation to them as they were; the weights of those present sum to their number.

    Options:
        robust_step_size: η, how fast the weights move.
        warmup_steps: how many steps Ê⁰ is the mean of.
    """

    gradients = ("parameters",)  # the features of one step's examples have nothing to do with the next one's
    squares: Tensor
    logarithms: Tensor
    baselines: Tensor
    seen: Tensor

    def __init__(
        self,
        tasks: Sequence[WeightedTask],
        *,
        robust_step_size: PositiveFloat = 0.01,
        warmup_steps: PositiveInt = 1,
    ) -> None:
        super().__init__(tasks)
        self.robust_step_size = robust_step_size
        self.warmup_steps = warmup_steps
        self.register_buffer("logarithms", torch.zeros(len(self.tasks)))  # of the weights, up to a constant
        self.register_buffer("baselines", torch.zeros(len(self.tasks)))  # Ê⁰, once the warm-up is done
        self.register_buffer("seen", torch.zeros(len(self.tasks), dtype=torch.int64))  # steps of the warm-up

    def allocate(self, size: int) -> None:
        """Make the S of all tasks, [T, size]."""
        self.register_buffer("squares", torch.zeros(len(self.tasks), size))

    @torch.no_grad()
    def update(
        self, jacobian: Tensor, gramian: Tensor, losses: Tensor, present: Sequence[int]
    ) -> tuple[Tensor, Tensor]:
        """See `JacobianWeighting.update`."""
        squares, width = take(self.squares, present), block_width(jacobian)
        excess = torch.zeros_like(gramian[0])
        for gradients, own in zip(torch.split(jacobian, width, 1), torch.split(squares, width, 1), strict=True):
            own.addcmul_(gradients, gradients)
            excess += (own + FLOOR).rsqrt_().mul_(gradients).mul_(gradients).sum(1, dtype=gramian.dtype)
        put(self.squares, present, squares)
        logarithms = self._move(excess, present)
        weights = len(present) * logarithms.softmax(0)
        return combine(weights, jacobian), weights

    def _move(self, excess: Tensor, present: Sequence[int]) -> Tensor:
        """Take the step's Ê [t] in; the logarithms of the weights, [t]."""
        seen, baselines = take(self.seen, present), take(self.baselines, present).to(excess.dtype)
        ready = seen >= self.warmup_steps
        ratios = torch.where(ready, excess / baselines.clamp(min=TINY), 0.0)
        ratios = torch.where(ready, ratios - ratios.sum() / ready.sum().clamp(min=1), 0.0)
        logarithms = take(self.logarithms, present).to(excess.dtype) + self.robust_step_size * ratios
        logarithms = logarithms.clamp(-LARGEST, LARGEST)
        put(self.logarithms, present, logarithms)
        put(self.baselines, present, torch.where(ready, baselines, baselines + excess / self.warmup_steps))
        put(self.seen, present, seen + (~ready & (excess > 0)))
        return logarithms
