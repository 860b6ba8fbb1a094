"""Loss-level weightings: one scalar of all the losses, one backward."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.amp.grad_scaler import GradScaler

from mtlcli.data.loader import Batch
from mtlcli.specs import TrunkPass
from mtlcli.training.backward.base import Backward, StepResult
from mtlcli.training.run import Run
from mtlcli.weighting.base import LossWeighting


class LossBackward(Backward):
    """All tasks' losses go through one graph, and their objective goes backward once."""

    route = "joint backward"

    def __init__(self, run: Run, scaler: GradScaler) -> None:
        assert isinstance(run.weighting, LossWeighting)
        self.run, self.scaler, self.weighting = run, scaler, run.weighting
        self.nothing, self.none = torch.zeros((), device=run.device), torch.zeros(0, device=run.device)
        if run.experiment.training.compile:
            run.model.compile()

    def __call__(self, batches: Sequence[Batch], totals: list[int], shares: list[float]) -> StepResult:
        """See `Backward`."""
        if self.weighting.looks_back:
            self._random_state = _random_state(self.run.device)
        present = [task for task, total in enumerate(totals) if total]
        if len(batches) == 1:
            found, penalties = self.losses(batches[0])
            losses = torch.stack(list(found.values()))
            return self._made(losses, penalties, self._descend(losses, penalties, present))
        parts, rest = [], []
        for batch, share in zip(batches, shares, strict=True):
            part, penalties = self._part(batch, share, totals, present)
            if self.weighting.linear:
                weights = self._descend(part, penalties, present, share)
                part, penalties = part.detach(), penalties.detach()
            parts.append(part)
            rest.append(penalties)
        losses, penalties = torch.stack(parts).sum(0), torch.stack(rest).sum(0)
        if not self.weighting.linear:  # its gradient weights depend on the losses of the whole step
            weights = self._descend(losses, penalties, present)
        return self._made(losses, penalties, weights)

    def losses(self, batch: Batch) -> tuple[dict[int, Tensor], Tensor]:
        """(index of each of the weighting's tasks with labels in the batch → its mean loss; the other terms [r])."""
        present = {index: task for index, task in enumerate(self.run.kinds) if batch.counts.get(task, 0)}
        regularization = self.run.regularization
        passes: list[TrunkPass] | None = [] if regularization.sees_examples else None
        found: dict[int, Tensor] = {}
        with self.run.autocast():
            predictions = self.run.model(batch.inputs, list(present.values()), passes)
            for index, task in present.items():
                found[index] = self.run.kinds[task].loss(predictions[task], batch.targets[task])
        if not regularization.terms:
            return found, self.none
        terms = regularization.losses(passes or [], self.run.autocast())
        tasks = regularization.tasks
        found |= {len(self.run.kinds) + index: term for index, term in enumerate(terms[:tasks])}
        return found, torch.stack(terms[tasks:]) if terms[tasks:] else self.none

    def _part(self, batch: Batch, share: float, totals: list[int], present: list[int]) -> tuple[Tensor, Tensor]:
        """A micro-batch's part of each present task's mean loss over the step, [t], and of the other terms, [r].

        A task's mean over the step is made of its batches' means, each by its share of the labelled examples.
        """
        counts = [batch.counts.get(task, 0) for task in self.run.kinds]
        portions = [count / (totals[task] or 1) for task, count in enumerate(counts)]
        portions += [share] * self.run.regularization.tasks
        found, penalties = self.losses(batch)
        parts = [found[task] * portions[task] if task in found else self.nothing for task in present]
        return torch.stack(parts), penalties * share

    def _descend(self, losses: Tensor, penalties: Tensor, present: list[int], share: float = 1.0) -> Tensor:
        objective, weights = self.weighting.objective(losses, present, share)
        if len(penalties):
            objective = objective + penalties.sum()
        if objective.requires_grad:
            self.scaler.scale(objective).backward()  # type: ignore[no-untyped-call]
        return weights

    def _made(self, losses: Tensor, penalties: Tensor, weights: Tensor) -> StepResult:
        if not len(penalties):
            return StepResult(losses.detach(), weights)
        return StepResult(torch.cat([losses, penalties]).detach(), torch.cat([weights, torch.ones_like(penalties)]))

    @torch.no_grad()
    def after_step(self, made: StepResult, batches: Sequence[Batch], totals: list[int], shares: list[float]) -> None:
        """Show a weighting that `looks_back` what the step did to its losses, all else being equal.

        The second forward pass drops what the first one dropped, and leaves batch norm's statistics as they were.
        """
        if not self.weighting.looks_back:
            return
        present = [task for task, total in enumerate(totals) if total]
        buffers = list(self.run.model.buffers())
        kept, random_state = [buffer.clone() for buffer in buffers], _random_state(self.run.device)
        _set_random_state(self.run.device, self._random_state)
        parts = [self._part(batch, share, totals, present)[0] for batch, share in zip(batches, shares, strict=True)]
        _set_random_state(self.run.device, random_state)
        torch._foreach_copy_(buffers, kept)
        self.weighting.after_step(made.losses[: len(present)], torch.stack(parts).sum(0), present)


def _random_state(device: torch.device) -> list[Tensor]:
    """Of the generators that dropout draws from, kept on the host by torch: reading it doesn't wait for the device."""
    states = [torch.get_rng_state()]
    return [*states, torch.cuda.get_rng_state(device)] if device.type == "cuda" else states


def _set_random_state(device: torch.device, states: list[Tensor]) -> None:
    torch.set_rng_state(states[0])
    if device.type == "cuda":
        torch.cuda.set_rng_state(states[1], device)
