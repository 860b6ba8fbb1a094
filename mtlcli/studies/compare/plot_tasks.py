"""Each task's primary metric against its baseline."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from mtlcli.studies.compare.document import Document
from mtlcli.studies.compare.drawing import ALONE, BETTER, WORSE, half, new_figure, over_seeds
from mtlcli.studies.compare.shown import missing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

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
    axes.grid(axis="x", alpha=0.3)
