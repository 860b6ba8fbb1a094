"""Reports of a run while it trains. The command line prints them; the training itself prints nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from mtlcli.tables import format_duration, format_number
from mtlcli.training.environment import device_name
from mtlcli.training.evaluate import TaskMetrics
from mtlcli.training.run import Run

INDENT = "  "


@dataclass(frozen=True)
class RunHeader:
    """A run that is about to train.

    examples: split → alias of a dataset → examples. parameters: as of `MultiTaskModel.count_parameters`.
    """

    folder: Path
    device: str
    threads: int
    examples: Mapping[str, Mapping[str, int]]
    parameters: Mapping[str, Any]
    epochs: int
    steps_per_epoch: int

    def lines(self) -> list[str]:
        aliases = dict.fromkeys(alias for amounts in self.examples.values() for alias in amounts)
        amounts = {
            alias: ", ".join(f"{part[alias]:,} {split}" for split, part in self.examples.items() if alias in part)
            for alias in aliases
        }
        tasks = ", ".join(f"{task} {count:,}" for task, count in self.parameters["tasks"].items())
        return [
            f"run folder: {self.folder}",
            f"device: {self.device}, {_count(self.threads, 'thread')}",
            f"examples: {'; '.join(f'{alias} {amount}' for alias, amount in amounts.items())}",
            f"parameters: {self.parameters['shared']:,} shared; {tasks}; {self.parameters['total']:,} in all",
            f"training: {_count(self.epochs, 'epoch')} of {_count(self.steps_per_epoch, 'step')}",
        ]


@dataclass(frozen=True)
class EpochReport:
    """An epoch that was trained and evaluated.

    epoch: from 1. losses: task → mean training loss. metrics: on `split`. monitor: name of the monitored figure.
    value: that figure. seconds: of training only. learning_rates: of each of the optimizer's
    groups of parameters, in the epoch's last step.
    """

    epoch: int
    epochs: int
    losses: Mapping[str, float]
    split: str
    metrics: TaskMetrics
    monitor: str
    value: float
    is_best: bool
    seconds: float
    samples_per_second: float
    learning_rates: Mapping[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        return " | ".join([self._epoch(), *map(" ".join, self._tasks()), *self._facts()])

    def lines(self, width: int) -> list[str]:
        """The report in one line, or where it is longer than `width`: the epoch, and below it each task."""
        if len(str(self)) <= width:
            return [str(self)]
        tasks = [flow(figures, width - len(INDENT), indent=INDENT) for figures in self._tasks()]
        head = flow([self._epoch(), *self._facts()], width, " | ", INDENT)
        return [*head, *(INDENT + line for lines in tasks for line in lines)]

    def _epoch(self) -> str:
        return f"epoch {self.epoch} of {self.epochs}"

    def _tasks(self) -> list[list[str]]:
        """The figures of each task, such as `digit: train loss 0.3498,`, `val accuracy 0.9167`, `f1 0.9096`."""
        parts = []
        for task, loss in self.losses.items():
            trained = "no labels in train" if math.isnan(loss) else f"train loss {format_number(loss)}"
            metrics = [(name, value) for name, value in self.metrics[task].items() if name != "loss"]
            evaluated = [f"{name} {format_number(value)}" for name, value in metrics]
            if math.isnan(self.metrics[task]["loss"]):
                evaluated = [f"no labels in {self.split}"]
            else:
                evaluated[0] = f"{self.split} {evaluated[0]}"
            parts.append([f"{task}: {trained},", *evaluated])
        return parts

    def _facts(self) -> list[str]:
        """The monitored figure, the learning rates and the speed."""
        rates = {name: format_number(rate, zeros=False) for name, rate in self.learning_rates.items()}
        if len(set(rates.values())) == 1:
            rates = {"lr": next(iter(rates.values()))}
        elif rates:
            rates = {f"lr of {name}": rate for name, rate in rates.items()}
        better = self.is_best and not math.isnan(self.value)
        return [
            f"{self.monitor} {format_number(self.value)}{', best so far' if better else ''}",
            *([", ".join(f"{name} {rate}" for name, rate in rates.items())] if rates else []),
            f"{format_duration(self.seconds)}, {self.samples_per_second:,.0f} samples/s",
        ]


@dataclass(frozen=True)
class RunEnd:
    """The end of a run's epochs.

    epoch: the last one trained, of so many `epochs`. patience: `training.early_stopping`. value: of the best epoch.
    """

    epoch: int
    epochs: int
    patience: int | None
    best_epoch: int
    monitor: str
    value: float

    def __str__(self) -> str:
        best = f"best epoch {self.best_epoch} of {self.epoch}, {self.monitor} {format_number(self.value)}"
        if math.isnan(self.value):
            best = f"{self.monitor} was undefined, so the latest epoch, {self.best_epoch}, counts as the best"
        if self.epoch < self.epochs and self.patience is not None:
            return (
                f"stopped early at epoch {self.epoch} of {self.epochs}: no improvement of {self.monitor} for "
                f"{_count(self.patience, 'epoch')}; {best}"
            )
        last = self.best_epoch == self.epoch > 1 and not math.isnan(self.value)
        return f"trained {_count(self.epoch, 'epoch')}; {best}{' (the last: more may be better)' if last else ''}"


def run_header(run: Run, folder: Path, steps_per_epoch: int) -> RunHeader:
    """The header of a run that is about to train."""
    return RunHeader(
        folder, device_name(run.device), torch.get_num_threads(), run.sizes(), run.model.count_parameters(),
        run.experiment.training.epochs, steps_per_epoch,
    )  # fmt: skip


def flow(parts: Sequence[str], width: int, between: str = " ", indent: str = "") -> list[str]:
    """Join the parts into lines of at most `width` characters, broken between parts and at spaces of a longer part.

    The lines after the first begin with `indent`.
    """
    lines: list[str] = []
    for part in parts:
        if lines and len(lines[-1]) + len(between) + len(part) <= width:
            lines[-1] += between + part
            continue
        for number, word in enumerate(part.split(" ")):
            if number and len(lines[-1]) + 1 + len(word) <= width:
                lines[-1] += f" {word}"
            else:
                lines.append((indent if lines else "") + word)
    return lines


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


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
