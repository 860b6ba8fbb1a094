"""Jacobians of the task losses, and the backward passes that compute them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from mtlcli.training.backward.base import (
    Parameters,
    TaskGraphs,
    own_backward,
    shared_backward,
    terms_backward,
    weighted_backward,
)
from mtlcli.training.backward.flat_gradients import FlatGradients, row_type


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
        if self.parameters.own:
            own_backward(graph, self.parameters.own)
        self._add_rows(graph, sample)

    def _add_rows(self, graph: TaskGraphs, sample: int) -> None:
        if not self.measured:  # a frozen trunk
            return
        for output, gradients in graph.outputs():
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
        self._add_rows(graph, sample)
        self.graphs.append(graph)

    def descend(self, weights: Mapping[int, Tensor], update: Tensor) -> None:
        """See `Jacobians.descend`."""
        weighted_backward(self.graphs, weights, self.parameters)


class FeatureJacobians(Jacobians):
    """Jacobian by the outputs of the shared part; the shared part has one backward pass, from the update.

    This is MGDA-UB: the norm of a combination of these gradients bounds the norm of the same combination of the
    parameters' gradients from above, up to a constant. It is an approximation, except for what a method guarantees of
    the gradients of the features themselves. Tasks on different datasets have no features in common: their gradients
    are orthogonal here, and a conflict between them is not detected.

    References:
        Sener and Koltun, "Multi-Task Learning as Multi-Objective Optimization", NeurIPS 2018, section 3.3.
    """

    route = "features backward"
    _bytes = 0

    @property
    def buffer_bytes(self) -> int:
        """See `Jacobians.buffer_bytes`. It is that of the latest step."""
        return self._bytes

    def start(self, present: list[int]) -> None:
        """See `Jacobians.start`."""
        self.row_of = {task: row for row, task in enumerate(present)}
        self.graphs: list[TaskGraphs] = []

    def add(self, graph: TaskGraphs, sample: int) -> None:
        """See `Jacobians.add`."""
        self.graphs.append(graph)

    def matrix(self) -> Tensor:
        """See `Jacobians.matrix`."""
        blocks = []
        for graph in self.graphs:
            for output, gradients in graph.outputs():
                block = output.new_zeros(len(self.row_of), output.numel(), dtype=row_type([output]))
                for task, gradient in gradients.items():
                    if gradient is not None:
                        block[self.row_of[task]].copy_(gradient.flatten())
                blocks.append(block)
        if not blocks:  # the whole trunk is frozen
            return self.graphs[0].losses[0].new_zeros(1, len(self.row_of), 0, dtype=torch.float32)
        matrix = blocks[0] if len(blocks) == 1 else torch.cat(blocks, 1)
        self._bytes = matrix.nbytes + matrix[0].nbytes
        return matrix.unsqueeze(0)

    def descend(self, weights: Mapping[int, Tensor], update: Tensor) -> None:
        """See `Jacobians.descend`."""
        outputs = [output for graph in self.graphs for output, _ in graph.outputs()]
        blocks = torch.split(update, [output.numel() for output in outputs])
        cotangents = [block.view_as(o).to(o.dtype) for block, o in zip(blocks, outputs, strict=True)]
        shared_backward(self.graphs, outputs, cotangents, self.parameters)
