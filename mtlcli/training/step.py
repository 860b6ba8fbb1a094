"""Optimizer step of a run."""

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
from mtlcli.training.backward.gradient_backward import GradientBackward, is_blockwise
from mtlcli.training.backward.independent_samples import IndependentSamplesBackward
from mtlcli.training.backward.loss_backward import LossBackward
from mtlcli.training.failures import (
    DivergedError,
    check_gradient,
    check_losses,
    check_weights,
    find_culprits,
    largest,
    weighting_fault,
)
from mtlcli.training.run import Run
from mtlcli.training.task_stops import FrozenTasks
from mtlcli.weighting.base import GramianWeighting

FP16_ADVICE = "Set training.precision to bf16 or fp32, or bring inputs, targets and losses to a size of about 1"
MOST_SKIPPED = 40  # steps in a row under fp16: each halves the loss scale, which starts at 2^16


class Step:
    """Makes optimizer steps: losses of the tasks → weighting → gradients → update.

    Nothing waits for the device, except under fp16, where the loss scale is read after each step: torch's scaler waits
    in any case, unless the optimizer is fused, and the regularizers, the weighting and the schedule depend on whether
    the step was skipped.

    Args:
        run: Run to train, on its device.
        optimizer: Optimizer of all of the run's parameters.

    Attributes:
        skipped: Number of steps in a row that the loss scaler has skipped, up to the latest.
        frozen: Tasks that have stopped; None if none has.
    """

    def __init__(self, run: Run, optimizer: Optimizer) -> None:
        self.run = run
        self.optimizer = optimizer
        self.parameters = [p for group in optimizer.param_groups for p in group["params"]]
        self.scaler = torch.amp.GradScaler(run.device.type, enabled=run.experiment.training.precision == "fp16")
        self.skipped = 0
        self.frozen: FrozenTasks | None = None
        self.backward = _backward(run, self.scaler)

    def __call__(
        self, batches: Sequence[Batch], progress: float = 0.0, number: int = 1
    ) -> tuple[StepResult, list[float]] | None:
        """Make one step over one or several batches, whose gradients accumulate as if they were one batch.

        A batch without labels is left out, also for the regularizers. A loss, a weight or a gradient that is not finite
        raises DivergedError before the optimizer's step on a CPU; on other devices `StepLog` detects it later, since
        reading the value would wait for the device. Under fp16, DivergedError is also raised after MOST_SKIPPED skipped
        steps in a row: their gradients overflow at any loss scale.

        Args:
            batches: Batches on the run's device.
            progress: Fraction of the training that is done, from 0 to 1.
            number: Number of the step, for messages.

        Returns:
            The result of the step, and the number of examples of each column of the run: labelled ones of a task, or
            the sum of their weights, all of a regularizer. None if no task had labels, in which case no step is made.
        """
        if self.frozen is not None:
            batches = [self.frozen.remove_from(batch) for batch in batches]
        batches = [batch for batch in batches if any(batch.counts.values())]
        counts: list[float] = [sum(batch.counts.get(task, 0) for batch in batches) for task in self.run.kinds]
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
        result = self.backward(batches, totals, shares)
        if self.frozen is not None:
            self.frozen.drop_gradients()
        result = self._checked(result, batches, counts, number)
        clip_norm = self.run.experiment.training.clip_norm
        if clip_norm is not None:
            self.scaler.unscale_(self.optimizer)
            torch.nn.utils.clip_grad_norm_(self.parameters, clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if before is not None and self._skipped(*before):
            self._count_skipped(number)
            return replace(result, updated=False), counts
        self.skipped = 0
        self.run.regularization.after_step(self.optimizer.param_groups[0]["lr"])
        if self.frozen is not None:
            self.frozen.restore()
        if self.backward.looks_back:
            self.backward.after_step(result, batches, totals, shares)
        return result, counts

    def _checked(self, result: StepResult, batches: Sequence[Batch], counts: list[float], number: int) -> StepResult:
        """Return the result with the gradient's largest value, but under fp16, where the scaler handles overflows."""
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        if not self.scaler.is_enabled() and gradients:
            result = replace(result, largest=largest(gradients))
        if self.run.device.type == "cpu":
            present = [name for name, count in zip(self.run.columns, counts, strict=True) if count]
            losses, weights = (dict(zip(present, v.tolist(), strict=True)) for v in (result.losses, result.weights))
            check_losses(number, losses)
            size = 0.0 if result.largest is None else float(result.largest)
            if not all(map(math.isfinite, [*weights.values(), size])):
                self._diverged(number, weights, size, batches)
        return result

    def _diverged(self, number: int, weights: dict[str, float], size: float, batches: Sequence[Batch]) -> None:
        """Raise DivergedError, naming the tasks whose gradient is not finite, or else the weighting."""
        own, fault = find_culprits(self.run, batches, self.parameters), weighting_fault(self.run)
        if own:
            check_gradient(number, math.nan if math.isfinite(size) else size, own)
        check_weights(number, weights, fault)
        check_gradient(number, size, own, None if self.run.regularization.terms else fault)

    def _before(self) -> tuple[float, list[Tensor]]:
        """Return the loss scale and the state of the weighting."""
        return self.scaler.get_scale(), [buffer.clone() for buffer in self.run.weighting.buffers()]

    def _skipped(self, scale: float, remembered: list[Tensor]) -> bool:
        """Return whether the scaler skipped the step because of an overflow; if so, restore the weighting's state."""
        skipped = self.scaler.get_scale() < scale
        if skipped:
            for buffer, old in zip(self.run.weighting.buffers(), remembered, strict=True):
                buffer.copy_(old)
        return skipped

    def _count_skipped(self, number: int) -> None:
        """Count a skipped step. Raises DivergedError for too many in a row."""
        self.skipped += 1
        if self.skipped >= MOST_SKIPPED:
            raise DivergedError(
                f"fp16: the last {self.skipped} steps, up to step {number}, were skipped: a gradient isn't finite, "
                f"however small the loss scale ({self.scaler.get_scale():.0e} now). {FP16_ADVICE}"
            )

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the optimizer, the loss scaler and the backward passes."""
        return {
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "skipped": self.skipped,
            "backward": self.backward.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.skipped = state.get("skipped", 0)
        self.backward.load_state_dict(state["backward"])


def _backward(run: Run, scaler: GradScaler) -> Backward:
    if run.weighting.level == "loss":
        return LossBackward(run, scaler)
    if isinstance(run.weighting, GramianWeighting) and run.weighting.independent:
        return IndependentSamplesBackward(run, scaler)
    if is_blockwise(run):
        from mtlcli.training.backward.blockwise_backward import BlockwiseBackward

        return BlockwiseBackward(run, scaler)
    if run.experiment.weighting.gradients == "sequence":
        from mtlcli.training.backward.feature_backward import SequenceBackward

        return SequenceBackward(run, scaler)
    return GradientBackward(run, scaler)


def idle_reason(step: Step) -> str:
    """Return the reason why none of the latest steps updated the parameters."""
    if step.skipped:
        return f"fp16's loss scaling skipped every step, since a gradient wasn't finite. {FP16_ADVICE}"
    return "no batch had a label"
