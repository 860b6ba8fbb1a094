"""Δm against what it costs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mtlcli.studies.compare.document import Document
from mtlcli.studies.compare.drawing import ALONE, half, new_figure, over_seeds
from mtlcli.studies.compare.shown import missing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TITLES = {"parameters": "parameters", "flops": "FLOPs per sample", "seconds_per_epoch": "seconds per epoch"}


def plot_cost(document: Document) -> Figure:
    """A panel for each cost, in ratios to the single-task models together, which are at 1."""
    figure = new_figure(4.2 * len(TITLES), 3.9)
    for axes, (cost, title) in zip(figure.subplots(1, len(TITLES), sharey=True), TITLES.items(), strict=True):
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
        axes.grid(alpha=0.3)
    figure.axes[0].set_ylabel("Δm over the primary metrics (less is better)")
    figure.supxlabel(f"ratio to all single-task models together{over_seeds(document)}", fontsize="small")
    handles, labels = figure.axes[0].get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside right center", fontsize="small", frameon=False)
    return figure
