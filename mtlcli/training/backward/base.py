"""What fills the gradients of a step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from mtlcli.data.loader import Batch


@dataclass(frozen=True)
class StepResult:
    """What a step tells of itself: of the t tasks that had labels in it, then of the r regularizers.

    losses: [t + r], mean over the step's labelled examples; of a regularizer, as of a task where it counts as one, in
    the objective: strength × Ω. weights: [t + r]; 1 for a regularizer that is no task. conflict: [2], the mean cosine
    of the tasks' gradients and the share of pairs that oppose each other; None where the gradients weren't looked at.
    largest: 0-d, the largest magnitude in the gradient of the step; None under fp16, whose scaler looks after that.
    updated: whether the optimizer made its step; False where fp16's loss scaling skipped it.
    """

    losses: Tensor
    weights: Tensor
    conflict: Tensor | None = None
    largest: Tensor | None = None
    updated: bool = True


class Backward(ABC):
    """Base of the routes from the losses to the gradients. route: what it is called in `summary.json`."""

    route: str

    @abstractmethod
    def __call__(self, batches: Sequence[Batch], totals: list[int], shares: list[float]) -> StepResult:
        """Fill the `.grad` of every parameter, as if the batches were one.

        totals: examples of each task of the weighting in the step, [T]: labelled ones of a real one, of which one has
        some. shares: each batch's part of the step's examples. Under fp16 the gradients are scaled by the scaler, as
        its `unscale_` expects.
        """

    def after_step(self, made: StepResult, batches: Sequence[Batch], totals: list[int], shares: list[float]) -> None:
        """Called after the optimizer's step, with what it was made and made of."""
        return

    def state_dict(self) -> dict[str, Any]:
        """What must be saved for an exact resume."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        return
