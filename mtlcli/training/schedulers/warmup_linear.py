"""Linear decay after a warm-up."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, NonNegativeInt
from torch.optim import Optimizer

from mtlcli.registry import schedulers
from mtlcli.training.schedulers.base import Warmup


@schedulers.register("warmup_linear")
class WarmupLinear(Warmup):
    """Linear warm-up followed by a linear decay to 0, per optimizer step.

    The learning rate of step n of N, with W steps of warm-up, is n/W times that of the optimizer up to step W, and
    (N − n)/(N − W) times afterwards. It equals `get_linear_schedule_with_warmup` of transformers; the first step, with
    rate 0, changes nothing.

    Args:
        optimizer: Its learning rates are those after the warm-up.
        steps: Optimizer steps of the run.
        warmup: steps of the warm-up, as a share of the run (below 1, rounded up) or as a number.

    References:
        Devlin et al., "BERT: Pre-training of deep bidirectional transformers for language understanding", NAACL 2019,
        appendix A.2.
    """

    def __init__(
        self, optimizer: Optimizer, steps: int, *, warmup: NonNegativeInt | Annotated[float, Field(ge=0, lt=1)] = 0.06
    ) -> None:
        super().__init__(optimizer, steps, warmup=warmup)

    def decay(self, progress: float) -> float:
        return 1.0 - progress
