"""A matrix of how the tasks relate: read from a file, checked against the tasks, made positive semidefinite."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtlcli.errors import nearest
from mtlcli.files import user_path

Matrix = NDArray[np.float64]
Relations = dict[str, dict[str, float]]
LONGEST = 16 * 2**20  # characters of a file
TOLERANCE = 1e-6  # of the largest entry, or eigenvalue: what rounding and a file's few decimals may do


def read_relations(path: str) -> Relations:
    """The table in a CSV file, {task: {task: number}}, as `mtl relate` writes it: both header and first column name
    the tasks, in any order, below and beside a corner cell `task`.

    ValueError, with the line, for what isn't such a table.
    """
    file = user_path(path)
    try:
        if file.exists() and not (file.is_file() or file.is_dir()):  # a pipe would be waited for
            raise ValueError(f"{path}: can't be read: not a file")
        with file.open(encoding="utf-8") as stream:
            text = stream.read(LONGEST + 1)
        if len(text) > LONGEST:
            raise ValueError(
                f"{path}: larger than {LONGEST // 2**20} MiB, far more than the relations of 500 tasks take"
            )
        rows = list(csv.reader(text.splitlines()))
    except OSError as error:
        raise ValueError(f"{path}: can't be read: {error.strerror}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path}: not a CSV file: {error}") from error
    corner, *columns = [cell.strip() for cell in rows[0]] if rows and rows[0] else [""]
    if corner not in ("task", "") or not columns:
        raise ValueError(f"{path}:1: expected `task,` and the tasks' names, as `mtl relate` writes it")
    _once(columns, f"{path}:1")
    relations: Relations = {}
    for line, row in enumerate(rows[1:], start=2):
        if not any(row):
            continue
        task, *cells = [cell.strip() for cell in row]
        if len(cells) != len(columns):
            raise ValueError(f"{path}:{line}: expected a task's name and {len(columns)} numbers, found {row}")
        if task in relations:
            raise ValueError(f"{path}:{line}: a second row for {task!r}")
        relations[task] = {
            column: _number(cell, f"{path}:{line}: R[{task}, {column}]")
            for column, cell in zip(columns, cells, strict=True)
        }
    return relations


def relation_matrix(given: str | Sequence[Sequence[float]] | Mapping[str, Mapping[str, float]],
                    tasks: Sequence[str]) -> Matrix:  # fmt: skip
    """R [T, T], symmetric, in the order of the tasks.

    given: a CSV file; rows in the order of the tasks; or {task: {task: number}} in any order.
    ValueError where it isn't finite, symmetric, and of exactly these tasks.
    """
    named = read_relations(given) if isinstance(given, str) else given
    if isinstance(named, Mapping):
        _same(named, tasks, "row")
        for task, row in named.items():
            _same(row, tasks, f"column, in the row of {task!r},")
        rows = [[named[task][other] for other in tasks] for task in tasks]
    else:
        rows = [list(row) for row in named]
        if len(rows) != len(tasks) or {len(row) for row in rows} != {len(tasks)}:
            sizes = sorted({len(row) for row in rows})
            raise ValueError(
                f"matrix: {len(rows)} rows of {' or '.join(map(str, sizes)) or 'no'} numbers; expected "
                f"{len(tasks)}×{len(tasks)}, in the order of the tasks: {', '.join(tasks)}"
            )
    matrix = np.array(rows, dtype=np.float64)
    for i, j in np.argwhere(~np.isfinite(matrix)).tolist():
        raise ValueError(f"matrix: R[{tasks[i]}, {tasks[j]}] is {matrix[i, j]}; expected a finite number")
    skew = np.abs(matrix - matrix.T)
    if skew.max() > TOLERANCE * np.abs(matrix).max():
        i, j = divmod(int(skew.argmax()), len(tasks))
        raise ValueError(
            f"matrix: not symmetric: R[{tasks[i]}, {tasks[j]}] is {matrix[i, j]:.6g}, and R[{tasks[j]}, {tasks[i]}] is "
            f"{matrix[j, i]:.6g}. Only their mean would count; `mtl relate` writes the symmetrized matrix"
        )
    return (matrix + matrix.T) / 2


def nearest_psd(matrix: Matrix) -> Matrix:
    """The positive semidefinite matrix nearest to a symmetric one, in the Frobenius norm: without the negative
    eigenvalues (Higham, "Computing a nearest symmetric positive semidefinite matrix", 1988).

    The matrix itself where it is positive semidefinite up to rounding.
    """
    values, vectors = np.linalg.eigh(matrix)
    if _is_psd(values):
        return matrix
    clipped: Matrix = (vectors * values.clip(min=0)) @ vectors.T
    return (clipped + clipped.T) / 2


def check_psd(matrix: Matrix) -> None:
    """ValueError, with the numbers and the choice, where a symmetric matrix isn't positive semidefinite."""
    values = np.linalg.eigvalsh(matrix)
    if not _is_psd(values):
        change = float(np.linalg.norm(values.clip(max=0)))
        raise ValueError(
            f"matrix: not positive semidefinite: its eigenvalues go from {values[0]:.4g} to {values[-1]:.4g}, so the "
            f"objective may have no lower bound. Choose `project: psd` (the nearest matrix that is, which changes R by "
            f"‖·‖_F = {change:.4g} of {float(np.linalg.norm(matrix)):.4g}) or `project: none` (R as it is)"
        )


def _is_psd(eigenvalues: NDArray[np.floating[Any]]) -> bool:
    return bool(eigenvalues[0] >= -TOLERANCE * np.abs(eigenvalues).max())


def _same(found: Iterable[str], tasks: Sequence[str], what: str) -> None:
    """ValueError where these aren't exactly the tasks."""
    names = list(found)
    if missing := [task for task in tasks if task not in names]:
        left = [name for name in names if name not in tasks]
        raise ValueError(
            f"matrix: no {what} for task {missing[0]!r}.{nearest(missing[0], left)} Choose from: {', '.join(names)}"
        )
    if unknown := [name for name in names if name not in tasks]:
        raise ValueError(f"matrix: a {what} for {unknown[0]!r}, which is no task. The tasks are: {', '.join(tasks)}")


def _once(names: Sequence[str], where: str) -> None:
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"{where}: two columns {name!r}")


def _number(cell: str, what: str) -> float:
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{what} is {cell!r}; expected a finite number")
    return value
