"""Δm of each method, with its interval."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from mtlcli.studies.compare.document import Document
from mtlcli.studies.compare.drawing import ALONE, BETTER, WORSE, half, new_figure, over_seeds
from mtlcli.studies.compare.shown import missing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TITLES = {"primary": "Δm over the primary metrics (points and percent)", "flat": "Δm over all metrics (percent)"}


def plot_delta(document: Document) -> Figure:
    """Over the primary metrics, and over all: a dot for each method, among its tasks' own changes."""
    methods = document["methods"]
    figure = new_figure(11, 1.9 + 0.45 * len(methods))
    changes = {
        "primary": {label: _primary(document, one) for label, one in methods.items()},
        "flat": {label: _by_task(one) for label, one in methods.items()},
    }
    for axes, (kind, title) in zip(figure.subplots(1, 2, sharey=True), TITLES.items(), strict=True):
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
    axes.grid(axis="x", alpha=0.3)


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
