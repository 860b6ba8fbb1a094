"""Log messages of a run: its header, its epochs and its end."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from mtlcli.data.samplers.base import EpochAmount, Sampler, epoch_amounts
from mtlcli.text import format_duration, format_number, join_names
from mtlcli.training.evaluate import TaskMetrics, of_all_classes
from mtlcli.training.run import Run
from mtlcli.training.run_folder import device_name
from mtlcli.training.text_report import describe_texts, text_lines

LOG = logging.getLogger("mtl")
INDENT = "  "
NO_DECAY = " (no decay)"  # ends the name of an optimizer's group of norms and biases without weight decay
MAX_RATES = 6  # learning rates that are listed in a line


@dataclass(frozen=True)
class RunHeader:
    """Facts about a run that is about to train.

    Attributes:
        folder: the run folder.
        device: name of the training device.
        threads: number of threads torch uses.
        examples: split → alias of a dataset → number of examples.
        parameters: as returned by `MultiTaskModel.count_parameters`.
        epochs: number of epochs of the run.
        steps_per_epoch: number of optimizer steps in an epoch.
        amounts: alias → examples that an epoch takes from the dataset.
        texts: a line on the texts of each dataset, for a trunk that reads text.
    """

    folder: Path
    device: str
    threads: int
    examples: Mapping[str, Mapping[str, int]]
    parameters: Mapping[str, Any]
    epochs: int
    steps_per_epoch: int
    amounts: Mapping[str, EpochAmount] = field(default_factory=dict)
    texts: Sequence[str] = ()

    def lines(self) -> list[str]:
        """Return the lines that are logged before the first step."""
        aliases = dict.fromkeys(alias for amounts in self.examples.values() for alias in amounts)
        amounts = {
            alias: ", ".join(f"{counts[alias]:,} {split}" for split, counts in self.examples.items() if alias in counts)
            for alias in aliases
        }
        return [
            f"run folder: {self.folder}",
            f"device: {self.device}, {_count(self.threads, 'thread')}",
            f"examples: {'; '.join(f'{alias} {amount}' for alias, amount in amounts.items())}",
            *([f"texts: {'; '.join(self.texts)}"] if self.texts else []),
            f"parameters: {describe_parameters(self.parameters)}",
            f"training: {_count(self.epochs, 'epoch')} of {_count(self.steps_per_epoch, 'step')}",
            *([f"an epoch: {epoch}"] if (epoch := describe_epoch(self.amounts)) else []),
        ]


def describe_parameters(counts: Mapping[str, Any]) -> str:
    """Describe the numbers of parameters, with the trained ones if some are frozen.

    Args:
        counts: as returned by `MultiTaskModel.count_parameters`.

    Returns:
        The description, without a label.
    """
    tasks = ", ".join(f"{task} {count:,}" for task, count in counts["tasks"].items())
    total, trained = counts["total"], counts["trained"]
    share = f", of which {trained:,} ({trained / total:.2%}) are trained" if trained < total else ""
    return f"{counts['shared']:,} shared; {tasks}; {total:,} in total{share}"


@dataclass(frozen=True)
class EpochReport:
    """Results of an epoch.

    Attributes:
        epoch: number of the epoch, from 1.
        epochs: number of epochs of the run.
        losses: task → mean training loss.
        split: the split that was evaluated.
        metrics: task → metric → value on `split`.
        monitor: name of the monitored metric.
        value: value of the monitored metric.
        is_best: whether the value is the best so far.
        seconds: duration of the training, without the evaluation.
        samples_per_second: training speed over all epochs so far.
        learning_rates: parameter group of the optimizer → learning rate in the last step.
        stopped: task → epoch after which it stopped, for tasks that had stopped before this epoch.
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
    stopped: Mapping[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        return " | ".join([self._epoch(), *map(" ".join, self._tasks()), *self._facts()])

    def lines(self, width: int) -> list[str]:
        """Return the report as one line, or if that exceeds `width`, one for the epoch and one for each task."""
        if len(str(self)) <= width:
            return [str(self)]
        tasks = [flow(values, width - len(INDENT), indent=INDENT) for values in self._tasks()]
        head = flow([self._epoch(), *self._facts()], width, " | ", INDENT)
        return [*head, *(INDENT + line for lines in tasks for line in lines)]

    def _epoch(self) -> str:
        return f"epoch {self.epoch} of {self.epochs}"

    def _tasks(self) -> list[list[str]]:
        """Format each task's numbers, such as `digit: train loss 0.3498,`, `val accuracy 0.9167`, `f1 0.9096`."""
        tasks = []
        for task, loss in self.losses.items():
            trained = "no labels in train" if math.isnan(loss) else f"train loss {format_number(loss)}"
            if task in self.stopped:
                trained = f"stopped after epoch {self.stopped[task]}"
            metrics = self.metrics[task]  # those of single classes are in metrics.csv
            evaluated = [f"{name} {format_number(metrics[name])}" for name in of_all_classes(metrics) if name != "loss"]
            if math.isnan(self.metrics[task]["loss"]):
                evaluated = [f"no labels in {self.split}"]
            else:
                evaluated[:1] = [f"{self.split} {text}" for text in evaluated[:1]]
            tasks.append([f"{task}: {trained},", *evaluated])
        return tasks

    def _facts(self) -> list[str]:
        """Format the monitored value, the learning rates and the speed."""
        rates = {name: format_number(rate, zeros=False) for name, rate in self.learning_rates.items()}
        same = [n for n in rates if n.endswith(NO_DECAY) and rates.get(n.removesuffix(NO_DECAY)) == rates[n]]
        rates = {name: rate for name, rate in rates.items() if name not in same}
        if len(set(rates.values())) == 1:
            rates = {"lr": next(iter(rates.values()))}
        elif len(rates) > MAX_RATES:  # of single layers; all are in metrics.csv
            low, high = (pick(self.learning_rates, key=self.learning_rates.__getitem__) for pick in (min, max))
            rates = {"lr": f"{rates[low]} ({low}) to {rates[high]} ({high})"}
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
    """Result of a run whose last epoch is trained.

    Attributes:
        epoch: the last epoch that was trained.
        epochs: number of epochs of the run.
        patience: `training.early_stopping`.
        best_epoch: the epoch with the best monitored value.
        monitor: name of the monitored metric.
        value: monitored value of the best epoch.
        all_stopped: whether the training ended because all tasks had stopped.
    """

    epoch: int
    epochs: int
    patience: int | None
    best_epoch: int
    monitor: str
    value: float
    all_stopped: bool = False

    def __str__(self) -> str:
        best = f"best epoch {self.best_epoch} of {self.epoch}, {self.monitor} {format_number(self.value)}"
        if math.isnan(self.value):
            best = f"{self.monitor} was undefined, so the latest epoch, {self.best_epoch}, counts as the best"
        if self.all_stopped:
            return f"stopped early at epoch {self.epoch} of {self.epochs}: all tasks have stopped; {best}"
        if self.epoch < self.epochs and self.patience is not None:
            return (
                f"stopped early at epoch {self.epoch} of {self.epochs}: no improvement of {self.monitor} for "
                f"{_count(self.patience, 'epoch')}; {best}"
            )
        last = self.best_epoch == self.epoch > 1 and not math.isnan(self.value)
        return f"trained {_count(self.epoch, 'epoch')}; {best}{' (the last one: more epochs may help)' if last else ''}"


def run_header(run: Run, folder: Path, steps_per_epoch: int, sampler: Sampler) -> RunHeader:
    """Return the header of a run that is about to train in `folder` with batches of a sampler."""
    amounts = epoch_amounts(sampler, run.sizes()["train"])
    return RunHeader(
        folder, device_name(run.device), torch.get_num_threads(), run.sizes(), run.model.count_parameters(),
        run.experiment.training.epochs, steps_per_epoch, amounts,
        () if run.tokenizer is None else tuple(text_lines(describe_texts(run))),
    )  # fmt: skip


def describe_epoch(amounts: Mapping[str, EpochAmount]) -> str | None:
    """Describe an epoch, such as `20,599 examples of mnist (0.343 passes), 1,797 of digits (one pass)`.

    Args:
        amounts: alias → amount, see `epoch_amounts`.

    Returns:
        The description; None if an epoch is one pass over each dataset.
    """
    if all(amount["examples"] == amount["size"] for amount in amounts.values()):
        return None
    return ", ".join(
        f"{amount['examples']:,}{'' if at else ' examples'} of {alias} ({_passes(amount)})"
        for at, (alias, amount) in enumerate(amounts.items())
    )


def _passes(amount: EpochAmount) -> str:
    once = amount["examples"] == amount["size"]
    return "one pass" if once else f"{format_number(amount['passes'], 3)} passes"


def log_data_notes(run: Run) -> None:
    """Log the notes on the data, and the positive class of each binary task whose name isn't 1."""
    for note in run.notes():
        LOG.warning("%s", note)
    for task, positive in run.positive.items():
        LOG.info("task %s: class %r counts as yes (option `positive` of its kind)", task, positive)
    for task, space in run.spaces.items():
        LOG.info("task %s: only examples with %s", task, space)
    for task, weights in run.class_weights.items():
        named = zip(run.kinds[task].target.class_names, weights.tolist(), strict=True)
        LOG.info("task %s: class weights %s", task, join_names([f"{name} {weight:.4g}" for name, weight in named]))


def flow(texts: Sequence[str], width: int, between: str = " ", indent: str = "") -> list[str]:
    """Join texts into lines of at most `width` characters, broken between texts or at the spaces of a longer one.

    Args:
        texts: what to join.
        width: number of characters of a line.
        between: separator of texts on the same line.
        indent: beginning of every line but the first.

    Returns:
        The lines. One that holds no space can be longer than `width`.
    """
    lines: list[str] = []
    for text in texts:
        if lines and len(lines[-1]) + len(between) + len(text) <= width:
            lines[-1] += between + text
            continue
        for number, word in enumerate(text.split(" ")):
            if number and len(lines[-1]) + 1 + len(word) <= width:
                lines[-1] += f" {word}"
            else:
                lines.append((indent if lines else "") + word)
    return lines


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
