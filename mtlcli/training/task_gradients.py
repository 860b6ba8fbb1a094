"""Gradient-level weightings: every task's own gradient, then one update of what the tasks share."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.amp.grad_scaler import GradScaler

from mtlcli.data.batch import Batch
from mtlcli.errors import ConfigError
from mtlcli.tasks.labels import labelled
from mtlcli.training.backward import Backward, Made
from mtlcli.training.cut import forward, trunk_backward
from mtlcli.training.jacobians import FeatureJacobians, Jacobians, LastLayerJacobians, ParameterJacobians
from mtlcli.training.run import Run
from mtlcli.weighting.conflict import conflict
from mtlcli.weighting.gradients import GradientWeighting, GramianWeighting, JacobianWeighting

LOG = logging.getLogger("mtl")


class TaskGradients(Backward):
    """Cuts the forward pass between trunk and heads, and goes backward in two stages.

    First through all heads at once: every head gets its own gradient, and every task that of its representation. From
    there through the trunk, as `Jacobians` has it, to the tasks' gradients and, combined, to the update. In the steps
    between those that solve (`every`), the trunk gets one backward with the weights there are.
    """

    def __init__(self, run: Run, scaler: GradScaler) -> None:
        assert isinstance(run.weighting, GradientWeighting)
        self.run, self.scaler, self.weighting = run, scaler, run.weighting
        entry = run.experiment.weighting
        self.every = entry.every or 1
        self.samples = run.weighting.samples if isinstance(run.weighting, JacobianWeighting) else 1
        self.jacobians = self._jacobians(entry.gradients or self.weighting.gradients[0])
        between = f" every {self.every} steps, joint backward between"
        self.route = self.jacobians.route + (between if self.every > 1 else "")
        # A compiled trunk frees what it saved as it goes backward, so one whose graph is walked again and again isn't.
        plain = run.model.representations
        once = run.experiment.training.compile and not self.jacobians.parameters.own
        self.represent_once = torch.compile(plain) if once else plain
        self.represent = self.represent_once if isinstance(self.jacobians, FeatureJacobians) else plain
        self.exact = torch.float32 if run.device.type == "mps" else torch.float64
        count = len(run.weighting.tasks)
        self.due = [0] * count  # in how many of the steps a task takes part in, it is to be solved for
        self.weights = torch.ones(count, dtype=self.exact, device=run.device)

    def _jacobians(self, gradients: str) -> Jacobians:
        if gradients == "features":
            self._check_features()
            return FeatureJacobians(self.run)
        if gradients == "last_layer":
            return LastLayerJacobians(self.run)
        jacobians = ParameterJacobians(self.run, self.samples)
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

    def __call__(self, batches: Sequence[Batch], totals: list[int], shares: list[float]) -> Made:
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
                    if self.samples > 1:
                        parts[sample].index_add_(0, tasks, factors)
                    self.jacobians.add(cut, sample)
                else:
                    trunk_backward([cut], weights, self.jacobians.parameters)
        losses = self.weighting.select(losses, present)
        if not solving:
            return _made(losses, self.weighting.select(self.weights, present), penalties)
        jacobian = self.jacobians.matrix()
        if self.samples > 1:  # each sample's gradient is of the mean over its own labels
            parts = parts.index_select(1, self._tensor(present)).unsqueeze(-1)
            jacobian.div_(parts.clamp(min=torch.finfo(parts.dtype).tiny))
        used, conflicting = self._solve(jacobian, losses, present)
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
        there = [labelled(piece.targets[name]).sum() / labelled(batch.targets[name]).sum() for name in names]
        return factors * torch.stack([*there, *[torch.ones_like(factors[0])] * terms])

    def _solve(self, jacobian: Tensor, losses: Tensor, present: list[int]) -> tuple[Tensor, Tensor]:
        """Combine the tasks' gradients into the shared parameters' `.grad`. Returns (weights [t], conflict [2])."""
        if self.scaler.is_enabled():
            scale = self.scaler.scale(torch.ones((), device=self.run.device))
            jacobian.div_(scale)
        single = jacobian.mean(0) if self.samples > 1 else jacobian
        gramian, exact_losses = (single @ single.T).to(self.exact), losses.to(self.exact)
        # What isn't finite reaches the parameters, so that the scaler or the log notices; a method is shown zeros.
        finite = gramian.isfinite().all()
        gramian = gramian.masked_fill(~finite, 0.0)
        if isinstance(self.weighting, JacobianWeighting):
            known = self.run.device.type == "cpu" and bool(finite)  # reading it is free there, and saves two passes
            if not known:
                jacobian.masked_fill_(~finite, 0.0)
            update, weights = self.weighting.update(jacobian, gramian, exact_losses, present)
            if not known:
                update = update.masked_fill(~finite, float("inf"))
        else:
            assert isinstance(self.weighting, GramianWeighting)
            weights = self.weighting.weights(gramian, exact_losses, present)
            update = self.jacobians.combine(single, weights)
        if self.scaler.is_enabled():
            update *= scale
        old = self.weighting.select(self.weights, present)
        self._remember(torch.where(finite, weights, old), present)
        self.jacobians.descend(dict(zip(present, weights.unbind(), strict=True)), update)
        return weights, conflict(gramian)

    def _remember(self, weights: Tensor, present: list[int]) -> None:
        """Keep the weights for the steps until the next solution."""
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


def _made(losses: Tensor, weights: Tensor, penalties: Tensor, conflicting: Tensor | None = None) -> Made:
    if not len(penalties):
        return Made(losses, weights, conflicting)
    return Made(torch.cat([losses, penalties]), torch.cat([weights, torch.ones_like(penalties)]), conflicting)


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
