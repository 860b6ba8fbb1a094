"""Gradient-level weightings: every task's own gradient, then one update of what the tasks share."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.amp.grad_scaler import GradScaler

from mtlcli.data.loader import Batch
from mtlcli.errors import ConfigError
from mtlcli.specs import is_labelled
from mtlcli.training.backward.base import Backward, StepResult
from mtlcli.training.backward.jacobians import FeatureJacobians, Jacobians, LastLayerJacobians, ParameterJacobians
from mtlcli.training.backward.split_forward import SplitForward, forward, trunk_backward
from mtlcli.training.run import Run
from mtlcli.weighting.base import GradientWeighting, GramianWeighting, JacobianWeighting
from mtlcli.weighting.solvers.gramian import exact_type, inner_products, units

LOG = logging.getLogger("mtl")
SAMPLES = 3  # of a batch, for a method that wants independent gradients


class GradientBackward(Backward):
    """Cuts the forward pass between trunk and heads, and goes backward in two stages.

    First through all heads at once: every head gets its own gradient, and every task that of its representation. From
    there through the trunk, as `Jacobians` has it, to the tasks' gradients and, combined, to the update. In the steps
    between those that solve (`every`), the trunk gets one backward with the weights there are. Where the method wants
    independent gradients, every batch is divided: two samples of it make Jacobians, and the third goes backward through
    the trunk once, with the weights found.
    """

    def __init__(self, run: Run, scaler: GradScaler) -> None:
        assert isinstance(run.weighting, GradientWeighting)
        self.run, self.scaler, self.weighting = run, scaler, run.weighting
        entry = run.experiment.weighting
        self.every = entry.every or 1
        self.independent = isinstance(run.weighting, GramianWeighting) and run.weighting.independent
        self.samples = SAMPLES if self.independent else 1
        self.jacobians = self._jacobians(entry.gradients or self.weighting.gradients[0])
        between = f" every {self.every} steps, joint backward between"
        third = " of two samples, joint backward of a third" if self.independent else ""
        self.route = self.jacobians.route + third + (between if self.every > 1 else "")
        # A compiled trunk frees what it saved as it goes backward, so one whose graph is walked again and again isn't.
        plain = run.model.representations
        once = run.experiment.training.compile and not self.jacobians.parameters.own
        self.represent_once = torch.compile(plain) if once else plain
        self.represent = self.represent_once if isinstance(self.jacobians, FeatureJacobians) else plain
        self.exact = exact_type(run.device)
        count = len(run.weighting.tasks)
        self.due = [0] * count  # in how many of the steps a task takes part in, it is to be solved for
        self.weights = torch.ones(count, dtype=self.exact, device=run.device)

    def _jacobians(self, gradients: str) -> Jacobians:
        if gradients == "features":
            self._check_features()
            return FeatureJacobians(self.run)
        if gradients == "last_layer":
            return LastLayerJacobians(self.run)
        jacobians = ParameterJacobians(self.run, max(1, self.samples - 1))
        if isinstance(self.weighting, JacobianWeighting):
            self.weighting.allocate(jacobians.rows.size)
            self.weighting.to(self.run.device)
        return jacobians

    def _check_features(self) -> None:
        experiment = self.run.experiment
        if self.run.regularization.tasks:
            message = "a regularizer that counts as a task (as_task) has no gradient of the features; use `parameters`"
            raise ConfigError(experiment.problem("weighting.gradients", message))
        if not self.run.model.sharing.common_features:
            message = f"sharing {experiment.sharing.name!r} hands no two tasks the same features; use `parameters`"
            raise ConfigError(experiment.problem("weighting.gradients", message))
        if len({alias for alias, _ in self.run.sources.values()}) > 1:
            LOG.warning(
                "weighting.gradients: features: tasks on different datasets share no features, so no conflict between "
                "them is seen; `parameters` sees it"
            )

    def __call__(self, batches: Sequence[Batch], totals: list[int], shares: list[float]) -> StepResult:
        """See `Backward`."""
        present = [task for task, total in enumerate(totals) if total]
        solving = any(self.due[task] == 0 for task in present)
        for task in present:
            self.due[task] = (self.every if solving else self.due[task]) - 1
        if solving:
            self.jacobians.start(present)
        weights = dict(enumerate(self.weights.unbind()))
        losses = torch.zeros(len(self.due), device=self.run.device)
        parts = losses.new_zeros(self.samples, len(self.due))  # of each task's labels, that are in each sample
        penalties = losses.new_zeros(len(self.run.regularization.terms) - self.run.regularization.tasks)
        thirds: list[SplitForward] = []
        for batch, share in zip(batches, shares, strict=True):
            for sample, piece, portion in _pieces(batch, self.samples if solving else 1):
                represent, apart = (self.represent, self.jacobians.apart) if solving else (self.represent_once, False)
                cut = forward(self.run, represent, piece, apart)
                factors = self._factors(cut.tasks, batch, piece, totals, share) * portion
                cut.heads_backward(self.scaler.scale(factors))
                if cut.terms:
                    part = share * portion * _fraction(batch, piece)
                    penalties += torch.stack(cut.terms).detach() * part
                    cut.terms = [self.scaler.scale(term * part) for term in cut.terms]
                tasks = self._tensor(cut.tasks)
                losses.index_add_(0, tasks, torch.stack(cut.losses).detach() * factors)
                if solving:
                    parts[sample].index_add_(0, tasks, factors)
                    if self.independent and sample == SAMPLES - 1:
                        thirds.append(cut)
                    else:
                        self.jacobians.add(cut, sample)
                else:
                    trunk_backward([cut], weights, self.jacobians.parameters)
        losses = self.weighting.select(losses, present)
        if not solving:
            return _made(losses, self.weighting.select(self.weights, present), penalties)
        if self.independent:
            used, conflicting = self._solve_for_thirds(
                losses, present, self.weighting.select(parts.T, present).T, thirds
            )
        else:
            used, conflicting = self._solve(losses, present)
        return _made(losses, used, penalties, conflicting)

    def _factors(self, tasks: list[int], batch: Batch, piece: Batch, totals: list[int], share: float) -> Tensor:
        """The part of each task's labels in the step that is in a piece of a batch, [tasks].

        Of a regularizer that counts as a task, the part of the step's examples.
        """
        real = list(self.run.kinds)
        names = [real[task] for task in tasks if task < len(real)]
        terms = len(tasks) - len(names)
        parts = [batch.counts[name] / totals[task] for name, task in zip(names, tasks, strict=False)]
        factors = self._tensor([*parts, *[share * _fraction(batch, piece)] * terms])
        if piece is batch:
            return factors
        there = [is_labelled(piece.targets[name]).sum() / is_labelled(batch.targets[name]).sum() for name in names]
        return factors * torch.stack([*there, *[torch.ones_like(factors[0])] * terms])

    def _solve(self, losses: Tensor, present: list[int]) -> tuple[Tensor, Tensor]:
        """Combine the tasks' gradients into the shared parameters' `.grad`. Returns (weights [t], conflict [2])."""
        (jacobian,), scale = self._jacobian()
        gramian, finite = self._checked(inner_products(jacobian))
        if isinstance(self.weighting, JacobianWeighting):
            known = self.run.device.type == "cpu" and bool(finite)  # reading it is free there, and saves two passes
            if not known:
                jacobian.masked_fill_(~finite, 0.0)
            update, weights = self.weighting.update(jacobian, gramian, losses.to(self.exact), present)
            if not known:
                update = update.masked_fill(~finite, float("inf"))
        else:
            assert isinstance(self.weighting, GramianWeighting)
            weights = self.weighting.weights(gramian, losses.to(self.exact), present)
            update = self.jacobians.combine(jacobian, weights)
        self._remember(weights, finite, present)
        self.jacobians.descend(_of_tasks(present, weights), update if scale is None else update.mul_(scale))
        return weights, conflict(gramian)

    def _solve_for_thirds(
        self, losses: Tensor, present: list[int], parts: Tensor, thirds: list[SplitForward]
    ) -> tuple[Tensor, Tensor]:
        """The same with independent gradients: the last sample's cuts, `thirds`, go backward with the weights found.

        parts: [3, t], the part of each task's labels that is in each sample.
        """
        assert isinstance(self.weighting, GramianWeighting)
        samples, _ = self._jacobian()
        rows, shape = samples.flatten(0, 1), samples.shape[:2]
        # Each sample's gradient is of the mean over its own labels.
        means = torch.where(parts > 0, 1.0 / parts, 0.0).to(self.exact)
        products = inner_products(rows).view(*shape, *shape) * means[:2, :, None, None] * means[:2]
        products, finite = self._checked(products)
        weights = self.weighting.weights(products[0, :, 1], losses.to(self.exact), present)
        self._remember(weights, finite, present)
        means = means[2].masked_fill(~finite, float("inf"))
        trunk_backward(thirds, _of_tasks(present, weights * means), self.jacobians.parameters)
        return weights, conflict(products.mean((0, 2)))  # of the two samples' mean gradients

    def _jacobian(self) -> tuple[Tensor, Tensor | None]:
        """J [samples, t, P], unscaled, and what losses are scaled by, 0-d (None where they aren't)."""
        jacobian = self.jacobians.matrix()
        if not self.scaler.is_enabled():
            return jacobian, None
        scale = self.scaler.scale(torch.ones((), device=self.run.device))
        return jacobian.div_(scale), scale

    @staticmethod
    def _checked(products: Tensor) -> tuple[Tensor, Tensor]:
        """The products, zeros where one isn't finite, and whether all are, 0-d.

        What isn't finite is to reach the parameters, so that the scaler or the log notices; a method is shown zeros.
        """
        finite = products.isfinite().all()
        return products.masked_fill(~finite, 0.0), finite

    def _remember(self, weights: Tensor, finite: Tensor, present: list[int]) -> None:
        """Keep the weights for the steps until the next solution, where they are of finite gradients."""
        weights = torch.where(finite, weights, self.weighting.select(self.weights, present))
        if len(present) == len(self.weights):
            self.weights.copy_(weights)
        else:
            self.weights.index_copy_(0, self._tensor(present), weights)

    def _tensor(self, values: Sequence[int] | Sequence[float]) -> Tensor:
        return torch.tensor(values).to(self.run.device, non_blocking=True)

    def state_dict(self) -> dict[str, Any]:
        return {"due": self.due, "weights": self.weights}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.due = list(state["due"])
        self.weights.copy_(state["weights"])


def _of_tasks(present: list[int], weights: Tensor) -> dict[int, Tensor]:
    return dict(zip(present, weights.unbind(), strict=True))


def _made(losses: Tensor, weights: Tensor, penalties: Tensor, conflicting: Tensor | None = None) -> StepResult:
    if not len(penalties):
        return StepResult(losses, weights, conflicting)
    return StepResult(torch.cat([losses, penalties]), torch.cat([weights, torch.ones_like(penalties)]), conflicting)


def _fraction(batch: Batch, piece: Batch) -> float:
    """The part of a batch's examples that are in a piece of it."""
    return sum(map(len, piece.inputs.values())) / sum(map(len, batch.inputs.values()))


def _pieces(batch: Batch, samples: int) -> Iterator[tuple[int, Batch, float]]:
    """The batch in `samples` parts of near equal size: each part's number, the part, and what its losses count for.

    A batch too small for parts of two examples, which batch norm needs, is every part.
    """
    if samples == 1 or min(len(x) for x in batch.inputs.values()) < 2 * samples:
        for sample in range(samples):
            yield sample, batch, 1 / samples
        return
    for sample in range(samples):

        def part(x: Tensor, sample: int = sample) -> Tensor:
            return x[len(x) * sample // samples : len(x) * (sample + 1) // samples]

        inputs = {alias: part(x) for alias, x in batch.inputs.items()}
        targets = {task: part(y) for task, y in batch.targets.items()}
        yield sample, Batch(inputs, targets, batch.counts), 1.0


def conflict(gramian: Tensor) -> Tensor:
    """[2]: the mean cosine of the pairs of tasks, and the share of the pairs whose cosine is negative.

    gramian: [t, t]. A task with a zero gradient is in no pair; NaN where there is no pair.
    """
    cosines, lengths, _ = units(torch, gramian)
    there = (lengths > 0).to(gramian.dtype)
    pairs = torch.outer(there, there).triu_(diagonal=1)
    cosines = cosines * pairs
    return torch.stack([cosines.sum(), (cosines < 0).sum().to(cosines)]) / pairs.sum()
