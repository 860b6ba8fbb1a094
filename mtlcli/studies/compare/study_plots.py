"""Plots of a comparison: Δm, primary metrics by task, and Δm against cost."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from mtlcli.plotting import GRID, new_figure, save_figure
from mtlcli.studies.compare.document import Document
from mtlcli.studies.compare.formatting import half_width, is_missing
from mtlcli.studies.compare.statistics import MIN_VALUES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


BETTER, WORSE, BASELINE_COLOUR = "#2a7f62", "#b5483a", "#555555"
COST_TITLES = {"parameters": "parameters", "flops": "FLOPs per sample", "seconds_per_epoch": "seconds per epoch"}
DELTA_M_TITLES = {
    "primary": "Δm over the primary metrics (points and percent)",
    "flat": "Δm over all metrics (percent)",
}
MAX_COLUMNS = 4  # panels in a row of the plot of the tasks


def draw_plots(document: Document, folder: Path) -> None:
    """Write `delta_m.png`, `tasks.png` and `cost.png`.

    Args:
        document: the comparison.
        folder: the study folder.
    """
    for name, plot in PLOTS.items():
        save_figure(plot(document), folder / f"{name}.png")


def plot_delta_m(document: Document) -> Figure:
    """Plot Δm over the primary metrics and over all metrics: a dot for each method, and a mark for each task.

    Args:
        document: the comparison.

    Returns:
        The figure.
    """
    methods = document["methods"]
    figure = new_figure(11, 1.9 + 0.45 * len(methods))
    changes = {
        "primary": {label: _primary_changes(document, method) for label, method in methods.items()},
        "flat": {label: _mean_changes(method) for label, method in methods.items()},
    }
    for axes, (form, title) in zip(figure.subplots(1, 2, sharey=True), DELTA_M_TITLES.items(), strict=True):
        _draw_dots(axes, document, form, changes[form])
        axes.set_title(title, fontsize="medium")
        axes.set_yticks(range(len(methods)), list(methods))
        axes.set_ylim(len(methods) - 0.4, -0.7)
    for index, task in enumerate(document["tasks"]):
        figure.axes[0].plot([], [], marker="|", markersize=12, color=f"C{index % 10}", linestyle="", label=task)
    figure.legend(loc="outside right center", fontsize="small", frameon=False, title="tasks")
    label = f"difference from the single-task baselines, lower is better{_describe_intervals(document)}"
    figure.supxlabel(label, fontsize="small")
    return figure


def plot_tasks(document: Document) -> Figure:
    """Plot the primary metric of each task in a panel, with bars that start at the baseline.

    Args:
        document: the comparison.

    Returns:
        The figure.
    """
    methods, tasks = document["methods"], document["tasks"]
    columns = min(len(tasks), MAX_COLUMNS)
    rows = math.ceil(len(tasks) / columns)
    figure = new_figure(3.2 * columns + 0.8, 0.4 + rows * (1.0 + 0.36 * len(methods)))
    grid = figure.subplots(rows, columns, squeeze=False, sharey=True)
    for axes in grid.flat[len(tasks) :]:
        axes.set_visible(False)
    for axes, task in zip(grid.flat, tasks, strict=False):
        _draw_panel(axes, document, task)
    grid[0, 0].set_yticks(range(len(methods)), list(methods))
    grid[0, 0].invert_yaxis()
    figure.suptitle(
        f"Primary metrics: methods (dots) and single-task baseline (line){_describe_intervals(document)}",
        fontsize="small",
    )
    return figure


def plot_cost(document: Document) -> Figure:
    """Plot Δm against each cost in a panel; costs are ratios to the sum of the single-task models.

    Args:
        document: the comparison.

    Returns:
        The figure.
    """
    figure = new_figure(4.2 * len(COST_TITLES), 3.9)
    for axes, (cost, title) in zip(figure.subplots(1, len(COST_TITLES), sharey=True), COST_TITLES.items(), strict=True):
        axes.axhline(0, color=BASELINE_COLOUR, linewidth=0.8)
        axes.axvline(1, color=BASELINE_COLOUR, linewidth=0.8)
        axes.plot(1, 0, marker="s", color=BASELINE_COLOUR, linestyle="")
        axes.annotate("single-task", (1, 0), (-6, 6), textcoords="offset points", fontsize="small", ha="right")
        for index, (label, method) in enumerate(document["methods"].items()):
            delta_m, ratio = method["delta_m"]["primary"], method["cost"][cost]["ratio"]
            if not (is_missing(delta_m["mean"]) or is_missing(ratio)):
                axes.errorbar(ratio, delta_m["mean"], yerr=half_width(delta_m), fmt="o", color=f"C{index % 10}",
                              capsize=3, label=label)  # fmt: skip
        axes.margins(0.15)
        axes.set_xlim(0, max(1.15, 1.05 * axes.get_xlim()[1]))
        axes.set_xlabel(title)
        axes.grid(alpha=GRID)
    figure.axes[0].set_ylabel("Δm over the primary metrics (lower is better)")
    figure.supxlabel(f"ratio to the sum of the single-task models{_describe_intervals(document)}", fontsize="small")
    handles, labels = figure.axes[0].get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside right center", fontsize="small", frameon=False)
    return figure


PLOTS = {"delta_m": plot_delta_m, "tasks": plot_tasks, "cost": plot_cost}


def _describe_intervals(document: Document) -> str:
    """Describe the error bars of a plot, in parentheses."""
    seeds = len(document["seeds"])
    return (
        f" ({document['confidence']:.0%} intervals, {seeds} seeds)"
        if seeds >= MIN_VALUES
        else f" ({seeds} seed{'s' if seeds > 1 else ''})"
    )


def _draw_dots(axes: Axes, document: Document, form: str, changes: Mapping[str, Mapping[str, float]]) -> None:
    for row, (label, method) in enumerate(document["methods"].items()):
        delta_m = method["delta_m"][form]
        mean = delta_m["mean"]
        if is_missing(mean):
            continue
        for index, task in enumerate(document["tasks"]):
            if not is_missing(changes[label].get(task)):
                axes.plot(changes[label][task], row, marker="|", markersize=12, color=f"C{index % 10}", linestyle="")
        colour = BETTER if mean < 0 else WORSE
        axes.errorbar(mean, row, xerr=half_width(delta_m), fmt="o", color=colour, capsize=4, markersize=7, zorder=3)
        axes.annotate(f"{mean:+.2f}", (mean, row), (0, 8), textcoords="offset points",
                      ha="center", fontsize="small", color=colour)  # fmt: skip
    axes.axvline(0, color=BASELINE_COLOUR, linewidth=1)
    axes.grid(axis="x", alpha=GRID)


def _mean_changes(method: Document) -> dict[str, float]:
    """Task → Δm over its metrics, in percent."""
    return {task: delta_m["mean"] for task, delta_m in method["delta_m"]["tasks"].items()}


def _primary_changes(document: Document, method: Document) -> dict[str, float]:
    """Task → how much worse its primary metric is than the baseline's, in points or percent."""
    tasks = method["against"][document["baseline"]["label"]]["tasks"]
    changes = {}
    for task, facts in document["tasks"].items():
        mean = tasks[task][facts["primary"]]["mean"]
        changes[task] = -mean if facts["metrics"][facts["primary"]] == "max" else mean
    return changes


def _draw_panel(axes: Axes, document: Document, task: str) -> None:
    facts = document["tasks"][task]
    metric = facts["primary"]
    higher_is_better = facts["metrics"][metric] == "max"
    base = document["baseline"]["metrics"][task][metric]
    start = base["mean"]
    for row, estimate in enumerate(method["metrics"][task][metric] for method in document["methods"].values()):
        value = estimate["mean"]
        if is_missing(value):
            continue
        if not is_missing(start):
            better = value >= start if higher_is_better else value <= start
            axes.barh(row, value - start, left=start, color=BETTER if better else WORSE, alpha=0.75, height=0.6)
        axes.errorbar(value, row, xerr=half_width(estimate), fmt="o", color="black", markersize=3, capsize=3,
                      linewidth=1)  # fmt: skip
    if not is_missing(start):
        axes.axvline(start, color=BASELINE_COLOUR, linewidth=1.4)
        if (width := half_width(base)) is not None:
            axes.axvspan(start - width, start + width, color=BASELINE_COLOUR, alpha=0.15, linewidth=0)
    axes.margins(x=0.12)
    axes.set_title(f"{task}: {metric} ({'higher' if higher_is_better else 'lower'} is better)", fontsize="medium")
    axes.locator_params(axis="x", nbins=5)
    axes.tick_params(axis="x", labelsize="small")
    axes.grid(axis="x", alpha=GRID)
