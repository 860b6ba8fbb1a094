"""Backward pass of the loss-level weightings."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.amp.grad_scaler import GradScaler

from mtlcli.data.loader import Batch
from mtlcli.models.sharing.base import SharingRecord
from mtlcli.specs import TrunkPass
from mtlcli.training.backward.base import Backward, StepResult
from mtlcli.training.backward.engines import LossEngine, loss_scale
from mtlcli.training.run import Run
from mtlcli.weighting.base import LossWeighting


class LossBackward(Backward):
    """Computes all losses in one graph, and differentiates their objective once."""

    route = "joint backward"

    def __init__(self, run: Run, scaler: GradScaler) -> None:
        assert isinstance(run.weighting, LossWeighting)
        self.run, self.scaler, self.weighting = run, scaler, run.weighting
        self.looks_back = run.weighting.looks_back
        self.engine = LossEngine(run.weighting)
        self.zero, self.empty = torch.zeros((), device=run.device), torch.zeros(0, device=run.device)
        if run.experiment.training.compile:
            run.model.compile()

    def __call__(self, batches: Sequence[Batch], totals: list[float], shares: list[float]) -> StepResult:
        """See `Backward`."""
        if self.looks_back:
            self._random_state = _random_state(self.run.device)
        present = [task for task, total in enumerate(totals) if total]
        scale = loss_scale(self.scaler, self.run.device)
        if len(batches) == 1:
            by_task, penalties = self.losses(batches[0])
            losses = torch.stack(list(by_task.values()))
            weights = self.engine.backward(losses, present, penalties=penalties, scale=scale)
            return _result(losses, penalties, weights)
        all_losses, all_penalties = [], []
        for batch, share in zip(batches, shares, strict=True):
            losses, penalties = self._micro_batch(batch, share, totals, present)
            if self.weighting.linear:
                weights = self.engine.backward(losses, present, share, penalties, scale)
                losses, penalties = losses.detach(), penalties.detach()
            all_losses.append(losses)
            all_penalties.append(penalties)
        losses, penalties = torch.stack(all_losses).sum(0), torch.stack(all_penalties).sum(0)
        if not self.weighting.linear:  # its gradient weights depend on the losses of the whole step
            weights = self.engine.backward(losses, present, penalties=penalties, scale=scale)
        return _result(losses, penalties, weights)

    def losses(self, batch: Batch) -> tuple[dict[int, Tensor], Tensor]:
        """Compute the losses of a batch with their graph.

        Args:
            batch: Batch on the run's device.

        Returns:
            by_task: Index of each of the weighting's tasks with labels in the batch → its mean loss, 0-d.
            penalties: Regularizers that do not count as tasks, shape [r].
        """
        present = {index: task for index, task in enumerate(self.run.kinds) if batch.counts.get(task, 0)}
        regularization = self.run.regularization
        passes: list[TrunkPass] | None = [] if regularization.sees_examples else None
        by_task: dict[int, Tensor] = {}
        with self.run.autocast():
            predictions = self.run.model(batch.inputs, list(present.values()), SharingRecord(passes))
            for index, task in present.items():
                by_task[index] = self.run.loss(task, predictions[task], batch, normalized=True)
        if not regularization.terms:
            return by_task, self.empty
        terms = regularization.losses(passes or [], self.run.autocast())
        tasks = regularization.tasks
        by_task |= {len(self.run.kinds) + index: term for index, term in enumerate(terms[:tasks])}
        return by_task, torch.stack(terms[tasks:]) if terms[tasks:] else self.empty

    def _micro_batch(
        self, batch: Batch, share: float, totals: list[float], present: list[int]
    ) -> tuple[Tensor, Tensor]:
        """Return a micro-batch's part of each present task's mean loss over the step, [t], and of the penalties, [r].

        A task's mean over the step is the sum of its micro-batches' means, each times its share of the labels.
        """
        counts = [batch.counts.get(task, 0) for task in self.run.kinds]
        portions = [count / (totals[task] or 1) for task, count in enumerate(counts)]
        portions += [share] * self.run.regularization.tasks
        by_task, penalties = self.losses(batch)
        losses = [by_task[task] * portions[task] if task in by_task else self.zero for task in present]
        return torch.stack(losses), penalties * share

    @torch.no_grad()
    def after_step(
        self, result: StepResult, batches: Sequence[Batch], totals: list[float], shares: list[float]
    ) -> None:
        """Compute the losses again for a weighting that `looks_back`.

        The second forward pass repeats the dropout of the first, and leaves the statistics of batch normalization
        unchanged.
        """
        present = [task for task, total in enumerate(totals) if total]
        buffers = list(self.run.model.buffers())
        copies, random_state = [buffer.clone() for buffer in buffers], _random_state(self.run.device)
        _set_random_state(self.run.device, self._random_state)
        losses = [
            self._micro_batch(batch, share, totals, present)[0] for batch, share in zip(batches, shares, strict=True)
        ]
        _set_random_state(self.run.device, random_state)
        if buffers:
            torch._foreach_copy_(buffers, copies)
        self.weighting.after_step(result.losses[: len(present)], torch.stack(losses).sum(0), present)


def _result(losses: Tensor, penalties: Tensor, weights: Tensor) -> StepResult:
    if not len(penalties):
        return StepResult(losses.detach(), weights)
    return StepResult(torch.cat([losses, penalties]).detach(), torch.cat([weights, torch.ones_like(penalties)]))


def _random_state(device: torch.device) -> list[Tensor]:
    """Return the states of the generators that dropout draws from. They are on the host: nothing waits for a GPU."""
    states = [torch.get_rng_state()]
    return [*states, torch.cuda.get_rng_state(device)] if device.type == "cuda" else states


def _set_random_state(device: torch.device, states: list[Tensor]) -> None:
    torch.set_rng_state(states[0])
    if device.type == "cuda":
        torch.cuda.set_rng_state(states[1], device)
