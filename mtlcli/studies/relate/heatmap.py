"""A relation as a picture."""

from __future__ import annotations

import math
from pathlib import Path

from mtlcli.numbers import format_number
from mtlcli.studies.relate.relation import Relation
from mtlcli.training.files import atomic

ANNOTATED = 20  # tasks, at most, whose numbers still fit into the cells


def draw_heatmap(relation: Relation, title: str, lowest: float, path: Path) -> None:
    """Write a PNG of the matrix, with its numbers in the cells. Cells without a value are grey.

    lowest: the least that the measure can be, −1 or 0: so that a colour means the same in every picture of it.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    tasks, count = relation.tasks, len(relation.tasks)
    side = max(3.2, 0.75 * count)
    figure = Figure(figsize=(side + 1.8, side + 0.9), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.set_facecolor("lightgrey")
    # past 1 (an affinity) and below `lowest` the end's colour is taken, and the number tells
    image = axes.imshow(relation.matrix, cmap="RdBu_r" if lowest < 0 else "Blues", vmin=lowest, vmax=1)
    axes.set_xticks(range(count), tasks, rotation=90 if count > 6 else 30, ha="center" if count > 6 else "right")
    axes.set_yticks(range(count), tasks)
    if count <= ANNOTATED:
        for i, row in enumerate(relation.matrix.tolist()):
            for j, value in enumerate(row):
                dark = value > 0.6 or value < -0.6
                text = "–" if math.isnan(value) else format_number(value, 2)
                axes.text(j, i, text, ha="center", va="center", color="white" if dark else "black")
    axes.set_title(title, fontsize="medium")
    figure.colorbar(image, ax=axes, shrink=0.8)
    with atomic(path) as temporary:
        figure.savefig(temporary, dpi=120)
