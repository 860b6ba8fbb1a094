"""The figures of a comparison: Δm, metrics by task, and quality against cost."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtlcli.plotting import GRID, new_figure, save_figure
from mtlcli.studies.compare.document import Document
from mtlcli.studies.compare.formatting import missing
from mtlcli.studies.compare.statistics import FEWEST

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


BETTER, WORSE, ALONE = "#2a7f62", "#b5483a", "#555555"


def over_seeds(document: Document) -> str:
    """What the intervals in a picture are, in parentheses."""
    seeds = len(document["seeds"])
    return (
        f" ({document['confidence']:.0%} intervals, {seeds} seeds)"
        if seeds >= FEWEST
        else f" ({seeds} seed{'s' if seeds > 1 else ''})"
    )


def half(found: Mapping[str, Any]) -> float | None:
    """Half of an interval's width, where there is one."""
    return None if missing(found["low"]) else (found["high"] - found["low"]) / 2


COST_TITLES = {"parameters": "parameters", "flops": "FLOPs per sample", "seconds_per_epoch": "seconds per epoch"}


def plot_cost(document: Document) -> Figure:
    """A panel for each cost, in ratios to the single-task models together, which are at 1."""
    figure = new_figure(4.2 * len(COST_TITLES), 3.9)
    for axes, (cost, title) in zip(figure.subplots(1, len(COST_TITLES), sharey=True), COST_TITLES.items(), strict=True):
        axes.axhline(0, color=ALONE, linewidth=0.8)
        axes.axvline(1, color=ALONE, linewidth=0.8)
        axes.plot(1, 0, marker="s", color=ALONE, linestyle="")
        axes.annotate("single-task", (1, 0), (-6, 6), textcoords="offset points", fontsize="small", ha="right")
        for number, (label, one) in enumerate(document["methods"].items()):
            found, ratio = one["delta_m"]["primary"], one["cost"][cost]["ratio"]
            if not (missing(found["mean"]) or missing(ratio)):
                colour = f"C{number % 10}"
                axes.errorbar(ratio, found["mean"], yerr=half(found), fmt="o", color=colour, capsize=3, label=label)
        axes.margins(0.15)
        axes.set_xlim(0, max(1.15, 1.05 * axes.get_xlim()[1]))
        axes.set_xlabel(title)
        axes.grid(alpha=GRID)
    figure.axes[0].set_ylabel("Δm over the primary metrics (less is better)")
    figure.supxlabel(f"ratio to all single-task models together{over_seeds(document)}", fontsize="small")
    handles, labels = figure.axes[0].get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside right center", fontsize="small", frameon=False)
    return figure


DELTA_TITLES = {"primary": "Δm over the primary metrics (points and percent)", "flat": "Δm over all metrics (percent)"}


def plot_delta(document: Document) -> Figure:
    """Over the primary metrics, and over all: a dot for each method, among its tasks' own changes."""
    methods = document["methods"]
    figure = new_figure(11, 1.9 + 0.45 * len(methods))
    changes = {
        "primary": {label: _primary(document, one) for label, one in methods.items()},
        "flat": {label: _by_task(one) for label, one in methods.items()},
    }
    for axes, (kind, title) in zip(figure.subplots(1, 2, sharey=True), DELTA_TITLES.items(), strict=True):
        _dots(axes, document, kind, changes[kind])
        axes.set_title(title, fontsize="medium")
        axes.set_yticks(range(len(methods)), list(methods))
        axes.set_ylim(len(methods) - 0.4, -0.7)
    for number, task in enumerate(document["tasks"]):
        figure.axes[0].plot([], [], marker="|", markersize=12, color=f"C{number % 10}", linestyle="", label=task)
    figure.legend(loc="outside right center", fontsize="small", frameon=False, title="its tasks")
    told = f"how much worse than the single-task baselines, so less is better{over_seeds(document)}"
    figure.supxlabel(told, fontsize="small")
    return figure


def _dots(axes: Axes, document: Document, kind: str, changes: Mapping[str, Mapping[str, float]]) -> None:
    for row, (label, one) in enumerate(document["methods"].items()):
        found = one["delta_m"][kind]
        if missing(found["mean"]):
            continue
        for number, task in enumerate(document["tasks"]):
            if not missing(changes[label].get(task)):
                axes.plot(changes[label][task], row, marker="|", markersize=12, color=f"C{number % 10}", linestyle="")
        colour = BETTER if found["mean"] < 0 else WORSE
        axes.errorbar(found["mean"], row, xerr=half(found), fmt="o", color=colour, capsize=4, markersize=7, zorder=3)
        axes.annotate(f"{found['mean']:+.2f}", (found["mean"], row), (0, 8), textcoords="offset points",
                      ha="center", fontsize="small", color=colour)  # fmt: skip
    axes.axvline(0, color=ALONE, linewidth=1)
    axes.grid(axis="x", alpha=GRID)


def _by_task(one: Document) -> dict[str, float]:
    return {task: found["mean"] for task, found in one["delta_m"]["tasks"].items()}


def _primary(document: Document, one: Document) -> dict[str, float]:
    """task → how much worse its primary metric is than the baseline's, in points or percent."""
    compared = one["against"][document["baseline"]["label"]]["tasks"]
    found = {}
    for task, facts in document["tasks"].items():
        mean = compared[task][facts["primary"]]["mean"]
        found[task] = -mean if facts["metrics"][facts["primary"]] == "max" else mean
    return found


COLUMNS = 4


def plot_tasks(document: Document) -> Figure:
    """A panel for each task. Bars start at the baseline, so that their length is the difference from it."""
    methods, tasks = document["methods"], document["tasks"]
    columns = min(len(tasks), COLUMNS)
    rows = math.ceil(len(tasks) / columns)
    figure = new_figure(3.2 * columns + 0.8, 0.4 + rows * (1.0 + 0.36 * len(methods)))
    grid = figure.subplots(rows, columns, squeeze=False, sharey=True)
    for axes in grid.flat[len(tasks) :]:
        axes.set_visible(False)
    for axes, task in zip(grid.flat, tasks, strict=False):
        _panel(axes, document, task)
    grid[0, 0].set_yticks(range(len(methods)), list(methods))
    grid[0, 0].invert_yaxis()
    figure.suptitle(f"From the single-task baseline (line) to each method{over_seeds(document)}", fontsize="small")
    return figure


def _panel(axes: Axes, document: Document, task: str) -> None:
    facts = document["tasks"][task]
    metric = facts["primary"]
    rises = facts["metrics"][metric] == "max"
    base = document["baseline"]["metrics"][task][metric]
    start = base["mean"]
    for row, one in enumerate(one["metrics"][task][metric] for one in document["methods"].values()):
        value = one["mean"]
        if missing(value):
            continue
        if not missing(start):
            better = value >= start if rises else value <= start
            axes.barh(row, value - start, left=start, color=BETTER if better else WORSE, alpha=0.75, height=0.6)
        axes.errorbar(value, row, xerr=half(one), fmt="o", color="black", markersize=3, capsize=3, linewidth=1)
    if not missing(start):
        axes.axvline(start, color=ALONE, linewidth=1.4)
        if (width := half(base)) is not None:
            axes.axvspan(start - width, start + width, color=ALONE, alpha=0.15, linewidth=0)
    axes.margins(x=0.12)
    axes.set_title(f"{task}: {metric} ({'more' if rises else 'less'} is better)", fontsize="medium")
    axes.locator_params(axis="x", nbins=5)
    axes.tick_params(axis="x", labelsize="small")
    axes.grid(axis="x", alpha=GRID)


PICTURES = {"delta_m": plot_delta, "tasks": plot_tasks, "cost": plot_cost}


def draw(document: Document, folder: Path) -> None:
    """Write `delta_m.png`, `tasks.png` and `cost.png`."""
    for name, plot in PICTURES.items():
        save_figure(plot(document), folder / f"{name}.png")
