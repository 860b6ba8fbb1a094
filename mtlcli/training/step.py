"""One optimizer step: losses of the tasks → weighting → gradients → update."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.amp.grad_scaler import GradScaler
from torch.optim import Optimizer

from mtlcli.data.loader import Batch
from mtlcli.training.backward.base import Backward, StepResult
from mtlcli.training.backward.gradient_backward import GradientBackward
from mtlcli.training.backward.independent_samples import IndependentSamplesBackward
from mtlcli.training.backward.loss_backward import LossBackward
from mtlcli.training.failures import (
    DivergedError,
    check_gradient,
    check_losses,
    check_weights,
    culprits,
    largest,
    weighting_fault,
)
from mtlcli.training.run import Run
from mtlcli.weighting.base import GramianWeighting

FP16_ADVICE = "Set training.precision to bf16 or fp32, or bring inputs, targets and losses to a size of about 1"
MOST_SKIPPED = 40  # steps in a row under fp16: each halves the loss scale, which starts at 2^16


class Step:
    """Makes optimizer steps. Nothing in it waits for the device, except under fp16.

    There the loss scale is read after each step: torch's scaler waits anyway, unless the optimizer is fused, and
    whether a step was skipped decides what the regularizers, the weighting and the schedule do next.
    """

    def __init__(self, run: Run, optimizer: Optimizer) -> None:
        self.run = run
        self.optimizer = optimizer
        self.parameters = [p for group in optimizer.param_groups for p in group["params"]]
        self.scaler = torch.amp.GradScaler(run.device.type, enabled=run.experiment.training.precision == "fp16")
        self.skipped = 0  # steps in a row, up to the latest
        self.backward = _backward(run, self.scaler)

    def __call__(
        self, batches: Sequence[Batch], progress: float = 0.0, number: int = 1
    ) -> tuple[StepResult, list[int]] | None:
        """One step over one batch, or over several whose gradients accumulate as if they were one.

        progress: the part of the training that is done, from 0 to 1. number: of the step, for messages.
        On a CPU, DivergedError before the optimizer's step where a loss, a task's weight or the gradient isn't finite.
        Elsewhere the log finds that: a step there can't ask without waiting. Under fp16 also after MOST_SKIPPED steps
        in a row that the scaler skipped: their gradients overflow at any loss scale.
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
        if before is not None and self._skipped(*before):
            self._count_skipped(number)
            return replace(made, updated=False), counts
        self.skipped = 0
        self.run.regularization.after_step(self.optimizer.param_groups[0]["lr"])
        self.backward.after_step(made, batches, totals, shares)
        return made, counts

    def _checked(self, made: StepResult, batches: Sequence[Batch], counts: list[int], number: int) -> StepResult:
        """What was made, with the gradient's largest; under fp16 it may overflow, which the scaler sees to."""
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        if not self.scaler.is_enabled() and gradients:
            made = replace(made, largest=largest(gradients))
        if self.run.device.type == "cpu":
            present = [name for name, count in zip(self.run.columns, counts, strict=True) if count]
            losses, weights = (dict(zip(present, v.tolist(), strict=True)) for v in (made.losses, made.weights))
            check_losses(number, losses)
            size = 0.0 if made.largest is None else float(made.largest)
            if not all(map(math.isfinite, [*weights.values(), size])):
                self._diverged(number, weights, size, batches)
        return made

    def _diverged(self, number: int, weights: dict[str, float], size: float, batches: Sequence[Batch]) -> None:
        """Raise DivergedError; its message names the tasks whose gradient isn't finite, or else the weighting."""
        own, fault = culprits(self.run, batches, self.parameters), weighting_fault(self.run)
        if own:
            check_gradient(number, math.nan if math.isfinite(size) else size, own)
        check_weights(number, weights, fault)
        check_gradient(number, size, own, None if self.run.regularization.terms else fault)

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

    def _count_skipped(self, number: int) -> None:
        """Count one more skipped step. DivergedError where there are too many in a row."""
        self.skipped += 1
        if self.skipped >= MOST_SKIPPED:
            raise DivergedError(
                f"fp16: the last {self.skipped} steps, up to step {number}, were skipped: a gradient isn't finite, "
                f"however small the loss scale ({self.scaler.get_scale():.0e} now). {FP16_ADVICE}"
            )

    def state_dict(self) -> dict[str, Any]:
        return {
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "skipped": self.skipped,
            "backward": self.backward.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.skipped = state.get("skipped", 0)
        self.backward.load_state_dict(state["backward"])


def _backward(run: Run, scaler: GradScaler) -> Backward:
    if run.weighting.level == "loss":
        return LossBackward(run, scaler)
    independent = isinstance(run.weighting, GramianWeighting) and run.weighting.independent
    return (IndependentSamplesBackward if independent else GradientBackward)(run, scaler)


def idle_reason(step: Step) -> str:
    """Why none of the latest steps changed the parameters."""
    if step.skipped:
        return f"fp16's loss scaling skipped every step, since a gradient wasn't finite. {FP16_ADVICE}"
    return "no batch had a label"
