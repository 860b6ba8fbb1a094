"""Relation: a T×T matrix of how related the tasks are, with the values it was computed from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtlcli.plotting import new_figure, save_figure
from mtlcli.text import format_csv, format_number

Matrix = NDArray[np.float64]
NamedMatrix = dict[str, dict[str, float]]  # task → task → value

MAX_ANNOTATED = 20  # tasks up to which the values fit into the cells of a heatmap


@dataclass(frozen=True)
class Relation:
    """Relation of T tasks by one measure.

    Attributes:
        tasks: names of the tasks, [T].
        matrix: [T, T], symmetric, 1 on the diagonal; NaN where the measure is undefined.
        numbers: content of `numbers.json`: plain dicts, lists, numbers and strings; matrices as {task: {task: value}}.
        influence: [T, T], the effect of task i on task j, if it is not symmetric; None: `matrix`.
        raw: [T, T], the measure before it was made symmetric; None if it is symmetric.
    """

    tasks: list[str]
    matrix: Matrix
    numbers: dict[str, Any] = field(default_factory=dict)
    influence: Matrix | None = None
    raw: Matrix | None = None

    @property
    def filled(self) -> Matrix:
        """The matrix, with 0 (unrelated) where the measure is undefined."""
        return np.nan_to_num(self.matrix, nan=0.0)

    def undefined_pairs(self) -> list[str]:
        """Return the pairs of tasks without a value, as `a–b`."""
        pairs = np.argwhere(np.triu(np.isnan(self.matrix))).tolist()
        return [f"{self.tasks[i]}–{self.tasks[j]}" for i, j in pairs]

    def reorder(self, tasks: Sequence[str]) -> Relation:
        """Return the relation with the tasks in another order.

        Args:
            tasks: the tasks in the new order.

        Returns:
            The relation, with all matrices and `numbers` in this order.
        """
        order = [self.tasks.index(task) for task in tasks]
        rows = np.ix_(order, order)
        influence, raw = (None if matrix is None else matrix[rows] for matrix in (self.influence, self.raw))
        return Relation(list(tasks), self.matrix[rows], _reorder(self.numbers, list(tasks)), influence, raw)


def name_matrix(tasks: Sequence[str], matrix: Matrix) -> NamedMatrix:
    """Convert a matrix [T, T] to {task: {task: value}}."""
    return {task: dict(zip(tasks, row, strict=True)) for task, row in zip(tasks, matrix.tolist(), strict=True)}


def symmetrize(matrix: Matrix) -> Matrix:
    """Mirror the upper triangle of [T, T], with 1 on the diagonal, so that rounding can't make it asymmetric."""
    upper = np.triu(matrix, 1)
    return upper + upper.T + np.eye(len(matrix))


def to_csv(tasks: Sequence[str], matrix: Matrix) -> str:
    """Format a matrix as `relation.csv`.

    Args:
        tasks: names of the tasks, for the header and the first column.
        matrix: [T, T].

    Returns:
        The text, with all digits; undefined values are `nan`.
    """
    rows = [[task, *map(repr, row)] for task, row in zip(tasks, matrix.tolist(), strict=True)]
    return format_csv([["task", *tasks], *rows])


def draw_heatmap(relation: Relation, title: str, lower_bound: float, path: Path) -> None:
    """Draw the matrix as a heatmap with the values in its cells; undefined cells are grey.

    Args:
        relation: the relation.
        title: title of the plot.
        lower_bound: smallest value of the measure, −1 or 0, so that colours are comparable between heatmaps. Values
            outside the bounds have the colour of the nearest bound.
        path: PNG file to write.
    """
    tasks, count = relation.tasks, len(relation.tasks)
    side = max(3.2, 0.75 * count)
    figure = new_figure(side + 1.8, side + 0.9)
    axes = figure.subplots()
    axes.set_facecolor("lightgrey")
    image = axes.imshow(relation.matrix, cmap="RdBu_r" if lower_bound < 0 else "Blues", vmin=lower_bound, vmax=1)
    axes.set_xticks(range(count), tasks, rotation=90 if count > 6 else 30, ha="center" if count > 6 else "right")
    axes.set_yticks(range(count), tasks)
    if count <= MAX_ANNOTATED:
        for i, row in enumerate(relation.matrix.tolist()):
            for j, value in enumerate(row):
                dark = value > 0.6 or value < -0.6
                text = "–" if math.isnan(value) else format_number(value, 2)
                axes.text(j, i, text, ha="center", va="center", color="white" if dark else "black")
    axes.set_title(title, fontsize="medium")
    figure.colorbar(image, ax=axes, shrink=0.8)
    save_figure(figure, path)


def _reorder(value: Any, tasks: list[str]) -> Any:
    """Reorder every mapping of the tasks in nested dicts and lists."""
    if isinstance(value, dict):
        keys = tasks if set(value) == set(tasks) else list(value)
        return {key: _reorder(value[key], tasks) for key in keys}
    return [_reorder(item, tasks) for item in value] if isinstance(value, list) else value
