"""What the Jacobian of the tasks is taken of, and how an update made of its rows reaches the shared parameters."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from mtlcli.training.backward.split_forward import (
    Parameters,
    SplitForward,
    own_backward,
    terms_backward,
    trunk_backward,
    walk,
)
from mtlcli.training.run import Run


class Jacobians(ABC):
    """Base: the tasks' gradients of one step, from its cuts (after `heads_backward`).

    apart: whether the datasets of a batch are to go through the trunk each on its own.
    route: what it is called in `summary.json`.
    """

    apart = False
    route: str

    def __init__(self, run: Run) -> None:
        self.parameters = Parameters.of(run)
        self.shared = self.parameters.shared

    @abstractmethod
    def start(self, present: list[int]) -> None:
        """Begin a step of these tasks (indices)."""

    @abstractmethod
    def add(self, cut: SplitForward, sample: int) -> None:
        """Take a batch in, as part of the sample of that number."""

    @abstractmethod
    def matrix(self) -> Tensor:
        """[samples, t, P], a row for each present task. May be changed in place."""

    def combine(self, matrix: Tensor, weights: Tensor) -> Tensor:
        """The update Jᵀw, [P]. matrix: [t, P]; weights: [t]."""
        return matrix.T @ weights.to(matrix.dtype)

    @abstractmethod
    def descend(self, weights: Mapping[int, Tensor], update: Tensor) -> None:
        """Fill the shared parameters' `.grad` with the update. weights: of each task; update: [P], made of the rows."""


class ParameterJacobians(Jacobians):
    """The Jacobian of all shared parameters, by a backward pass through the trunk for each task.

    Tasks on different datasets go through graphs of their own, so that no row is computed over another task's examples;
    not so where batch norm couples the examples of all datasets, which would be another function.
    The passes are repeated, not batched (vmap): batched ones were no faster on a CPU, but for the smallest networks
    (`benchmarks/gradients.py --batched`), and not every trunk allows them.
    """

    def __init__(self, run: Run, samples: int = 1) -> None:
        super().__init__(run)
        self.tasks, self.samples = len(run.weighting.tasks), samples
        self.measured = self._measured(run)
        self.rows = FlatGradients(self.measured, samples * self.tasks, run.device)
        datasets = len({alias for alias, _ in run.sources.values()})
        self.apart = datasets > 1 and not run.model.couples_examples()
        apart = "separate" if datasets == len(run.kinds) else "separate repeated"
        self.route = f"{apart if self.apart else 'repeated'} backward"
        self.update = FlatGradients(self.measured, 1, run.device)

    def _measured(self, run: Run) -> list[nn.Parameter]:
        return self.shared

    def start(self, present: list[int]) -> None:
        self.row_of = {task: row for row, task in enumerate(present)}
        self.written: set[int] = set()
        self.reached = [False] * len(self.measured)

    def add(self, cut: SplitForward, sample: int) -> None:
        terms_backward(cut)
        own_backward(cut, self.parameters.own)
        self._add_rows(cut, sample)

    def _add_rows(self, cut: SplitForward, sample: int) -> None:
        if not self.measured:  # a frozen trunk
            return
        for output, positions in cut.groups():
            for i in positions:
                gradient = cut.leaves[i].grad
                if gradient is None:
                    continue
                found = torch.autograd.grad(output, self.measured, gradient, retain_graph=True, allow_unused=True)
                self.reached = [before or one is not None for before, one in zip(self.reached, found, strict=True)]
                row = sample * self.tasks + self.row_of[cut.tasks[i]]
                self.rows.put(row, found, add=row in self.written)
                self.written.add(row)

    def matrix(self) -> Tensor:
        present = len(self.row_of)
        for row in {s * self.tasks + r for s in range(self.samples) for r in range(present)} - self.written:
            self.rows.matrix[row].zero_()
        return self.rows.matrix.view(self.samples, self.tasks, -1)[:, :present]

    def combine(self, matrix: Tensor, weights: Tensor) -> Tensor:
        return torch.mv(matrix.T, weights.to(matrix.dtype), out=self.update.matrix[0])

    def descend(self, weights: Mapping[int, Tensor], update: Tensor) -> None:
        if update.data_ptr() != self.update.matrix.data_ptr():
            self.update.matrix[0].copy_(update)
        for parameter, gradient, reached in zip(self.shared, self.update.rows[0], self.reached, strict=True):
            if reached:
                # what is there is the regularizers'
                parameter.grad = gradient if parameter.grad is None else gradient.add_(parameter.grad)


class LastLayerJacobians(ParameterJacobians):
    """The Jacobian of the last layer before the heads; the trunk gets one backward with the weights found there."""

    def __init__(self, run: Run) -> None:
        super().__init__(run)
        self.apart, self.route = False, "last-layer backward"

    def _measured(self, run: Run) -> list[nn.Parameter]:
        return run.model.last_shared_layer()

    def start(self, present: list[int]) -> None:
        super().start(present)
        self.cuts: list[SplitForward] = []

    def add(self, cut: SplitForward, sample: int) -> None:
        self._add_rows(cut, sample)
        self.cuts.append(cut)

    def descend(self, weights: Mapping[int, Tensor], update: Tensor) -> None:
        trunk_backward(self.cuts, weights, self.parameters)


class FeatureJacobians(Jacobians):
    """The Jacobian of the representations that the trunk hands to the heads; the trunk gets one backward.

    That is MGDA-UB (Sener and Koltun 2018, section 3.3): the norm of a combination of these gradients bounds that of
    the parameters' from above, up to a constant. It is an approximation, but for what the methods promise of the
    gradients of the representations themselves. Tasks on different datasets share no representation: their gradients
    there are orthogonal, and no conflict between them is seen.
    """

    route = "features backward"

    def start(self, present: list[int]) -> None:
        self.row_of = {task: row for row, task in enumerate(present)}
        self.cuts: list[SplitForward] = []

    def add(self, cut: SplitForward, sample: int) -> None:
        self.cuts.append(cut)

    def matrix(self) -> Tensor:
        blocks = []
        for cut in self.cuts:
            for output, positions in cut.groups():
                block = output.new_zeros(len(self.row_of), output.numel(), dtype=torch.float32)
                for i in positions:
                    if (gradient := cut.leaves[i].grad) is not None:
                        block[self.row_of[cut.tasks[i]]].copy_(gradient.flatten())
                blocks.append(block)
        if not blocks:  # the whole trunk is frozen
            return self.cuts[0].leaves[0].new_zeros(1, len(self.row_of), 0, dtype=torch.float32)
        return (blocks[0] if len(blocks) == 1 else torch.cat(blocks, 1)).unsqueeze(0)

    def descend(self, weights: Mapping[int, Tensor], update: Tensor) -> None:
        outputs = [output for cut in self.cuts for output, _ in cut.groups()]
        parts = torch.split(update, [output.numel() for output in outputs])
        cotangents = [part.view_as(o).to(o.dtype) for part, o in zip(parts, outputs, strict=True)]
        walk(self.cuts, outputs, cotangents, self.parameters)


class FlatGradients:
    """A matrix [rows, P] made once: each row holds a gradient of all P numbers of some parameters.

    Each row is also there as one view per parameter, of the parameter's own shape and strides: a gradient is copied in
    for all parameters at once, and a view can be a parameter's `.grad` (fused optimizers want its strides).
    """

    def __init__(self, parameters: Sequence[Tensor], rows: int, device: torch.device) -> None:
        sizes = [parameter.numel() for parameter in parameters]
        self.size = sum(sizes)
        self.matrix = torch.zeros(rows, self.size, device=device)
        starts = [sum(sizes[:i]) for i in range(len(sizes))]
        self.rows = [
            [
                self.matrix.as_strided(parameter.shape, parameter.stride(), row * self.size + start)
                for parameter, start in zip(parameters, starts, strict=True)
            ]
            for row in range(rows)
        ]

    def put(self, row: int, gradients: Sequence[Tensor | None], add: bool = False) -> None:
        """Copy one gradient per parameter into a row, or add it; None stands for zero."""
        known = [(view, found) for view, found in zip(self.rows[row], gradients, strict=True) if found is not None]
        if len(known) < len(gradients) and not add:
            self.matrix[row].zero_()
        if known:
            views, there = [view for view, _ in known], [found for _, found in known]
            if add:
                torch._foreach_add_(views, there)
            else:
                torch._foreach_copy_(views, there)
