"""Confusion matrices and calibration plots of the tasks with classes or labels."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mtlcli.files import write_text
from mtlcli.plotting import GRID, new_figure, save_figure
from mtlcli.tasks.base import TaskKind
from mtlcli.tasks.binary_metrics import calibration_bins, calibration_error
from mtlcli.tasks.columns import Collected, ColumnCollector, calibrated_labels
from mtlcli.tasks.summed_metrics import SummedMetrics
from mtlcli.text import format_csv, format_number, printable

if TYPE_CHECKING:
    from matplotlib.axis import Axis

MOST_CLASSES = 500  # of a confusion matrix
MOST_COUNTS = 12  # classes for which the cells of the plot have the counts
MOST_NAMES = 60  # classes for which the axes of the plot have the names
LONGEST_NAME = 24  # letters
OUTCOMES = ("true positive", "false negative", "false positive", "true negative")


class ClassResults:
    """Predicted and true classes of all tasks that have classes or labels, collected batch by batch.

    Args:
        kinds: task → its kind.
    """

    def __init__(self, kinds: Mapping[str, TaskKind]) -> None:
        self._collectors = {
            task: ColumnCollector(columns, kind.columns, kind.class_names, kind.positive)
            for task, kind in kinds.items()
            if (columns := _columns_of(kind))
        }
        self._kinds = {task: kind for task, kind in kinds.items() if kind.target.is_map}
        self._sums = {task: sums for task, kind in self._kinds.items() if (sums := _sums_of(kind)) is not None}

    def receive(self, task: str, prediction: Tensor, target: Tensor, weight: Tensor | None = None) -> None:
        """Add a batch.

        Args:
            task: the task.
            prediction: outputs of the model, [B, outputs] or [B, outputs, H, W].
            target: labels, [B], [B, labels] or [B, H, W].
            weight: weights of the examples, [B]; None for equal weights.
        """
        if task in self._sums:
            self._sums[task].update(prediction, target, weight)
        if task in self._collectors:
            self._collectors[task].update(prediction, target, weight)

    def write(self, folder: Path, split: str) -> None:
        """Write `confusion-TASK.csv`, `confusion-TASK.png` and `calibration-TASK.png` for each task with labels.

        Tasks with labels of pixels have no calibration plot.

        Args:
            folder: the folder of the plots.
            split: name of the split of the examples, for the titles.
        """
        with warnings.catch_warnings(action="ignore"):  # names may have letters that the font lacks
            for task, collector in self._collectors.items():
                if (collected := collector.collect()) is None:
                    continue
                if collected.size <= MOST_CLASSES:
                    _Confusion.of(collected).write(folder, task, split)
                _plot_calibration(folder / f"calibration-{task}.png", f"{task} ({split})", collected)
            for task, metrics in self._sums.items():
                cells = _pixel_confusion(metrics.sums(), self._kinds[task])
                if len(cells) <= MOST_CLASSES and bool(cells.any()):
                    _Confusion.of_classes(self._kinds[task].class_names, cells).write(folder, task, split)


def _columns_of(kind: TaskKind) -> list[str]:
    """Return the columns from which counts and calibration of a kind are computed.

    None for a kind without classes, and for the labels of pixels, which are too many to be collected.
    """
    if kind.target.is_map:
        return []
    metrics = [kind.collected[name] for name in ("precision", "calibration_error") if name in kind.collected]
    return [name for metric in metrics for name in metric.columns] if len(metrics) == 2 else []


def _count(value: float) -> float | int:
    """Return a sum of weights, as an integer if it is one."""
    return int(value) if value.is_integer() else value


def _short(name: str) -> str:
    name = printable(name)
    return name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1] + "…"


@dataclass(frozen=True)
class _Confusion:
    """Counts of examples by label and prediction.

    Attributes:
        rows: names of the classes or labels.
        columns: names of the predicted classes; of labels, the four outcomes.
        cells: counts, or sums of weights, [rows, columns].
        shares: the cells as shares of the examples with the same class, or with the same value of a label.
        labels: whether the rows are labels.
    """

    rows: Sequence[str]
    columns: Sequence[str]
    cells: Tensor
    shares: Tensor
    labels: bool

    @classmethod
    def of(cls, collected: Collected) -> _Confusion:
        """Count the examples."""
        names = collected.classes
        if "labels" in collected.columns:
            cells = _label_outcomes(collected).view(len(names), 2, 2)
            shares = (cells / cells.sum(2, keepdim=True)).nan_to_num()
            return cls(names, OUTCOMES, cells.flatten(1), shares.flatten(1), True)
        return cls.of_classes(names, _confusion_matrix(collected))

    @classmethod
    def of_classes(cls, names: Sequence[str], cells: Tensor) -> _Confusion:
        """Make a confusion matrix of the counts of classes, [classes, predicted classes]."""
        return cls(names, names, cells, (cells / cells.sum(1, keepdim=True)).nan_to_num(), False)

    def write(self, folder: Path, task: str, split: str) -> None:
        """Write the cells as CSV and as a plot."""
        write_text(folder / f"confusion-{task}.csv", self.to_csv())
        self.plot(folder / f"confusion-{task}.png", f"{task} ({split})")

    def to_csv(self) -> str:
        """Return the cells as CSV, with a row for each class."""
        header = ["label", *self.columns]
        return format_csv(
            [header, *([name, *map(_count, row)] for name, row in zip(self.rows, self.cells.tolist(), strict=True))]
        )

    @property
    def _upright(self) -> bool:
        """True if the names of the columns are written upright, because they are long or many."""
        return not self.labels and (len(self.columns) > MOST_COUNTS or max(map(len, self.columns)) > 5)

    def plot(self, path: Path, title: str) -> None:
        """Draw the shares as colors, and the counts in the cells if they are few."""
        numbers = len(self.rows) <= (MOST_NAMES if self.labels else MOST_COUNTS)
        cell = 0.32 if self.labels else 0.5
        height = max(2.0, cell * len(self.rows)) if numbers else min(max(6.0, 0.18 * len(self.rows)), 11)
        width = 4.4 if self.labels else max(2.6, height * 1.15)
        left, bottom = 0.6 + _space(self.rows), 0.55 + (_space(self.columns) if self._upright else 0.1)
        figure = new_figure(left + width + 0.2, bottom + height + 0.4, fit=False)
        total = figure.get_size_inches()
        axes = figure.add_axes((left / total[0], bottom / total[1], width / total[0], height / total[1]))
        axes.imshow(self.shares, cmap="Blues", vmin=0, vmax=1, aspect="auto", interpolation="nearest")
        whole = "all with the same value" if self.labels else "the row"
        axes.set_title(title, fontsize="medium")
        axes.set_xlabel(f"{'' if self.labels else 'predicted; '}color: share of {whole}", fontsize="small")
        axes.set_ylabel("label", fontsize="small")
        _name_ticks(axes.xaxis, self.columns, self._upright)
        _name_ticks(axes.yaxis, self.rows)
        for row, values in enumerate(self.cells.tolist() if numbers else []):
            for column, value in enumerate(values):
                color = "white" if self.shares[row, column] > 0.5 else "black"
                text = format_number(_count(value), 3)
                axes.text(column, row, text, ha="center", va="center", color=color, fontsize="small")
        save_figure(figure, path)


def _confusion_matrix(collected: Collected) -> Tensor:
    """Sum the weights of the examples by class and predicted class.

    Args:
        collected: the columns `label` and `predicted`.

    Returns:
        The sums, float64 [classes, classes]: a row for each class of the labels, a column for each predicted class.
    """
    labels, predicted, size = collected["label"], collected["predicted"], collected.size
    rows = predicted >= 0
    weight = None if collected.weight is None else collected.weight[rows]
    return torch.bincount((labels * size + predicted)[rows], weight, minlength=size**2).double().view(size, size)


def _sums_of(kind: TaskKind) -> SummedMetrics | None:
    """Return metrics whose sums have the confusion matrix of a kind of maps; None if it has no classes."""
    metrics = kind.collect(["precision"]) if "precision" in kind.collected else None
    return metrics if isinstance(metrics, SummedMetrics) else None


def _pixel_confusion(sums: Mapping[str, Tensor], kind: TaskKind) -> Tensor:
    """Return the numbers of pixels by class and predicted class, float64 [classes, classes]; zeros without a batch."""
    if "outcomes" in sums:
        right, missed, wrong, left = sums["outcomes"].unbind()
        cells = torch.stack([torch.stack([right, missed]), torch.stack([wrong, left])])
        return cells if kind.positive == kind.class_names[0] else cells.flip(0, 1)
    size = len(kind.class_names)
    return sums["confusion"][:, :-1] if "confusion" in sums else torch.zeros(size, size)


def _label_outcomes(collected: Collected) -> Tensor:
    """Sum the weights of the examples by label, its value and the prediction; missing labels don't count.

    Args:
        collected: the columns `labels` and `predicted`.

    Returns:
        The sums of true positives, false negatives, false positives and true negatives, float64 [labels, 4].
    """
    labels, predicted = collected["labels"], collected["predicted"]
    weight = torch.ones(len(labels), dtype=torch.float64) if collected.weight is None else collected.weight
    ones, zeros = labels == 1, labels == 0
    outcomes = [ones & predicted, ones & ~predicted, zeros & predicted, zeros & ~predicted]
    return torch.stack([cells.double().T @ weight for cells in outcomes], 1)


def _space(names: Sequence[str]) -> float:
    """Return the space that the longest name takes, in inches."""
    if len(names) > MOST_NAMES:
        return 0.3
    return (0.06 if len(names) > MOST_COUNTS else 0.07) * max(len(_short(name)) for name in names)


def _name_ticks(axis: Axis, names: Sequence[str], upright: bool = False) -> None:
    """Label the ticks of an axis by the names, unless they are too many."""
    if len(names) > MOST_NAMES:
        return
    short = [_short(name) for name in names]
    size = "x-small" if len(names) > MOST_COUNTS else "small"
    axis.set_ticks(range(len(names)), short, fontsize=size, rotation=90 if upright else 0, parse_math=False)


def _plot_calibration(path: Path, title: str, collected: Collected) -> None:
    """Draw the share of correct predictions over their confidence, and the distribution of the confidence."""
    if "labels" in collected.columns:
        confidence, correct, weight = calibrated_labels(collected)
        about = "probability of a label", "share of labels that are 1"
    else:
        confidence, correct, weight = collected["confidence"], collected["correct"], collected.weight
        about = "probability of the most probable class", "share of examples of this class"
        if collected.positive is not None:
            name = _short(collected.classes[collected.positive])
            about = f"probability of {name!r}", f"share of examples that are {name!r}"
    total, confident, right = calibration_bins(confidence, correct, weight)
    filled = total > 0
    figure = new_figure(4.8, 4.6, fit=False)
    axes = figure.add_axes((0.15, 0.12, 0.8, 0.8))
    shares = total / total.sum()
    shares[-2] += shares[-1]  # the confidence 1 has a bin of its own
    bins = len(shares) - 1
    axes.bar(torch.arange(bins) / bins, shares[:-1], width=1 / bins, align="edge", color="lightgray", edgecolor="white")
    axes.plot([0, 1], [0, 1], color="gray", linestyle="--", linewidth=1)
    axes.plot((confident / total)[filled], (right / total)[filled], marker="o", markersize=4)
    error = format_number(calibration_error(confidence, correct, weight), 3)
    axes.set_title(f"{title}: calibration error {error}", fontsize="medium")
    axes.set(xlim=(0, 1), ylim=(-0.02, 1.02))
    axes.set_xlabel(about[0], parse_math=False)
    axes.set_ylabel(f"{about[1]}; bars: share of all examples", parse_math=False, fontsize="small")
    axes.grid(alpha=GRID)
    save_figure(figure, path)
