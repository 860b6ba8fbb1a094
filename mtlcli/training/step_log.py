"""Log of the losses and weights of every step, copied to the host without waiting for the device."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from mtlcli.training.backward.base import StepResult
from mtlcli.training.failures import check_gradient, check_losses, check_weights
from mtlcli.training.run import Run

WINDOW = 64
Check = Callable[[int, Mapping[str, float]], None]
LISTS = ("loss_sums", "weight_sums", "examples", "steps", "conflict_sums")


class StepLog:
    """Sums of the losses and weights of tasks and regularizers over an epoch, and of the conflict of gradients.

    The values of WINDOW steps are kept on the device and copied to the host as one block while the device continues;
    the block is read when the next one is sent, so that no step waits. A value that is not finite is therefore detected
    at most two windows late (on a CPU the step itself detects it), and always before a checkpoint is saved. The sums
    are computed on the host, step by step in float64: they do not depend on the boundaries of the windows, and a
    resumed epoch gives the same bits.

    Args:
        tasks: Columns of the run, tasks first.
        device: Device of the run.
        check: Function to call with each step's number and weights when they are read.
        fault: `weighting_fault`, for the message about a weight that is not finite.
        chance: Task → number by which its losses were divided, see `chance_losses`.

    Attributes:
        loss_sums: Sum of each column's loss over the labelled examples of the epoch.
        weight_sums: Sum of each column's weight over the steps.
        examples: Number of labelled examples of each column, or the sum of their weights.
        steps: Number of steps each column took part in.
        conflict_sums: Sums of the mean cosine and of the fraction of opposed pairs.
        conflicts: Number of steps in these sums.
        latest: Losses of the latest step that has been read, by column.
    """

    def __init__(
        self,
        tasks: list[str],
        device: torch.device,
        check: Check | None = None,
        fault: str = "",
        chance: Mapping[str, float] | None = None,
    ) -> None:
        self.tasks, self.chance = tasks, chance or {}
        self.device = device
        self.check, self.fault = check, fault
        # a row per step: [losses, weights] of the columns; the gradient's largest value; the conflict, or NaN
        self._window = torch.zeros(WINDOW, 2 * len(tasks) + 3, device=device)
        self._pending: list[tuple[int, list[float]]] = []
        self._in_flight: tuple[Tensor, Any, list[tuple[int, list[float]]]] | None = None
        self.clear()

    def clear(self) -> None:
        """Start a new epoch."""
        self.loss_sums = [0.0] * len(self.tasks)
        self.weight_sums = [0.0] * len(self.tasks)
        self.examples: list[float] = [0] * len(self.tasks)
        self.steps = [0] * len(self.tasks)
        self.conflict_sums = [0.0, 0.0]
        self.conflicts = 0
        self.latest: dict[str, float] = {}

    def record(self, step: int, result: StepResult, counts: list[float]) -> None:
        """Record a step.

        Args:
            step: Number of the step.
            result: Its result, of the columns with a count above 0.
            counts: Number of examples of each column, or the sum of their weights.
        """
        row = self._window[len(self._pending)]
        values = row[:-3].view(2, -1)
        if result.largest is None:
            row[-3].zero_()
        else:
            row[-3].copy_(result.largest)
        if result.losses.numel() == len(self.tasks):
            values[0].copy_(result.losses)
            values[1].copy_(result.weights)
        else:
            for at, task in enumerate(task for task, count in enumerate(counts) if count):
                values[0, task].copy_(result.losses[at])
                values[1, task].copy_(result.weights[at])
        if result.conflict is None:
            row[-2:].fill_(math.nan)
        else:
            row[-2:].copy_(result.conflict)
        self._pending.append((step, counts))
        if len(self._pending) == WINDOW:
            self._send()
            if self.device.type == "cpu":
                self._receive()

    def flush(self) -> None:
        """Read all recorded steps, which waits for the device. Raises DivergedError for a value that is not finite."""
        self._send()
        self._receive()

    def mean_losses(self) -> list[float]:
        """Return each column's mean loss over the epoch's labelled examples; NaN for one without any.

        These are the losses that the weighting receives.
        """
        return [total / n if n else math.nan for total, n in zip(self.loss_sums, self.examples, strict=True)]

    def mean_weights(self) -> list[float]:
        """Return each column's mean weight over the steps it took part in; NaN for one without any."""
        return [total / n if n else math.nan for total, n in zip(self.weight_sums, self.steps, strict=True)]

    def means(self) -> dict[str, dict[str, float]]:
        """Return the mean `loss` and `weight` of each column by its name."""
        losses = [self.chance.get(name, 1.0) * x for name, x in zip(self.tasks, self.mean_losses(), strict=True)]
        pairs = zip(losses, self.mean_weights(), strict=True)
        return {name: {"loss": loss, "weight": weight} for name, (loss, weight) in zip(self.tasks, pairs, strict=True)}

    def mean_conflict(self) -> dict[str, float]:
        """Return the mean `cosine` of the tasks' gradients and their `conflict`, the fraction of opposed pairs.

        Returns:
            Both means over the steps that compared the gradients; empty without such a step.
        """
        return {
            name: total / self.conflicts
            for name, total in zip(("cosine", "conflict"), self.conflict_sums, strict=True)
            if self.conflicts
        }

    def state_dict(self) -> dict[str, Any]:
        """Return the sums of the epoch so far. Call `flush` first."""
        lists = {key: list(getattr(self, key)) for key in LISTS}
        return {**lists, "conflicts": self.conflicts}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        for key in LISTS:
            setattr(self, key, list(state[key]))
        self.conflicts = state["conflicts"]

    def _send(self) -> None:
        self._receive()
        if not self._pending:
            return
        used = self._window[: len(self._pending)]
        event = None
        if self.device.type == "cuda":
            block = torch.empty(used.shape, pin_memory=True)
            block.copy_(used, non_blocking=True)
            event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            event.record()
        else:
            block = used.to("cpu", copy=True)
        self._in_flight = (block, event, self._pending)
        self._pending = []

    def _receive(self) -> None:
        if self._in_flight is None:
            return
        block, event, pending = self._in_flight
        self._in_flight = None
        if event is not None:
            event.synchronize()  # the copy was sent a whole window ago, so it has arrived
        tasks = len(self.tasks)
        for (step, counts), values in zip(pending, block.tolist(), strict=True):
            present = [task for task, count in enumerate(counts) if count]
            losses = {self.tasks[task]: values[task] for task in present}
            weights = {self.tasks[task]: values[tasks + task] for task in present}
            check_losses(step, losses)
            check_weights(step, weights, self.fault)
            check_gradient(step, values[-3], ())
            if self.check is not None:
                self.check(step, weights)
            for task in present:
                self._add(task, counts[task], values[task], values[tasks + task])
            self.latest |= {name: self.chance.get(name, 1.0) * loss for name, loss in losses.items()}
            if not math.isnan(values[-1]):
                self.conflict_sums = [total + x for total, x in zip(self.conflict_sums, values[-2:], strict=True)]
                self.conflicts += 1

    def _add(self, task: int, count: float, loss: float, weight: float) -> None:
        self.loss_sums[task] += loss * count
        self.weight_sums[task] += weight
        self.examples[task] += count
        self.steps[task] += 1


def chance_losses(run: Run) -> dict[str, float]:
    """Return task → number by which `training.normalize_losses` divides its loss; empty if it is off."""
    if run.experiment.training.normalize_losses == "none":
        return {}
    return {task: loss for task, kind in run.kinds.items() if (loss := kind.chance_loss) is not None}
