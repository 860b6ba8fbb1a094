"""Gradients of independent samples of the examples, for methods that declare `independent` (SDMGrad)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import torch
from torch import Tensor

from mtlcli.data.label_counts import count_labels
from mtlcli.data.loader import Batch
from mtlcli.specs import has_label, is_labelled, labelled_pixels
from mtlcli.training.backward.base import TaskGraphs, weighted_backward
from mtlcli.training.backward.engines import GradientEngine, check_finite
from mtlcli.training.backward.gradient_backward import GradientBackward, Piece
from mtlcli.weighting.base import GramianWeighting
from mtlcli.weighting.solvers.gramian import compute_gramian


class IndependentSamplesEngine(GradientEngine):
    """Engine for three independent samples of a step's examples.

    The products of the first two samples' gradients give the weights; the third sample has one backward pass, with
    these weights.
    """

    samples: ClassVar[int] = 3

    def start(self, present: list[int], scale: Tensor | None = None) -> bool:
        """See `GradientEngine.start`."""
        self.last_graphs: list[TaskGraphs] = []
        # fraction of each task's labels in each sample
        self.portions = torch.zeros(self.samples, len(self.due), device=self.device)
        return super().start(present, scale)

    def _collect(self, graph: TaskGraphs, tasks: Tensor, factors: Tensor, sample: int) -> None:
        self.portions[sample].index_add_(0, tasks, factors)
        if sample == self.samples - 1:
            self.last_graphs.append(graph)
        else:
            super()._collect(graph, tasks, factors, sample)

    def _solve(self, losses: Tensor) -> tuple[Tensor, Tensor]:
        assert isinstance(self.weighting, GramianWeighting)
        rows = self._jacobian()
        shape = rows.shape[:2]
        portions = self.weighting.select(self.portions.T, self.present).T
        # Each sample's gradient is that of the mean over its own labels.
        means = torch.where(portions > 0, 1.0 / portions, 0.0).to(self.exact)
        products = compute_gramian(rows.flatten(0, 1)).view(*shape, *shape) * means[:2, :, None, None] * means[:2]
        products, finite = check_finite(products)
        weights = self.weighting.weights(products[0, :, 1], losses.to(self.exact), self.present)
        self._remember(weights, finite)
        means = means[2].masked_fill(~finite, float("inf"))
        weighted_backward(self.last_graphs, self._by_task(weights * means), self.jacobians.parameters)
        return weights, products.mean((0, 2))  # of the mean gradients of both samples


class IndependentSamplesBackward(GradientBackward):
    """Divides every batch into three independent samples. See `IndependentSamplesEngine`."""

    engine_class = IndependentSamplesEngine

    def _pieces(self, batch: Batch) -> Iterator[Piece]:
        """Yield three pieces of near equal size.

        A batch that is too small for pieces of two examples, which batch normalization requires, is yielded whole for
        every sample.
        """
        samples = self.engine.samples
        if min(len(x) for x in batch.inputs.values()) < 2 * samples:
            for sample in range(samples):
                yield Piece(batch, sample, portion=1 / samples)
            return
        for sample in range(samples):

            def cut(x: Tensor, sample: int = sample) -> Tensor:
                return x[len(x) * sample // samples : len(x) * (sample + 1) // samples]

            inputs = {alias: cut(x) for alias, x in batch.inputs.items()}
            targets = {task: cut(y) for task, y in batch.targets.items()}
            fraction = sum(map(len, inputs.values())) / sum(map(len, batch.inputs.values()))
            weights = {task: cut(weight) for task, weight in batch.weights.items()}
            yield Piece(Batch(inputs, targets, batch.counts, weights), sample, fraction)

    def _factors(self, tasks: list[int], batch: Batch, piece: Piece, totals: list[float], share: float) -> Tensor:
        factors = super()._factors(tasks, batch, piece, totals, share)
        if piece.batch is batch:
            return factors
        names = self._names(tasks)
        labels = [_amount(piece.batch, name) / _amount(batch, name) for name in names]
        return factors * torch.stack([*labels, *[torch.ones_like(factors[0])] * (len(tasks) - len(names))])


def _amount(batch: Batch, task: str) -> Tensor:
    """Return the number of labels of a task in a batch, or the sum of the weights of its labelled examples, 0-d."""
    if task in batch.weights:
        weights, target = batch.weights[task], batch.targets[task]
        if weights.ndim == 1:
            return (weights.masked_fill(~has_label(target), 0.0) * count_labels(target)).sum()
        return weights.masked_fill(~is_labelled(target), 0.0).sum()
    target = batch.targets[task]
    return (labelled_pixels(target) if target.ndim > 2 else is_labelled(target)).sum()
