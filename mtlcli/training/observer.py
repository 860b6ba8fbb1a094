"""What a run tells whoever watches it. The command line prints it; the training itself prints nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from mtlcli.training.evaluate import TaskMetrics
from mtlcli.training.history import figure


@dataclass(frozen=True)
class EpochReport:
    """An epoch, done. `epoch` counts from 1; `value` is the monitored one; `seconds` are of training only.

    learning_rates: of each of the optimizer's groups of parameters, in the epoch's last step.
    """

    epoch: int
    losses: Mapping[str, float]
    split: str
    metrics: TaskMetrics
    value: float
    is_best: bool
    seconds: float
    samples_per_second: float
    learning_rates: Mapping[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        """One line: the epoch, each task's training loss and evaluation metrics, the rate."""
        parts = [f"epoch {self.epoch}"]
        for task, loss in self.losses.items():
            trained = "no labels in train" if math.isnan(loss) else f"loss {figure(loss)}"
            metrics = [f"{name} {figure(value)}" for name, value in self.metrics[task].items() if name != "loss"]
            if math.isnan(self.metrics[task]["loss"]):
                metrics = [f"no labels in {self.split}"]
            parts.append(" ".join([f"{task}: {trained}", *metrics]))
        if self.learning_rates:
            parts.append(f"lr {self._rates()}")
        parts.append(f"{self.seconds:.1f} s, {self.samples_per_second:,.0f} samples/s{' *' if self.is_best else ''}")
        return " | ".join(parts)

    def _rates(self) -> str:
        """The learning rate, or that of each group where they differ."""
        rates = {name: f"{rate:.4g}" for name, rate in self.learning_rates.items()}
        if len(set(rates.values())) == 1:
            return next(iter(rates.values()))
        return ", ".join(f"{name} {rate}" for name, rate in rates.items())


class Observer:
    """Base of the observers: every method does nothing. `step` is called in the step loop: it must be quick."""

    def started(self, epochs: int) -> None:
        """The run of so many epochs is about to train its first step, or the first after it was resumed."""

    def epoch_started(self, epoch: int, steps: int, done: int) -> None:
        """Epoch `epoch` (from 1) begins; `done` of its `steps` were made before the run was resumed."""

    def step(self, examples: int, losses: Mapping[str, float]) -> None:
        """One step is made, of so many examples; the latest losses the host knows of, by task."""

    def epoch_ended(self, report: EpochReport) -> None:
        """An epoch was trained, evaluated and saved."""

    def stopped(self) -> None:
        """No more will come: the run is done, or has failed."""
