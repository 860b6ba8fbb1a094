"""Base classes of the backward passes of a training step, and of the autograd graphs of their tasks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from mtlcli.data.loader import Batch
from mtlcli.specs import at_least_float32


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
        looks_back: Whether `after_step` is to be called.
    """

    route: str
    looks_back: bool = False

    def describe(self) -> dict[str, Any]:
        """Return the facts for `summary.json`: the `route`, and `buffer_bytes` if it holds gradients of the tasks."""
        return {"route": self.route}

    @abstractmethod
    def __call__(self, batches: Sequence[Batch], totals: list[float], shares: list[float]) -> StepResult:
        """Accumulate the gradient of a step into `.grad`, as if its batches were one.

        Under fp16 the gradients are multiplied by the loss scale, as `GradScaler.unscale_` expects.

        Args:
            batches: Batches of the step, each with at least one label.
            totals: Number of labelled examples of each task of the weighting in the step, or the sum of their weights,
                length T; for a regularizer that counts as a task, the number of examples.
            shares: Fraction of the step's examples in each batch.

        Returns:
            Losses and weights of the step.
        """

    def after_step(
        self, result: StepResult, batches: Sequence[Batch], totals: list[float], shares: list[float]
    ) -> None:
        """Finish a step whose update the optimizer has made; called if `looks_back`.

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


@dataclass(frozen=True)
class Parameters:
    """Trainable parameters that the shared part of a graph may reach.

    Attributes:
        shared: Parameters shared by the tasks, whose gradient is balanced.
        own: Parameters in the shared part of the graph that belong to single tasks, such as private trunks. They
            receive their tasks' gradients unweighted.
    """

    shared: Sequence[nn.Parameter]
    own: Sequence[Tensor] = ()


@dataclass
class TaskGraphs(ABC):
    """Base of the graphs of one batch: a shared part, and on top of it one part per task.

    Attributes:
        tasks: Indices of the tasks present in the batch, ascending.
        losses: Loss of each of these tasks, 0-d.
        terms: Regularizers that the weighting does not count as tasks, as they enter the objective, 0-d each.
    """

    tasks: list[int]
    losses: list[Tensor] = field(default_factory=list)
    terms: list[Tensor] = field(default_factory=list)

    @abstractmethod
    def tasks_backward(self, factors: Tensor) -> None:
        """Differentiate every task's part of the graph.

        Args:
            factors: Factor of each loss, shape [t].
        """

    @abstractmethod
    def outputs(self) -> list[tuple[Tensor, dict[int, Tensor | None]]]:
        """Return the outputs of the shared part that require a gradient.

        Returns:
            Pairs of an output and, for the index of every task that uses it, the task's gradient of this output, which
            is None where the task does not reach it. Call `tasks_backward` first.
        """


def weighted_backward(graphs: Sequence[TaskGraphs], weights: Mapping[int, Tensor], parameters: Parameters) -> None:
    """Differentiate the shared part once, for the weighted sum of the tasks, and accumulate into `.grad`.

    Args:
        graphs: Graphs after `tasks_backward`.
        weights: Weight of each task by its index, 0-d.
        parameters: Parameters to differentiate by.
    """
    outputs, cotangents = [], []
    for graph in graphs:
        for output, gradients in graph.outputs():
            outputs.append(output)
            cotangents.append(combine_cotangents(output, gradients, weights))
    shared_backward(graphs, outputs, cotangents, parameters)


def combine_cotangents(output: Tensor, gradients: Mapping[int, Tensor | None], weights: Mapping[int, Tensor]) -> Tensor:
    """Return the weighted sum of the tasks' gradients of an output, of its shape and type.

    Args:
        output: Output of the shared part.
        gradients: Each task's gradient of it, by the index of the task; None counts as zero.
        weights: Weight of each task by its index, 0-d.

    Returns:
        The sum.
    """
    rows = torch.stack([in_memory_order(_or_zeros(gradient, output), output) for gradient in gradients.values()])
    rows = at_least_float32(rows).reshape(len(gradients), -1)
    combined = torch.stack([weights[task] for task in gradients]).to(rows.dtype) @ rows
    return from_memory_order(combined.to(output.dtype), output)


def is_channels_last(x: Tensor) -> bool:
    """Return whether a tensor is maps [B, F, h, w] whose channels are adjacent in memory."""
    return x.ndim == 4 and not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)


def in_memory_order(x: Tensor, output: Tensor) -> Tensor:
    """Return a view whose entries are in the order of a tensor's memory, [B, h, w, F] for channels-last maps.

    Args:
        x: tensor of the shape of `output`, such as a gradient of it.
        output: the tensor whose memory determines the order.

    Returns:
        The view, which needs no copy to be flattened if `x` has the memory format of `output`.
    """
    return x.permute(0, 2, 3, 1) if is_channels_last(output) else x


def from_memory_order(entries: Tensor, output: Tensor) -> Tensor:
    """Return entries in the order of `in_memory_order`, of any shape, as a tensor of the shape of `output`."""
    if not is_channels_last(output):
        return entries.view_as(output)
    examples, channels, height, width = output.shape
    return entries.view(examples, height, width, channels).permute(0, 3, 1, 2)


def shared_backward(
    graphs: Sequence[TaskGraphs], outputs: list[Tensor], cotangents: list[Tensor], parameters: Parameters
) -> None:
    """Differentiate the shared part from given outputs and from the regularizers, and accumulate into `.grad`.

    This takes a single pass if no task has parameters of its own in the shared part. Otherwise these receive their
    tasks' gradients in passes of their own, since no weight may scale them.

    Args:
        graphs: Graphs after `tasks_backward`.
        outputs: Outputs of the shared part.
        cotangents: Gradient of the objective by each output, of the output's shape.
        parameters: Parameters to differentiate by.
    """
    terms = [term for graph in graphs for term in graph.terms if term.requires_grad]
    shared = None
    if parameters.own:
        for graph in graphs:
            if graph.terms:
                terms_backward(graph)
            own_backward(graph.outputs(), parameters.own)
        terms, shared = [], list(parameters.shared)
    if shared == []:  # a frozen trunk
        return
    if outputs or terms:
        torch.autograd.backward([*outputs, *terms], [*cotangents, *map(torch.ones_like, terms)], inputs=shared)


def terms_backward(graph: TaskGraphs) -> None:
    """Differentiate the regularizers and accumulate into `.grad`; the graph is retained."""
    if terms := [term for term in graph.terms if term.requires_grad]:
        torch.autograd.backward(terms, retain_graph=True)


def own_backward(outputs: Iterable[tuple[Tensor, Mapping[int, Tensor | None]]], own: Sequence[Tensor]) -> None:
    """Accumulate the tasks' unweighted gradients into the `.grad` of `own`; the graph is retained.

    Args:
        outputs: Outputs of the shared part, each with the gradients of the tasks, see `TaskGraphs.outputs`.
        own: Parameters of single tasks.
    """
    for output, gradients in outputs:
        cotangent = torch.stack([_or_zeros(gradient, output) for gradient in gradients.values()]).sum(0)
        torch.autograd.backward(output, cotangent, inputs=list(own), retain_graph=True)


def _or_zeros(gradient: Tensor | None, output: Tensor) -> Tensor:
    return torch.zeros_like(output) if gradient is None else gradient


def accumulate_gradients(leaves: Iterable[Tensor], gradients: Iterable[Tensor | None]) -> None:
    """Add gradients to the `.grad` of leaves, which get copies of their own."""
    for leaf, gradient in zip(leaves, gradients, strict=True):
        if gradient is None:
            continue
        if leaf.grad is None:
            leaf.grad = torch.empty_like(leaf, requires_grad=False).copy_(gradient)
        else:
            leaf.grad += gradient
