"""What every weighting is: T task losses (or their gradients) become one update."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class WeightedTask:
    """What a weighting may know of a task: its name, its fixed λ and what its loss is the likelihood of."""

    name: str
    weight: float = 1.0
    likelihood: Literal["gaussian", "categorical"] = "categorical"


class Weighting(nn.Module):
    """Base of the weightings. A module, so that its state and its own parameters are saved like the model's.

    Scale convention, the same for all methods so that learning rates carry over: the *sum* of the tasks, so T tasks
    with equal weights have weight 1 each.

    level: what it needs: the losses alone; their Gramian G = J Jᵀ; or the Jacobian J itself.
    linear: whether the objective is linear in the losses with weights that don't depend on them; then the micro-batches
        of an accumulated step can go backward one by one, otherwise their losses are summed first.
    uses_task_weights: whether it reads the λ of the tasks.
    """

    level: ClassVar[Literal["loss", "gramian", "jacobian"]] = "loss"
    linear: ClassVar[bool] = True
    uses_task_weights: ClassVar[bool] = False

    def __init__(self, tasks: Sequence[WeightedTask]) -> None:
        super().__init__()
        self.tasks = list(tasks)

    def end_epoch(self, losses: Tensor) -> None:
        """Called after each epoch with the mean training loss of each task, [T], NaN for one that had no labels."""

    def select(self, vector: Tensor, present: Sequence[int]) -> Tensor:
        """The entries of a [T] vector that belong to the present tasks, [t]; the vector itself where all are."""
        if len(present) == len(self.tasks):
            return vector
        return vector[torch.tensor(present, device=vector.device)]


class LossWeighting(Weighting):
    """A weighting of the losses themselves: T losses → one scalar → one backward."""

    level = "loss"

    def objective(self, losses: Tensor, present: Sequence[int]) -> tuple[Tensor, Tensor]:
        """The scalar to minimize, and the weight each loss's gradient gets in it.

        losses: [t], the present tasks' mean losses, with their graph.
        present: their indices among the T tasks, ascending. A task without labels in this step has left the problem.
        Returns (objective 0-d, weights [t] detached): d objective / d losses = weights.
        """
        raise NotImplementedError
