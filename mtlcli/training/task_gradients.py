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
from mtlcli.training.backward import Backward, Made
from mtlcli.training.cut import Cut, forward, trunk_backward
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
        represent = run.model.representations
        self.represent = torch.compile(represent) if run.experiment.training.compile else represent
        self.exact = torch.float32 if run.device.type == "mps" else torch.float64
        self.steps = 0
        self.weights = torch.ones(len(run.kinds), dtype=self.exact, device=run.device)

    def _jacobians(self, gradients: str) -> Jacobians:
        if gradients == "features":
            self._check_common_features()
            return FeatureJacobians(self.run)
        if gradients == "last_layer":
            return LastLayerJacobians(self.run)
        jacobians = ParameterJacobians(self.run, self.samples)
        if isinstance(self.weighting, JacobianWeighting):
            self.weighting.allocate(jacobians.rows.size)
            self.weighting.to(self.run.device)
        return jacobians

    def _check_common_features(self) -> None:
        experiment = self.run.experiment
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
        solving = self.steps % self.every == 0
        self.steps += 1
        if solving:
            self.jacobians.start(present)
        weights = dict(enumerate(self.weights.unbind()))
        losses = torch.zeros(len(present), device=self.run.device)
        for batch in batches:
            for sample, piece, share in _pieces(batch, self.samples if solving else 1):
                cut = forward(self.run, self.represent, piece, apart=solving and self.jacobians.apart)
                if not cut.tasks:
                    continue
                losses += self._heads_backward(cut, piece.counts, totals, present, share)
                if solving:
                    self.jacobians.add(cut, sample, 1 / share)
                else:
                    trunk_backward([cut], weights, self.jacobians.shared)
        if solving:
            return self._solve(losses, present)
        return Made(losses, self.weighting.select(self.weights, present))

    def _heads_backward(
        self, cut: Cut, counts: Mapping[str, int], totals: list[int], present: list[int], share: float
    ) -> Tensor:
        """Fill the heads' gradients; the batch's part of each present task's mean loss over the step, [t]."""
        names = list(self.run.kinds)
        factors = self._tensor([share * counts[names[task]] / totals[task] for task in cut.tasks])
        cut.heads_backward(self.scaler.scale(factors))
        part = torch.stack(cut.losses).detach() * factors
        if cut.tasks == present:
            return part
        return part.new_zeros(len(present)).index_add(0, self._tensor([present.index(t) for t in cut.tasks]), part)

    def _solve(self, losses: Tensor, present: list[int]) -> Made:
        """Combine the tasks' gradients into the shared parameters' `.grad`."""
        jacobian, finite = self.jacobians.matrix(), None
        if self.scaler.is_enabled():
            scale = self.scaler.scale(torch.ones((), device=self.run.device))
            jacobian.div_(scale)
            # an overflow is the scaler's to see, in the update; the method, which may remember what it sees, sees zeros
            finite = jacobian.isfinite().all()
            jacobian.nan_to_num_(0.0, 0.0, 0.0).mul_(finite)
        single = jacobian.mean(0) if self.samples > 1 else jacobian
        gramian = (single @ single.T).to(self.exact)
        if isinstance(self.weighting, JacobianWeighting):
            update, weights = self.weighting.update(jacobian, gramian, losses.to(self.exact), present)
        else:
            assert isinstance(self.weighting, GramianWeighting)
            weights = self.weighting.weights(gramian, losses.to(self.exact), present)
            update = self.jacobians.combine(single, weights)
        if finite is not None:
            update = (update * scale).masked_fill(~finite, float("inf"))
        self._remember(weights, present)
        self.jacobians.descend(dict(zip(present, weights.unbind(), strict=True)), update)
        return Made(losses, weights, conflict(gramian))

    def _remember(self, weights: Tensor, present: list[int]) -> None:
        if len(present) == len(self.weights):
            self.weights.copy_(weights)
        else:
            self.weights.index_copy_(0, self._tensor(present), weights)

    def _tensor(self, values: Sequence[int] | Sequence[float]) -> Tensor:
        return torch.tensor(values).to(self.run.device, non_blocking=True)

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self.steps, "weights": self.weights}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.steps = state["steps"]
        self.weights.copy_(state["weights"])


def _pieces(batch: Batch, samples: int) -> Iterator[tuple[int, Batch, float]]:
    """The batch in `samples` parts of near equal size, each with its number and its share of the examples.

    A batch too small to be divided is every part.
    """
    smallest = min(len(x) for x in batch.inputs.values())
    if samples == 1 or smallest < samples:
        for sample in range(samples):
            yield sample, batch, 1 / samples if samples > 1 else 1.0
        return
    for sample in range(samples):

        def part(x: Tensor, sample: int = sample) -> Tensor:
            return x[len(x) * sample // samples : len(x) * (sample + 1) // samples]

        inputs = {alias: part(x) for alias, x in batch.inputs.items()}
        targets = {task: part(y) for task, y in batch.targets.items()}
        yield sample, Batch(inputs, targets, batch.counts), 1 / samples
