"""One optimizer step: losses of the tasks → weighting → gradients → update."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from mtlcli.data.batch import Batch
from mtlcli.training.run import Run
from mtlcli.weighting.weighting import LossWeighting


class Step:
    """Makes optimizer steps. Nothing in it waits for the device (with fp16, torch's loss scaling does, once a step)."""

    def __init__(self, run: Run, optimizer: Optimizer) -> None:
        self.run = run
        self.optimizer = optimizer
        self.weighting: LossWeighting = run.weighting  # type: ignore[assignment]
        self.parameters = [p for group in optimizer.param_groups for p in group["params"]]
        self.nothing = torch.zeros((), device=run.device)
        self.scaler = torch.amp.GradScaler(run.device.type, enabled=run.experiment.training.precision == "fp16")

    def __call__(self, batches: Sequence[Batch]) -> tuple[Tensor, Tensor, list[int]] | None:
        """One step over one batch, or over several whose gradients accumulate as if they were one.

        Returns (losses [t], weights [t], counts [T]) of the tasks that had labels; None, and no step, where none had.
        """
        totals = [sum(batch.counts.get(task, 0) for batch in batches) for task in self.run.kinds]
        examples = [sum(len(x) for x in batch.inputs.values()) for batch in batches]
        if not any(totals):
            return None
        self.optimizer.zero_grad()
        self.weighting.start_step()
        losses, weights = self._backward(batches, totals, [n / sum(examples) for n in examples])
        clip_norm = self.run.experiment.training.clip_norm
        if clip_norm is not None:
            self.scaler.unscale_(self.optimizer)
            torch.nn.utils.clip_grad_norm_(self.parameters, clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return losses, weights, totals

    def _backward(self, batches: Sequence[Batch], totals: list[int], shares: list[float]) -> tuple[Tensor, Tensor]:
        """Fill the gradients; the step's mean losses and the weights, [t] each, of the tasks with labels."""
        present = [task for task, total in enumerate(totals) if total]
        if len(batches) == 1:
            losses = torch.stack(list(self.losses(batches[0]).values()))
            return losses.detach(), self._descend(losses, present)
        # a task's mean over the step is made of its batches' means, each by its share of the labelled examples
        parts = []
        for batch, share in zip(batches, shares, strict=True):
            counts = [batch.counts.get(task, 0) for task in self.run.kinds]
            found = self.losses(batch)
            part = torch.stack([
                found[task] * (counts[task] / totals[task]) if task in found else self.nothing for task in present
            ])  # fmt: skip
            if self.weighting.linear:
                weights = self._descend(part, present, share)
                part = part.detach()
            parts.append(part)
        losses = torch.stack(parts).sum(0)
        if not self.weighting.linear:  # its gradient weights depend on the losses of the whole step
            weights = self._descend(losses, present)
        return losses.detach(), weights

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

    def _descend(self, losses: Tensor, present: list[int], share: float = 1.0) -> Tensor:
        objective, weights = self.weighting.objective(losses, present, share)
        if objective.requires_grad:
            self.scaler.scale(objective).backward()  # type: ignore[no-untyped-call]
        return weights

    def state_dict(self) -> dict[str, Any]:
        return {"optimizer": self.optimizer.state_dict(), "scaler": self.scaler.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
