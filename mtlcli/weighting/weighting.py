"""What every weighting is: T task losses (or their gradients) become one update."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor, nn

from mtlcli.weighting.rows import take


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
    uses_task_weights: whether it reads the λ of the tasks.

    A run calls: `seed` once, before the first step; for every step `start_step`, then what its level has (`objective`
    of `LossWeighting`; `weights` or `update` of those in `gradients`); after every epoch `end_epoch`. Its nn.Parameters
    are trained by the optimizer, without weight decay. Everything it remembers is in its state_dict, as plain tensors,
    so that it can be resumed exactly. Nothing it does within a step waits for the device or loops over tasks in Python.
    """

    level: ClassVar[Literal["loss", "gramian", "jacobian"]] = "loss"
    uses_task_weights: ClassVar[bool] = False

    def __init__(self, tasks: Sequence[WeightedTask]) -> None:
        super().__init__()
        self.tasks = list(tasks)

    def seed(self, seed: int) -> None:
        """Seed the method's own generator, where it has one. Called once, by the builder, before a state is loaded."""

    def start_step(self) -> None:
        """Called before each optimizer step, once however many micro-batches it has: random methods draw here."""

    def check(self, step: int, weights: Mapping[str, float]) -> None:
        """Called on the host, some time after each step, with the weights that the tasks present had in it.

        MtlError ends the run: for a method that finds out too late, since nothing in a step waits for the device.
        """

    def end_epoch(self, losses: Tensor) -> None:
        """Called after each epoch with the mean training loss of each task, [T], NaN for one that had no labels."""

    def select(self, vector: Tensor, present: Sequence[int]) -> Tensor:
        """The entries of a [T] vector that belong to the present tasks, [t]; the vector itself where all are."""
        return take(vector, present)


class LossWeighting(Weighting):
    """A weighting of the losses themselves: T losses → one scalar → one backward.

    A run calls `objective` once a step, or once per micro-batch where `linear`.

    linear: whether the objective is linear in the losses, with weights that stay the same throughout a step; then the
        micro-batches of an accumulated step can go backward one by one, otherwise their losses are summed first.
    looks_back: whether it wants to see, in `after_step`, what a step did to its losses (a second forward pass).
    """

    level = "loss"
    linear: ClassVar[bool] = True
    looks_back: ClassVar[bool] = False

    def objective(self, losses: Tensor, present: Sequence[int], share: float = 1.0) -> tuple[Tensor, Tensor]:
        """The scalar to minimize, and the weight each loss's gradient gets in it.

        losses: [t], the present tasks' mean losses over the step's labelled examples, with their graph.
        present: their indices among the T tasks, ascending, at least one. A task without labels in this step has left
            the problem.
        share: the fraction of the step that these losses stand for. A whole step is 1. Where a `linear` method gets a
            step in micro-batches, each loss is that micro-batch's part of the step's mean (its mean × its labelled
            examples / the step's; 0 if it has none), `present` is the same for all of them, the shares sum to 1, and
            so do the objectives: a method multiplies its terms that don't depend on the losses by `share`.
        Returns (objective 0-d, weights [t] detached): d objective / d losses = weights.
        """
        raise NotImplementedError

    def after_step(self, before: Tensor, after: Tensor, present: Sequence[int]) -> None:
        """Called after the optimizer's step, where `looks_back`.

        before, after: [t], the present tasks' mean losses on the step's examples, without a graph, before and after it.
        """
