"""Loss-level weightings: one scalar of all the losses, one backward."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.amp.grad_scaler import GradScaler

from mtlcli.data.batch import Batch
from mtlcli.training.backward import Backward, Made
from mtlcli.training.run import Run
from mtlcli.weighting.weighting import LossWeighting


class JointBackward(Backward):
    """All tasks' losses go through one graph, and their objective goes backward once."""

    route = "joint backward"

    def __init__(self, run: Run, scaler: GradScaler) -> None:
        assert isinstance(run.weighting, LossWeighting)
        self.run, self.scaler, self.weighting = run, scaler, run.weighting
        self.nothing = torch.zeros((), device=run.device)
        if run.experiment.training.compile:
            run.model.compile()

    def __call__(self, batches: Sequence[Batch], totals: list[int], shares: list[float]) -> Made:
        """See `Backward`."""
        if self.weighting.looks_back:
            self._random_state = _random_state(self.run.device)
        present = [task for task, total in enumerate(totals) if total]
        if len(batches) == 1:
            losses = torch.stack(list(self.losses(batches[0]).values()))
            return Made(losses.detach(), self._descend(losses, present))
        # a task's mean over the step is made of its batches' means, each by its share of the labelled examples
        parts = []
        for batch, share in zip(batches, shares, strict=True):
            part = self._part(batch, totals, present)
            if self.weighting.linear:
                weights = self._descend(part, present, share)
                part = part.detach()
            parts.append(part)
        losses = torch.stack(parts).sum(0)
        if not self.weighting.linear:  # its gradient weights depend on the losses of the whole step
            weights = self._descend(losses, present)
        return Made(losses.detach(), weights)

    def losses(self, batch: Batch) -> dict[int, Tensor]:
        """Index of each task with labels in the batch → its mean loss, 0-d."""
        present = {index: task for index, task in enumerate(self.run.kinds) if batch.counts.get(task, 0)}
        if not present:
            return {}
        with self.run.autocast():
            predictions = self.run.model(batch.inputs, list(present.values()))
            return {
                index: self.run.kinds[task].loss(predictions[task], batch.targets[task])
                for index, task in present.items()
            }

    def _part(self, batch: Batch, totals: list[int], present: list[int]) -> Tensor:
        """A micro-batch's part of each present task's mean loss over the step, [t]."""
        counts = [batch.counts.get(task, 0) for task in self.run.kinds]
        found = self.losses(batch)
        return torch.stack([
            found[task] * (counts[task] / totals[task]) if task in found else self.nothing for task in present
        ])  # fmt: skip

    def _descend(self, losses: Tensor, present: list[int], share: float = 1.0) -> Tensor:
        objective, weights = self.weighting.objective(losses, present, share)
        if objective.requires_grad:
            self.scaler.scale(objective).backward()  # type: ignore[no-untyped-call]
        return weights

    @torch.no_grad()
    def after_step(self, made: Made, batches: Sequence[Batch], totals: list[int]) -> None:
        """Show a weighting that `looks_back` what the step did to its losses, all else being equal.

        The second forward pass drops what the first one dropped, and leaves batch norm's statistics as they were.
        """
        if not self.weighting.looks_back:
            return
        present = [task for task, total in enumerate(totals) if total]
        buffers = list(self.run.model.buffers())
        kept, random_state = [buffer.clone() for buffer in buffers], _random_state(self.run.device)
        _set_random_state(self.run.device, self._random_state)
        after = torch.stack([self._part(batch, totals, present) for batch in batches]).sum(0)
        _set_random_state(self.run.device, random_state)
        torch._foreach_copy_(buffers, kept)
        self.weighting.after_step(made.losses, after, present)


def _random_state(device: torch.device) -> list[Tensor]:
    """Of the generators that dropout draws from, kept on the host by torch: reading it doesn't wait for the device."""
    states = [torch.get_rng_state()]
    return [*states, torch.cuda.get_rng_state(device)] if device.type == "cuda" else states


def _set_random_state(device: torch.device, states: list[Tensor]) -> None:
    torch.set_rng_state(states[0])
    if device.type == "cuda":
        torch.cuda.set_rng_state(states[1], device)
