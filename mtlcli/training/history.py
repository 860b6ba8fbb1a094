"""Metrics of a run, epoch by epoch, and its tables and plots."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from mtlcli.metric_names import class_in
from mtlcli.plotting import GRID, new_figure, save_figure
from mtlcli.text import format_csv, format_markdown, format_number
from mtlcli.training.assembly.regularization import PREFIX
from mtlcli.training.evaluate import Amounts, TaskMetrics, of_all_classes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HEADER = ["epoch", "step", "split", "task", "metric", "value"]
Row = tuple[int, int, str, str, str, float]
SHARING = "sharing."  # prefix of a task, for statistics of the sharing on its examples
OPTIMIZER = "optimizer."  # prefix of a parameter group
WIDEST = 5  # panels in a row
LEGEND = 12  # largest number of lines for which a legend is drawn


def is_task(name: str) -> bool:
    """Return whether an entry of the column `task` is a task; other entries contain a dot, unlike a task's name."""
    return "." not in name


@dataclass
class History:
    """Metrics of all epochs, in tidy form.

    Attributes:
        rows: epoch (from 1), steps up to its end, split, task, metric, value.
    """

    rows: list[Row] = field(default_factory=list)

    def add(self, epoch: int, step: int, split: str, values: TaskMetrics) -> None:
        """Add the metrics of an epoch on a split."""
        for task, metrics in values.items():
            self.rows += [(epoch, step, split, task, metric, value) for metric, value in metrics.items()]

    def series(self, split: str, metric: str) -> dict[str, tuple[list[int], list[float]]]:
        """Return task → (epochs, values) of a metric on a split."""
        series: dict[str, tuple[list[int], list[float]]] = {}
        for epoch, _, row_split, task, name, value in self.rows:
            if (row_split, name) == (split, metric):
                epochs, values = series.setdefault(task, ([], []))
                epochs.append(epoch)
                values.append(value)
        return series

    def to_csv(self) -> str:
        """Return the content of metrics.csv: floats with all digits, an empty cell for a missing value."""
        return format_csv([HEADER, *self.rows])


def table_csv(metrics: Mapping[str, TaskMetrics], examples: Mapping[str, Amounts]) -> str:
    """Format the final metrics as CSV: a row for each split and task, a column for each metric, floats with all digits.

    Args:
        metrics: split → task → metric → value.
        examples: split → task → number of labelled examples, the column `n`.

    Returns:
        The content of table.csv.
    """
    columns = metric_names(metrics)
    rows = [
        [split, task, examples[split][task], *map(values.get, columns)]
        for split, tasks in metrics.items()
        for task, values in tasks.items()
    ]
    return format_csv([["split", "task", "n", *columns], *rows])


def table_md(
    metrics: Mapping[str, TaskMetrics],
    examples: Mapping[str, Amounts],
    positive: Mapping[str, str] | None = None,
    stopped: Mapping[str, int] | None = None,
) -> str:
    """Format the final metrics as Markdown: a table, one of single classes, positive classes, and stopped tasks.

    Args:
        metrics: split → task → metric → value.
        examples: split → task → number of labelled examples, the column `n`.
        positive: task → positive class, see `Run.positive`.
        stopped: task → epoch after which it stopped.

    Returns:
        The content of table.md.
    """
    rows, by_class = table_rows(metrics, examples)
    lines = format_markdown(rows, texts=2)
    if by_class:
        lines += ["", *format_markdown(by_class, texts=3)]
    if positive:
        lines += ["", yes_classes(positive)]
    if stopped:
        lines += ["", stopped_tasks(stopped)]
    return "\n".join(lines) + "\n"


def table_rows(
    metrics: Mapping[str, TaskMetrics], examples: Mapping[str, Amounts]
) -> tuple[list[list[str]], list[list[str]]]:
    """Format the cells of the tables of final metrics.

    Args:
        metrics: split → task → metric → value.
        examples: split → task → number of labelled examples, the column `n`.

    Returns:
        The rows of the metrics of all classes, and those of the metrics of single classes, empty without such metrics;
        the first row has the names of the columns.
    """
    names = metric_names(metrics)
    columns = of_all_classes(names)
    rows = [["split", "task", "n", *columns]]
    rows += [
        [split, task, str(examples[split][task]), *[format_number(values.get(c)) for c in columns]]
        for split, tasks in metrics.items()
        for task, values in tasks.items()
    ]
    return rows, [] if len(columns) == len(names) else _rows_by_class(metrics)


def _rows_by_class(metrics: Mapping[str, TaskMetrics]) -> list[list[str]]:
    """Format the values of single classes: a row for each split, task and class, a column for each metric."""
    by_class: dict[tuple[str, str, str], dict[str, float]] = {}
    for split, tasks in metrics.items():
        for task, values in tasks.items():
            for metric, value in values.items():
                if (label := class_in(metric)) is not None:
                    by_class.setdefault((split, task, label), {})[metric.partition("[")[0]] = value
    columns = list(dict.fromkeys(name for values in by_class.values() for name in values))
    rows = [[*keys, *[format_number(values.get(c)) for c in columns]] for keys, values in by_class.items()]
    return [["split", "task", "class", *columns], *rows]


def yes_classes(positive: Mapping[str, str]) -> str:
    """Return the line below a table of metrics that names the positive class of each binary task."""
    return "Counts as yes: " + ", ".join(f"{task} = {name!r}" for task, name in positive.items())


def stopped_tasks(stopped: Mapping[str, int]) -> str:
    """Return the line below a table of metrics that names the stopped tasks."""
    return "Stopped: " + ", ".join(f"{task} after epoch {epoch}" for task, epoch in stopped.items())


def metric_names(metrics: Mapping[str, TaskMetrics]) -> list[str]:
    """Return all metrics, in the order of first appearance."""
    return list(dict.fromkeys(name for tasks in metrics.values() for values in tasks.values() for name in values))


def plot_history(history: History, split: str, folder: Path) -> None:
    """Plot the metrics over the epochs, as PNG files.

    `losses.png`, `weights.png`, `metrics.png` and, for gradient weightings, `conflict.png` have a line for each task;
    `learning_rates.png` has one for each parameter group. Each regularizer has a file with a panel for each metric. If
    the sharing has statistics, `sharing.png` has a column of panels for each task and a row for each trunk stage.

    Args:
        history: the metrics of all epochs.
        split: the evaluated split.
        folder: the folder of the plots.
    """
    losses = {f"{task} ({where})": line for where in dict.fromkeys(["train", split])
              for task, line in history.series(where, "loss").items() if is_task(task)}  # fmt: skip
    _plot(folder / "losses.png", {"loss": losses})
    weights = history.series("train", "weight")
    _plot(folder / "weights.png", {"task weight": {t: w for t, w in weights.items() if is_task(t)}})
    if rates := {name.removeprefix(OPTIMIZER): line for name, line in history.series("train", "lr").items()}:
        _plot(folder / "learning_rates.png", {"learning rate": rates})
    for name in [name for name in weights if name.startswith(PREFIX)]:
        panels: dict[str, dict[str, tuple[list[int], list[float]]]] = {}
        for metric in dict.fromkeys(row[4] for row in history.rows if row[3] == name):
            title, _, label = metric.partition(".")  # `rank.fc1` is a line of the panel `rank`
            panels.setdefault(f"{name}: {title}", {})[label] = history.series("train", metric)[name]
        _plot(folder / f"{name}.png", panels)
    if conflict := {name: line for name in ("cosine", "conflict") for line in history.series("train", name).values()}:
        titles = {"cosine": "mean cosine of the tasks' gradients", "conflict": "share of opposed pairs"}
        _plot(folder / "conflict.png", {titles[name]: {"": line} for name, line in conflict.items()})
    rows = [row for row in history.rows if row[2] == split and is_task(row[3])]
    names = dict.fromkeys(row[4] for row in rows if row[4] not in ("loss", "weight"))
    if names:
        panels = {f"{name} ({split})": history.series(split, name) for name in of_all_classes(names)}
        _plot(folder / "metrics.png", panels if len(panels) == len(names) else panels | _by_class(history, split))
    watched = dict.fromkeys((row[3], row[4]) for row in history.rows if row[3].startswith(SHARING))
    if watched:
        tasks = dict.fromkeys(task for task, _ in watched)
        stages = dict.fromkeys(name.rpartition(".")[0] for _, name in watched)  # `fc1.digit` is a line of `fc1`
        grid: dict[str, dict[str, tuple[list[int], list[float]]]] = {
            ": ".join(filter(None, [task.removeprefix(SHARING), stage])): {
                name.rpartition(".")[2]: history.series(split, name)[task]
                for owner, name in watched
                if (owner, name.rpartition(".")[0]) == (task, stage)
            }
            for stage in stages
            for task in tasks
        }
        _plot(folder / "sharing.png", grid, columns=len(tasks))


def _by_class(history: History, split: str) -> dict[str, dict[str, tuple[list[int], list[float]]]]:
    """Return a panel for each task and metric of single classes, with a line for each class."""
    panels: dict[str, dict[str, tuple[list[int], list[float]]]] = {}
    for task, metric in dict.fromkeys((row[3], row[4]) for row in history.rows if row[2] == split and is_task(row[3])):
        if (label := class_in(metric)) is not None:
            title = f"{task}: {metric.partition('[')[0]} ({split})"
            panels.setdefault(title, {})[label] = history.series(split, metric)[task]
    return panels


def plot_figures(figures: Mapping[str, Figure], folder: Path) -> None:
    """Save matplotlib figures as `<name>.png` in a folder."""
    for name, figure in figures.items():
        save_figure(figure, folder / f"{name}.png")


def _plot(path: Path, panels: dict[str, dict[str, tuple[list[int], list[float]]]], columns: int | None = None) -> None:
    """Draw a panel for each entry, title → label of a line → (epochs, values).

    With `columns`, an entry without lines has no panel, and the panels of a row have the same scale. Without, there are
    up to WIDEST panels in a row.
    """
    from matplotlib.ticker import MaxNLocator

    scaled = columns is not None
    rows = -(-len(panels) // (columns or WIDEST))
    columns = columns or -(-len(panels) // rows)
    figure = new_figure(5 * columns, 3.6 * rows if rows == 1 else 2.8 * rows)
    grid = figure.subplots(rows, columns, squeeze=False, sharey="row" if scaled and rows > 1 else False)
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    for axes, (title, lines) in zip(grid.flat, panels.items(), strict=False):
        axes.set_visible(rows == 1 or bool(lines))
        axes.tick_params(labelleft=True)  # the first panel of the row may be missing
        for label, (epochs, values) in lines.items():
            axes.plot(epochs, values, marker="o" if len(epochs) < 30 else "", markersize=3, label=label)
        axes.set(title=title, xlabel="epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=GRID)
        if any(lines) and len(lines) <= LEGEND:  # a single line needs no legend
            axes.legend(fontsize="small")
    save_figure(figure, path)
