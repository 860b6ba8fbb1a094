"""Linear decay after a warm-up."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, NonNegativeInt
from torch.optim import Optimizer

from mtlcli.registry import schedulers
from mtlcli.training.schedulers.base import Warmup


@schedulers.register("warmup_linear")
class WarmupLinear(Warmup):
    """Linear warm-up, then linear decay to 0, step by step.

    The learning rate of step n of N, with W steps of warm-up, is n/W times the optimizer's up to step W, and
    (N − n)/(N − W) times from there. As `get_linear_schedule_with_warmup` of transformers; the first step, at a rate of
    0, changes nothing. Devlin et al., "BERT" (2019), appendix A.2.

    Options:
        warmup: optimizer steps of the warm-up, as a share of the run's (below 1, rounded up) or as a number.
    """

    def __init__(
        self, optimizer: Optimizer, steps: int, *, warmup: NonNegativeInt | Annotated[float, Field(ge=0, lt=1)] = 0.06
    ) -> None:
        super().__init__(optimizer, steps, warmup=warmup)

    def decay(self, progress: float) -> float:
        return 1.0 - progress
