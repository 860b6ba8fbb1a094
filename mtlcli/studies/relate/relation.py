"""One measure's result: a T×T matrix of how related the tasks are, and the numbers behind it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtlcli.plotting import new_figure, save_figure
from mtlcli.tables import format_csv, format_number

Matrix = NDArray[np.float64]
Table = dict[str, dict[str, float]]


@dataclass(frozen=True)
class Relation:
    """How related the tasks are by one measure.

    tasks: [T]. matrix: [T, T], symmetric, 1 on the diagonal; NaN where the measure is undefined.
    numbers: what it was made of, plain dicts, lists, numbers and strings; matrices as {task: {task: value}}.
    influence: [T, T], how much of a help task i is to task j, where that is not the same both ways; None: the matrix.
    raw: [T, T], the measure before it was made symmetric, where it wasn't; None: it was.
    """

    tasks: list[str]
    matrix: Matrix
    numbers: dict[str, Any] = field(default_factory=dict)
    influence: Matrix | None = None
    raw: Matrix | None = None

    @property
    def defined(self) -> Matrix:
        """The matrix with 0, which is "unrelated", where the measure is undefined."""
        return np.nan_to_num(self.matrix, nan=0.0)

    def undefined(self) -> list[str]:
        """The pairs that have no value, as `a–b`."""
        pairs = np.argwhere(np.triu(np.isnan(self.matrix))).tolist()
        return [f"{self.tasks[i]}–{self.tasks[j]}" for i, j in pairs]

    def ordered(self, tasks: Sequence[str]) -> Relation:
        """The same with the tasks in this order."""
        order = [self.tasks.index(task) for task in tasks]
        rows = np.ix_(order, order)
        influence, raw = (None if part is None else part[rows] for part in (self.influence, self.raw))
        return Relation(list(tasks), self.matrix[rows], _ordered(self.numbers, list(tasks)), influence, raw)


def named(tasks: Sequence[str], matrix: Matrix) -> Table:
    """{task: {task: value}}."""
    return {task: dict(zip(tasks, row, strict=True)) for task, row in zip(tasks, matrix.tolist(), strict=True)}


def to_csv(tasks: Sequence[str], matrix: Matrix) -> str:
    """`relation.csv`: the tasks' names in the header and in the first column, every digit."""
    rows = [[task, *map(repr, row)] for task, row in zip(tasks, matrix.tolist(), strict=True)]  # `nan` where undefined
    return format_csv([["task", *tasks], *rows])


def symmetric(matrix: Matrix) -> Matrix:
    """Its upper triangle on both sides, and 1 on the diagonal: rounding must not make it asymmetric."""
    upper = np.triu(matrix, 1)
    return upper + upper.T + np.eye(len(matrix))


def _ordered(value: Any, tasks: list[str]) -> Any:
    """Plain data with every mapping of the tasks in their order."""
    if isinstance(value, dict):
        keys = tasks if set(value) == set(tasks) else list(value)
        return {key: _ordered(value[key], tasks) for key in keys}
    return [_ordered(item, tasks) for item in value] if isinstance(value, list) else value


ANNOTATED = 20  # tasks, at most, whose numbers still fit into the cells


def draw_heatmap(relation: Relation, title: str, lowest: float, path: Path) -> None:
    """Write a PNG of the matrix, with its numbers in the cells. Cells without a value are grey.

    lowest: the least that the measure can be, −1 or 0: so that a colour means the same in every picture of it.
    """
    tasks, count = relation.tasks, len(relation.tasks)
    side = max(3.2, 0.75 * count)
    figure = new_figure(side + 1.8, side + 0.9)
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
    save_figure(figure, path)
