"""Base classes of the weightings: T task losses, or their gradients, become one update."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from mtlcli.weighting.solvers.gramian import combine_rows, compute_gramian, exact_dtype, select_rows


@dataclass(frozen=True)
class WeightedTask:
    """Properties of a task that a weighting may use.

    Attributes:
        name: Name of the task.
        weight: Fixed weight λ, the key `weight:` of the task. Used where `Weighting.uses_task_weights`.
        likelihood: Distribution whose negative log-likelihood the loss is, up to constants: "gaussian" (squared
            errors) or "categorical" (cross-entropies).
    """

    name: str
    weight: float = 1.0
    likelihood: Literal["gaussian", "categorical"] = "categorical"


class Weighting(nn.Module):
    """Base class of all weightings.

    A weighting turns the losses of T tasks, or their gradients, into one update of the parameters that the tasks share.
    It is an `nn.Module`, so that its state and its parameters are saved with those of the model. Derive from
    `LossWeighting`, `GramianWeighting` or `JacobianWeighting`, depending on what the method needs.

    A training run calls `seed` once, before the first step; `start_step` before every optimizer step, followed by the
    method of the level (`objective`, `weights` or `update`); `end_epoch` after every epoch. The parameters of a
    weighting are trained by the run's optimizer, without weight decay.

    The scale is the same for all methods, so that learning rates carry over: an update is a *sum* over the tasks, and T
    tasks with equal weights have weight 1 each.

    A subclass keeps everything needed for an exact resume in its `state_dict`, as plain tensors. Within a step it
    neither waits for the device (no `.item()`, no `bool(tensor)`) nor loops over the tasks in Python.

    Args:
        tasks: The T tasks. A string is short for `WeightedTask(string)`.

    Raises:
        TypeError: If `tasks` is a string instead of a list.

    Attributes:
        level: Input of the method: the losses, the Gramian G = J Jᵀ of the gradients, or their Jacobian J.
        uses_task_weights: True if the method reads the weights λ of the tasks.
    """

    level: ClassVar[Literal["loss", "gramian", "jacobian"]] = "loss"
    uses_task_weights: ClassVar[bool] = False

    def __init__(self, tasks: Sequence[WeightedTask | str]) -> None:
        super().__init__()
        if isinstance(tasks, str):
            raise TypeError(f"tasks must be a list of names or of WeightedTask, got the string {tasks!r}")
        self.tasks = [WeightedTask(task) if isinstance(task, str) else task for task in tasks]

    def seed(self, seed: int) -> None:
        """Seed the random generator of the method, if it has one.

        Called once, after construction and before a saved state is loaded.

        Args:
            seed: Seed of the run.
        """

    def start_step(self) -> None:
        """Prepare an optimizer step; methods with random numbers draw them here.

        Called once before each step, however many micro-batches it has.
        """

    def check(self, step: int, weights: Mapping[str, float]) -> None:
        """Validate the weights of a past step on the host.

        Called some time after each step, since nothing within a step waits for the device. Override it and raise
        `MtlError` to end the run.

        Args:
            step: Number of the optimizer step.
            weights: Weight of each task that was present in the step, by name.
        """

    def end_epoch(self, losses: Tensor) -> None:
        """Update the state after an epoch.

        Args:
            losses: [T], mean training loss of each task over the epoch; NaN for a task without labels.
        """

    def select(self, vector: Tensor, present: Sequence[int]) -> Tensor:
        """Return the entries [t] of the present tasks in a vector [T]; the vector itself if all are present."""
        return select_rows(vector, present)


class LossWeighting(Weighting):
    """Base class of methods that need only the losses: T losses, one objective, one backward pass.

    Attributes:
        linear: True if the objective is linear in the losses with weights that are constant within a step. The
            micro-batches of an accumulated step are then differentiated one by one; otherwise their losses are summed
            first.
        looks_back: True if `after_step` is to be called, which costs a second forward pass.
    """

    level = "loss"
    linear: ClassVar[bool] = True
    looks_back: ClassVar[bool] = False

    def objective(self, losses: Tensor, present: Sequence[int], share: float = 1.0) -> tuple[Tensor, Tensor]:
        """Compute the scalar to minimize and the weight of each loss's gradient in it.

        Called once per step, or once per micro-batch if the method is `linear`.

        Args:
            losses: [t], mean loss of each present task over the labelled examples of the step, with its autograd graph.
            present: Indices of the t present tasks among all T, ascending, at least one. Tasks without labels in the
                step are absent.
            share: Fraction of the step that the losses cover. Micro-batches pass their part of the step's mean loss
                (their mean × their labelled examples / those of the step) with the same `present`; the fractions of a
                step sum to 1, and so must the objectives: multiply terms that do not depend on the losses by `share`.

        Returns:
            Objective (0-d) and weights ([t], detached), where ∂objective/∂losses = weights.

        Raises:
            NotImplementedError: If a subclass does not override it.
        """
        raise NotImplementedError

    def after_step(self, before: Tensor, after: Tensor, present: Sequence[int]) -> None:
        """Update the state from the effect of an optimizer step; called if `looks_back`.

        Args:
            before: [t], mean losses of the present tasks on the examples of the step, before it, detached.
            after: [t], losses on the same examples after the step, detached.
            present: Indices of the t present tasks, ascending.
        """

    def forward(self, losses: Tensor | Sequence[Tensor], present: Sequence[int] | None = None) -> Tensor:
        """Compute the objective of one whole optimizer step, for use outside of a training run.

        Args:
            losses: [t], or t scalars: the losses of the present tasks, with their autograd graph.
            present: Indices of the present tasks, ascending; all tasks by default.

        Returns:
            Objective (0-d), to call `backward()` on.
        """
        values = losses if isinstance(losses, Tensor) else torch.stack(list(losses))
        self.start_step()
        return self.objective(values, range(len(self.tasks)) if present is None else present)[0]


class GradientWeighting(Weighting):
    """Base class of methods that need the gradients of the tasks, the rows of the Jacobian J [t, P].

    They set the gradient of the shared parameters only: the head of each task gets its own, unweighted gradient. Tasks
    without labels in a step are absent from the problem (t ≤ T). Results must be finite for all finite gradients: zero,
    linearly dependent, opposed, tiny or huge.

    Attributes:
        gradients: Supported values of the key `gradients:`, the default first: gradients with respect to all shared
            `parameters`, to the `features` that the trunk passes to the heads (P is then batch size × features), to the
            whole `sequence` before it is pooled, or to the parameters of the `last_layer` of the trunk. With `jacobian`
            and `blockwise`, a `GramianWeighting` computes the Gramian of `parameters` in one of two ways.
        reuses_weights: True if the update is Jᵀw with weights that remain valid in later steps, so that `every: k` may
            solve for them every k steps only.
        uses_losses: True if the method reads the values of the losses.
    """

    gradients: ClassVar[tuple[str, ...]] = ("parameters", "features", "sequence")
    reuses_weights: ClassVar[bool] = True
    uses_losses: bool = False

    def _checked(
        self, jacobian: Tensor, losses: Tensor | None, present: Sequence[int] | None
    ) -> tuple[Tensor, Sequence[int]]:
        """Return the losses in the type of the Gramian, and the indices of the present tasks."""
        indices, name = range(len(self.tasks)) if present is None else present, type(self).__name__
        if jacobian.ndim != 2 or len(jacobian) != len(indices):
            raise ValueError(
                f"{name}: expected a Jacobian of shape [{len(indices)}, P], a row per present task, got "
                f"{list(jacobian.shape)}"
            )
        if losses is None:
            if self.uses_losses:
                raise ValueError(f"{name} depends on the losses of the tasks; pass them as `losses`")
            losses = torch.full((len(indices),), torch.nan, device=jacobian.device)
        return losses.detach().to(exact_dtype(jacobian.device)), indices


class GramianWeighting(GradientWeighting):
    """Base class of methods that need only the inner products of the gradients.

    Attributes:
        independent: True if the method needs independent samples of the gradients: every batch is divided into three
            parts, G = J₁J₂ᵀ comes from two of them, and the weights are applied to the gradients of the third.
    """

    level = "gramian"
    gradients: ClassVar[tuple[str, ...]] = ("parameters", "jacobian", "blockwise", "features", "sequence")
    independent: ClassVar[bool] = False

    def weights(self, gramian: Tensor, losses: Tensor, present: Sequence[int]) -> Tensor:
        """Compute the weights w of the tasks' gradients; the update is Jᵀw.

        Args:
            gramian: [t, t], G = J Jᵀ in float64 (float32 on devices without it); J₁J₂ᵀ if `independent`.
            losses: [t], mean losses of the present tasks over the labelled examples of the step, detached, in the type
                of G.
            present: Indices of the t present tasks among all T, ascending, at least one.

        Returns:
            [t] weights, of the type and on the device of G.

        Raises:
            NotImplementedError: If a subclass does not override it.
        """
        raise NotImplementedError

    @torch.no_grad()
    def forward(self, jacobian: Tensor, losses: Tensor | None = None, present: Sequence[int] | None = None) -> Tensor:
        """Combine the gradients of one optimizer step, for use outside of a training run.

        Args:
            jacobian: [t, P], the gradient of each present task.
            losses: [t], losses of the present tasks; required if `uses_losses`.
            present: Indices of the present tasks, ascending; all tasks by default.

        Returns:
            [P] update Jᵀw, in the type of the Jacobian.
        """
        losses, present = self._checked(jacobian, losses, present)
        self.start_step()
        return combine_rows(self.weights(compute_gramian(jacobian), losses, present), jacobian)


class JacobianWeighting(GradientWeighting):
    """Base class of methods that need the gradients themselves.

    Attributes:
        columns: Number P of columns for which `allocate` has made buffers; None before.
    """

    level = "jacobian"
    columns: int | None = None

    def allocate(self, size: int) -> None:
        """Register the buffers whose size depends on P; a subclass that has some extends it.

        Called once, before a saved state is loaded. The buffers are made on the CPU and moved with the weighting.

        Args:
            size: Number P of columns of the Jacobian.
        """
        self.columns = size

    def update(
        self, jacobian: Tensor, gramian: Tensor, losses: Tensor, present: Sequence[int]
    ) -> tuple[Tensor, Tensor]:
        """Compute the update of the shared parameters, and the weights closest to it.

        Args:
            jacobian: [t, P], float32, not to be modified.
            gramian: [t, t], G = J Jᵀ in float64 (float32 on devices without it).
            losses: [t], mean losses of the present tasks, as in `GramianWeighting.weights`.
            present: Indices of the t present tasks among all T, ascending, at least one.

        Returns:
            Update [P] of J's type, the direction to descend along, and weights [t] of G's type.

        Raises:
            NotImplementedError: If a subclass does not override it.
        """
        raise NotImplementedError

    @torch.no_grad()
    def forward(self, jacobian: Tensor, losses: Tensor | None = None, present: Sequence[int] | None = None) -> Tensor:
        """Combine the gradients of one step, see `GramianWeighting.forward`; J is float32.

        The first call allocates the buffers of the method. Call `allocate` before loading a saved state.
        """
        losses, present = self._checked(jacobian, losses, present)
        if self.columns is None:
            self.allocate(jacobian.shape[1])
            self.columns = jacobian.shape[1]
            self.to(jacobian.device)
        self.start_step()
        return self.update(jacobian.detach(), compute_gramian(jacobian), losses, present)[0]
