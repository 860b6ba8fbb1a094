"""Jacobians of the task losses, and the backward passes that compute them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from mtlcli.training.backward.base import (
    Parameters,
    TaskGraphs,
    accumulate_gradients,
    own_backward,
    terms_backward,
    weighted_backward,
)


class Jacobians(ABC):
    """Base of the Jacobians of one step, accumulated over its graphs.

    Args:
        parameters: Parameters in the shared part of the graphs.

    Attributes:
        route: Name of the computation in `summary.json`.
    """

    route: str

    def __init__(self, parameters: Parameters) -> None:
        self.parameters = parameters

    @property
    @abstractmethod
    def buffer_bytes(self) -> int:
        """Memory that the tasks' gradients and the update need in a step, as far as it has been allocated."""

    @abstractmethod
    def start(self, present: list[int]) -> None:
        """Start a step.

        Args:
            present: Indices of the tasks present in the step, ascending.
        """

    @abstractmethod
    def add(self, graph: TaskGraphs, sample: int) -> None:
        """Add the gradients of a graph, after its `tasks_backward`, to those of a sample."""

    @abstractmethod
    def matrix(self) -> Tensor:
        """Return J, shape [samples, t, P], with a row for each present task. It may be modified in place."""

    def combine(self, matrix: Tensor, weights: Tensor) -> Tensor:
        """Return the update Jᵀw, shape [P], for J [t, P] and weights [t]."""
        return matrix.T @ weights.to(matrix.dtype)

    @abstractmethod
    def descend(self, weights: Mapping[int, Tensor], update: Tensor) -> None:
        """Accumulate the update into the `.grad` of the shared parameters.

        Args:
            weights: Weight of each present task by its index, 0-d.
            update: Combination of the rows of J, shape [P].
        """


class ParameterJacobians(Jacobians):
    """Jacobian by the shared parameters, from one backward pass through the shared part for each task.

    The passes are repeated, not batched with `torch.vmap`: on CPUs batched passes were faster for the smallest networks
    only (`benchmarks/gradients.py --batched`), and not every trunk supports them.

    Args:
        parameters: Parameters in the shared part of the graphs.
        tasks: Number of tasks of the weighting, T.
        device: Device of the parameters.
        samples: Number of samples whose Jacobians are kept apart.
    """

    route = "repeated backward"

    def __init__(self, parameters: Parameters, tasks: int, device: torch.device, samples: int = 1) -> None:
        super().__init__(parameters)
        self.tasks, self.samples, self.device = tasks, samples, device
        self.measured = self._measured()
        self.rows = FlatGradients(self.measured, samples * self.tasks, device)
        self._updates = [FlatGradients(self.measured, 1, device)]
        self.update = self._updates[0]

    def _measured(self) -> Sequence[nn.Parameter]:
        """Return the parameters that the Jacobian is taken by."""
        return self.parameters.shared

    @property
    def buffer_bytes(self) -> int:
        """See `Jacobians.buffer_bytes`."""
        return self.rows.matrix.nbytes + sum(update.matrix.nbytes for update in self._updates)

    def start(self, present: list[int]) -> None:
        """See `Jacobians.start`."""
        self.row_of = {task: row for row, task in enumerate(present)}
        self.written: set[int] = set()
        self.reached = [False] * len(self.measured)
        self.update = self._free_update()

    def _free_update(self) -> FlatGradients:
        """Return a buffer that no parameter's `.grad` is a view of, as one is if gradients accumulate over steps."""
        used = {p.grad.untyped_storage().data_ptr() for p in self.parameters.shared if p.grad is not None}
        for update in self._updates:
            if update.matrix.untyped_storage().data_ptr() not in used:
                return update
        self._updates.append(FlatGradients(self.measured, 1, self.device))
        return self._updates[-1]

    def add(self, graph: TaskGraphs, sample: int) -> None:
        """See `Jacobians.add`."""
        if graph.terms:
            terms_backward(graph)
        own = self.parameters.own
        for output, gradients in graph.outputs():
            if own and len(gradients) == 1 and all(gradient is not None for gradient in gradients.values()):
                self._add_only_task(output, gradients, sample)
            else:
                if own:
                    own_backward([(output, gradients)], own)
                self._add_rows(output, gradients, sample)

    def _add_only_task(self, output: Tensor, gradients: Mapping[int, Tensor | None], sample: int) -> None:
        """Add the gradients of an output that one task uses, by shared parameters and its own in one pass."""
        ((task, gradient),) = gradients.items()
        inputs, count = [*self.measured, *self.parameters.own], len(self.measured)
        both = torch.autograd.grad(output, inputs, gradient, retain_graph=True, allow_unused=True)
        if count:
            self._put(sample * self.tasks + self.row_of[task], both[:count])
        accumulate_gradients(self.parameters.own, both[count:])

    def _add_rows(self, output: Tensor, gradients: Mapping[int, Tensor | None], sample: int) -> None:
        if not self.measured:  # a frozen trunk
            return
        for task, gradient in gradients.items():
            if gradient is not None:
                self._put(sample * self.tasks + self.row_of[task], self._differentiate(output, gradient))

    def _differentiate(self, output: Tensor, gradient: Tensor) -> Sequence[Tensor | None]:
        """Return the gradient by each measured parameter, None for one that the output does not reach."""
        return torch.autograd.grad(output, self.measured, gradient, retain_graph=True, allow_unused=True)

    def _put(self, row: int, gradients: Sequence[Tensor | None]) -> None:
        self.reached = [
            before or gradient is not None for before, gradient in zip(self.reached, gradients, strict=True)
        ]
        self.rows.put(row, gradients, add=row in self.written)
        self.written.add(row)

    def matrix(self) -> Tensor:
        """See `Jacobians.matrix`."""
        present = len(self.row_of)
        for row in {s * self.tasks + r for s in range(self.samples) for r in range(present)} - self.written:
            self.rows.matrix[row].zero_()
        return self.rows.matrix.view(self.samples, self.tasks, -1)[:, :present]

    def combine(self, matrix: Tensor, weights: Tensor) -> Tensor:
        """See `Jacobians.combine`."""
        return torch.mv(matrix.T, weights.to(matrix.dtype), out=self.update.matrix[0])

    def descend(self, weights: Mapping[int, Tensor], update: Tensor) -> None:
        """See `Jacobians.descend`. The gradients are views of a buffer, which a later step overwrites."""
        if update.data_ptr() != self.update.matrix.data_ptr():
            self.update.matrix[0].copy_(update)
        for parameter, view, reached in zip(self.parameters.shared, self.update.rows[0], self.reached, strict=True):
            if reached:
                gradient = view if view.dtype == parameter.dtype else view.to(parameter.dtype)
                # an existing gradient is that of the regularizers, or of earlier steps that accumulate
                parameter.grad = gradient if parameter.grad is None else gradient.add_(parameter.grad)


class LastLayerJacobians(ParameterJacobians):
    """Jacobian by the parameters of the last shared layer; the shared part has one weighted backward pass.

    Args:
        parameters: Parameters in the shared part of the graphs.
        layer: Parameters of the last shared layer.
        tasks: Number of tasks of the weighting, T.
        device: Device of the parameters.
    """

    route = "last-layer backward"

    def __init__(self, parameters: Parameters, layer: Sequence[nn.Parameter], tasks: int, device: torch.device) -> None:
        self.layer = layer
        super().__init__(parameters, tasks, device)

    def _measured(self) -> Sequence[nn.Parameter]:
        return self.layer

    def start(self, present: list[int]) -> None:
        """See `Jacobians.start`."""
        super().start(present)
        self.graphs: list[TaskGraphs] = []

    def add(self, graph: TaskGraphs, sample: int) -> None:
        """See `Jacobians.add`."""
        for output, gradients in graph.outputs():
            self._add_rows(output, gradients, sample)
        self.graphs.append(graph)

    def descend(self, weights: Mapping[int, Tensor], update: Tensor) -> None:
        """See `Jacobians.descend`."""
        weighted_backward(self.graphs, weights, self.parameters)


class FlatGradients:
    """Preallocated matrix of gradients, of which every row holds a gradient of the same parameters.

    Each row is also available as one view per parameter, of the parameter's shape and strides, so that a gradient is
    copied in one call for all parameters, and a view can be a parameter's `.grad` (fused optimizers require its
    strides).

    Args:
        parameters: Parameters with P entries in total.
        rows: Number of rows.
        device: Device of the matrix.
        storage: Tensor of rows × P entries or more to use as memory, whose content is kept; None to allocate zeros.

    Attributes:
        matrix: Gradients, shape [rows, P], float32, or float64 if a parameter is.
        rows: For each row the views, one per parameter.
    """

    def __init__(
        self, parameters: Sequence[Tensor], rows: int, device: torch.device, storage: Tensor | None = None
    ) -> None:
        sizes = [parameter.numel() for parameter in parameters]
        self.size = sum(sizes)
        if storage is None:
            self.matrix = torch.zeros(rows, self.size, dtype=row_type(parameters), device=device)
        else:
            self.matrix = storage[: rows * self.size].view(rows, self.size)
        starts = [sum(sizes[:i]) for i in range(len(sizes))]
        self.rows = [
            [
                self.matrix.as_strided(parameter.shape, parameter.stride(), row * self.size + start)
                for parameter, start in zip(parameters, starts, strict=True)
            ]
            for row in range(rows)
        ]

    def put(self, row: int, gradients: Sequence[Tensor | None], add: bool = False) -> None:
        """Copy gradients, one per parameter, into a row, or add them to it; None counts as zero."""
        pairs = [(view, gradient) for view, gradient in zip(self.rows[row], gradients, strict=True)
                 if gradient is not None]  # fmt: skip
        if len(pairs) < len(gradients) and not add:
            self.matrix[row].zero_()
        if pairs:
            views, values = [view for view, _ in pairs], [gradient for _, gradient in pairs]
            if add:
                torch._foreach_add_(views, values)
            else:
                torch._foreach_copy_(views, values)


def row_type(tensors: Sequence[Tensor]) -> torch.dtype:
    """Return the type of a gradient's row: float32, or float64 if one of the tensors is."""
    return torch.float64 if any(tensor.dtype == torch.float64 for tensor in tensors) else torch.float32
