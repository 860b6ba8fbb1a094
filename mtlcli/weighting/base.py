"""What every weighting is: T task losses (or their gradients) become one update."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from mtlcli.weighting.solvers.gramian import take


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


class GradientWeighting(Weighting):
    """Base of the weightings that see the tasks' gradients, the rows of the Jacobian J [t, P].

    They set the gradient of the shared parameters only: every task's head gets its own gradient, unweighted.

    gradients: what the rows of J may be the gradients of, the default first: all shared `parameters`; the `features`
        that the trunk hands to the heads (the P of J is then batch × features, and what the method makes of J goes
        backward through the trunk once); the parameters of the `last_layer` of the trunk.
    reuses_weights: whether the update of a step is Jᵀw with weights that can be used again in the steps after it; then
        the YAML may set `every: k` to have them solved only every k steps.

    A run calls, for every step that solves: `start_step`, then `weights` or `update`, once. Absent tasks (without
    labels in the step) have left the problem: t ≤ T. What is returned must be finite whatever the gradients: zero, of
    rank one, opposed, tiny or huge.
    """

    gradients: ClassVar[tuple[str, ...]] = ("parameters", "features")
    reuses_weights: ClassVar[bool] = True


class GramianWeighting(GradientWeighting):
    """A weighting that needs the inner products of the gradients only.

    independent: whether they are to be those of two independent gradients of each task, and the update of a third: the
        step's examples are divided into three parts.
    """

    level = "gramian"
    independent: ClassVar[bool] = False

    def weights(self, gramian: Tensor, losses: Tensor, present: Sequence[int]) -> Tensor:
        """The weight of each present task's gradient, [t]; the update is Jᵀw.

        gramian: [t, t] G = J Jᵀ, float64 where the device has it; J₁J₂ᵀ where they are to be `independent`.
        losses: [t], the present tasks' mean losses over the step's labelled examples, without a graph, of G's type.
        present: their indices among the T tasks, ascending, at least one.
        Returns a tensor of G's type and device.
        """
        raise NotImplementedError


class JacobianWeighting(GradientWeighting):
    """A weighting that needs the gradients themselves."""

    level = "jacobian"

    def allocate(self, size: int) -> None:
        """Make the buffers whose size depends on P, the number of columns of J. Called once, before a state is loaded.

        They are on the CPU; the run moves the weighting to its device afterwards.
        """

    def update(
        self, jacobian: Tensor, gramian: Tensor, losses: Tensor, present: Sequence[int]
    ) -> tuple[Tensor, Tensor]:
        """The step's update of the shared parameters, and the weights that come nearest to it.

        jacobian: [t, P], float32, not to be changed.
        gramian: [t, t] G = J Jᵀ, float64 where the device has it.
        losses, present: as in `GramianWeighting.weights`.
        Returns (update [P], of J's type, to be descended along; weights [t], of G's type).
        """
        raise NotImplementedError


class Seeded(Weighting):
    """Mix-in with a generator of the method's own, seeded by the run and saved with the method's state.

    generator: on the CPU, so that every device sees the same numbers.
    """

    def __init__(self, tasks: Sequence[WeightedTask]) -> None:
        super().__init__(tasks)
        self.generator = torch.Generator()
        self.generator.manual_seed(0)

    def seed(self, seed: int) -> None:
        """Start the sequence of numbers that belongs to this seed."""
        self.generator.manual_seed(seed)

    def get_extra_state(self) -> Tensor:
        """The generator's state, for state_dict."""
        return self.generator.get_state()

    def set_extra_state(self, state: Tensor) -> None:
        """Put the generator where `get_extra_state` found it."""
        self.generator.set_state(state.cpu())
