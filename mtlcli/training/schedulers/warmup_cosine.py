"""Cosine decay after a warm-up."""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import Field, NonNegativeInt
from torch.optim import Optimizer

from mtlcli.registry import schedulers
from mtlcli.training.schedulers.base import Warmup


@schedulers.register("warmup_cosine")
class WarmupCosine(Warmup):
    """Linear warm-up followed by a cosine decay to 0, per optimizer step.

    The learning rate of step n of N, with W steps of warm-up, is n/W times that of the optimizer up to step W, and
    ½(1 + cos(π(n − W)/(N − W))) times afterwards. It equals `get_cosine_schedule_with_warmup` of transformers; the
    first step, with rate 0, changes nothing.

    Args:
        optimizer: Its learning rates are those after the warm-up.
        steps: Optimizer steps of the run.
        warmup: steps of the warm-up, as a share of the run (below 1, rounded up) or as a number.

    References:
        Loshchilov and Hutter, "SGDR: Stochastic gradient descent with warm restarts", ICLR 2017 (without restarts).
    """

    def __init__(
        self, optimizer: Optimizer, steps: int, *, warmup: NonNegativeInt | Annotated[float, Field(ge=0, lt=1)] = 0.06
    ) -> None:
        super().__init__(optimizer, steps, warmup=warmup)

    def decay(self, progress: float) -> float:
        return 0.5 * (1.0 + math.cos(math.pi * progress))
