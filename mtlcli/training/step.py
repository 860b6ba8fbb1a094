"""One optimizer step: losses of the tasks → weighting → gradients → update."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from mtlcli.data.batch import Batch
from mtlcli.training.backward import Backward, Made
from mtlcli.training.divergence import check_figures, check_gradient, culprits, largest
from mtlcli.training.joint_backward import JointBackward
from mtlcli.training.run import Run
from mtlcli.training.task_gradients import TaskGradients


class Step:
    """Makes optimizer steps. Nothing in it waits for the device (with fp16, torch's loss scaling does, once a step)."""

    def __init__(self, run: Run, optimizer: Optimizer) -> None:
        self.run = run
        self.optimizer = optimizer
        self.parameters = [p for group in optimizer.param_groups for p in group["params"]]
        self.scaler = torch.amp.GradScaler(run.device.type, enabled=run.experiment.training.precision == "fp16")
        route = JointBackward if run.weighting.level == "loss" else TaskGradients
        self.backward: Backward = route(run, self.scaler)

    def __call__(
        self, batches: Sequence[Batch], progress: float = 0.0, number: int = 1
    ) -> tuple[Made, list[int]] | None:
        """One step over one batch, or over several whose gradients accumulate as if they were one.

        progress: the part of the training that is done, from 0 to 1. number: of the step, for messages.
        On a CPU, DivergedError before the optimizer's step where a loss, a task's weight or the gradient isn't finite.
        Elsewhere the log finds that: a step there can't ask without waiting.
        A batch without any label has no part in it, also for the regularizers.
        Returns what was made and the examples of each column of the run: labelled ones of a task, all of a
        regularizer. None, and no step, where no task had any.
        """
        batches = [batch for batch in batches if any(batch.counts.values())]
        counts = [sum(batch.counts.get(task, 0) for batch in batches) for task in self.run.kinds]
        examples = [sum(len(x) for x in batch.inputs.values()) for batch in batches]
        if not batches:
            return None
        counts += [sum(examples)] * len(self.run.regularization.terms)
        totals = counts[: len(self.run.weighting.tasks)]
        self.optimizer.zero_grad()
        self.run.weighting.start_step()
        self.run.regularization.start_step(progress)
        before = self._before() if self.scaler.is_enabled() else None
        shares = [n / sum(examples) for n in examples]
        made = self._checked(self.backward(batches, totals, shares), batches, counts, number)
        clip_norm = self.run.experiment.training.clip_norm
        if clip_norm is not None:
            self.scaler.unscale_(self.optimizer)
            torch.nn.utils.clip_grad_norm_(self.parameters, clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if before is None or not self._skipped(*before):
            self.run.regularization.after_step(self.optimizer.param_groups[0]["lr"])
            self.backward.after_step(made, batches, totals, shares)
        return made, counts

    def _checked(self, made: Made, batches: Sequence[Batch], counts: list[int], number: int) -> Made:
        """What was made, with the gradient's largest; under fp16 it may overflow, which the scaler sees to."""
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        if not self.scaler.is_enabled() and gradients:
            made = replace(made, largest=largest(gradients))
        if self.run.device.type == "cpu":
            present = [name for name, count in zip(self.run.columns, counts, strict=True) if count]
            losses, weights = (dict(zip(present, v.tolist(), strict=True)) for v in (made.losses, made.weights))
            check_figures(number, losses, weights)
            if made.largest is not None and not math.isfinite(size := float(made.largest)):
                check_gradient(number, size, culprits(self.run, batches, self.parameters))
        return made

    def _before(self) -> tuple[float, list[Tensor]]:
        """The loss scale, and all that the weighting remembers."""
        return self.scaler.get_scale(), [buffer.clone() for buffer in self.run.weighting.buffers()]

    def _skipped(self, scale: float, remembered: list[Tensor]) -> bool:
        """Whether the scaler found an overflow and made no step; then the weighting forgets it too."""
        skipped = self.scaler.get_scale() < scale
        if skipped:
            for buffer, old in zip(self.run.weighting.buffers(), remembered, strict=True):
                buffer.copy_(old)
        return skipped

    def state_dict(self) -> dict[str, Any]:
        return {
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "backward": self.backward.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.backward.load_state_dict(state["backward"])
