"""Base class of the backward passes of a training step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from mtlcli.data.loader import Batch


@dataclass(frozen=True)
class StepResult:
    """Losses, weights and gradient statistics of one step, on the device.

    The step has t tasks with labels and r regularizers; the tasks come first. A regularizer's loss is its term in the
    objective, strength × Ω; its weight is 1 unless the weighting counts it as a task.

    Attributes:
        losses: Mean loss over the labelled examples of the step, shape [t + r].
        weights: Weight of each loss, shape [t + r].
        conflict: Mean cosine of the tasks' gradients and fraction of opposed pairs, shape [2]; None in a step that did
            not compare the gradients.
        largest: Largest absolute value in the gradient of the step, 0-d; None under fp16, where the loss scaler looks
            for overflows.
        updated: Whether the optimizer updated the parameters; False if fp16's loss scaling skipped the step.
    """

    losses: Tensor
    weights: Tensor
    conflict: Tensor | None = None
    largest: Tensor | None = None
    updated: bool = True


class Backward(ABC):
    """Base of the backward passes, from the batches of a step to the gradients of all parameters.

    Attributes:
        route: Name of the computation in `summary.json`.
    """

    route: str

    @abstractmethod
    def __call__(self, batches: Sequence[Batch], totals: list[int], shares: list[float]) -> StepResult:
        """Accumulate the gradient of a step into `.grad`, as if its batches were one.

        Under fp16 the gradients are multiplied by the loss scale, as `GradScaler.unscale_` expects.

        Args:
            batches: Batches of the step, each with at least one label.
            totals: Number of labelled examples of each task of the weighting in the step, length T; for a regularizer
                that counts as a task, the number of examples.
            shares: Fraction of the step's examples in each batch.

        Returns:
            Losses and weights of the step.
        """

    def after_step(self, result: StepResult, batches: Sequence[Batch], totals: list[int], shares: list[float]) -> None:
        """Finish a step whose update the optimizer has made.

        Args:
            result: What the call of this step returned.
            batches: As in the call of this step.
            totals: As in the call of this step.
            shares: As in the call of this step.
        """
        return

    def state_dict(self) -> dict[str, Any]:
        """Return the state that an exact resume requires."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        return
