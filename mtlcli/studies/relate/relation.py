"""One measure's result: a T×T matrix of how related the tasks are, and the numbers behind it."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

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
    text = io.StringIO()
    rows = [[task, *map(repr, row)] for task, row in zip(tasks, matrix.tolist(), strict=True)]
    csv.writer(text, lineterminator="\n").writerows([["task", *tasks], *rows])
    return text.getvalue()


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
