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
    """Linear warm-up, then half a period of a cosine down to 0, step by step.

    The learning rate of step n of N, with W steps of warm-up, is n/W times the optimizer's up to step W, and
    ½(1 + cos(π(n − W)/(N − W))) times from there. As `get_cosine_schedule_with_warmup` of transformers; the first step,
    at a rate of 0, changes nothing. Loshchilov and Hutter, "SGDR" (2017), without restarts.

    Options:
        warmup: optimizer steps of the warm-up, as a share of the run's (below 1, rounded up) or as a number.
    """

    def __init__(
        self, optimizer: Optimizer, steps: int, *, warmup: NonNegativeInt | Annotated[float, Field(ge=0, lt=1)] = 0.06
    ) -> None:
        super().__init__(optimizer, steps, warmup=warmup)

    def decay(self, progress: float) -> float:
        return 0.5 * (1.0 + math.cos(math.pi * progress))
