"""Jacobians by the features that the tasks have in common."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from mtlcli.training.backward.base import TaskGraphs, from_memory_order, in_memory_order, shared_backward
from mtlcli.training.backward.jacobians import Jacobians, row_type


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
                        entries = in_memory_order(gradient, output)
                        block[self.row_of[task]].view(entries.shape).copy_(entries)
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
        cotangents = [from_memory_order(block.to(o.dtype), o) for block, o in zip(blocks, outputs, strict=True)]
        shared_backward(self.graphs, outputs, cotangents, self.parameters)
