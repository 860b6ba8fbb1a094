"""Task relation matrices: reading, validation, and projection onto the positive semidefinite matrices."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtlcli.config import Experiment
from mtlcli.config.locations import Problems
from mtlcli.errors import ConfigError, suggest
from mtlcli.files import user_path

Matrix = NDArray[np.float64]
Relations = dict[str, dict[str, float]]
MAX_CHARACTERS = 16 * 2**20  # of a file
TOLERANCE = 1e-6  # for rounding and the decimals of a file, relative to the largest entry or eigenvalue


def read_relations(path: str) -> Relations:
    """Read a relation matrix from a CSV file, in the format of `mtl relate`.

    The first row and the first column contain the names of the tasks, in any order; the corner cell is `task`.

    Args:
        path: Path of the file, may start with `~`.

    Returns:
        Entries of the matrix, `{row task: {column task: number}}`.

    Raises:
        ValueError: If the file is not such a table, with the line.
    """
    file = user_path(path)
    try:
        if file.exists() and not (file.is_file() or file.is_dir()):  # reading a pipe would block
            raise ValueError(f"{path}: can't be read: not a file")
        with file.open(encoding="utf-8") as stream:
            text = stream.read(MAX_CHARACTERS + 1)
        if len(text) > MAX_CHARACTERS:
            raise ValueError(
                f"{path}: larger than {MAX_CHARACTERS // 2**20} MiB, more than a matrix of 500 tasks needs"
            )
        rows = list(csv.reader(text.splitlines()))
    except OSError as error:
        raise ValueError(f"{path}: can't be read: {error.strerror}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path}: not a CSV file: {error}") from error
    corner, *columns = [cell.strip() for cell in rows[0]] if rows and rows[0] else [""]
    if corner not in ("task", "") or not columns:
        raise ValueError(f"{path}:1: expected `task,` and the names of the tasks, as written by `mtl relate`")
    _check_unique(columns, f"{path}:1")
    relations: Relations = {}
    for line, row in enumerate(rows[1:], start=2):
        if not any(row):
            continue
        task, *cells = [cell.strip() for cell in row]
        if len(cells) != len(columns):
            raise ValueError(f"{path}:{line}: expected the name of a task and {len(columns)} numbers, got {row}")
        if task in relations:
            raise ValueError(f"{path}:{line}: a second row for {task!r}")
        relations[task] = {
            column: _parse_number(cell, f"{path}:{line}: R[{task}, {column}]")
            for column, cell in zip(columns, cells, strict=True)
        }
    return relations


def build_relation_matrix(
    source: str | Sequence[Sequence[float]] | Mapping[str, Mapping[str, float]], tasks: Sequence[str]
) -> Matrix:
    """Build the symmetric relation matrix R in the order of the tasks.

    Args:
        source: Path of a CSV file; rows in the order of the tasks; or `{task: {task: number}}` in any order.
        tasks: Names of the T tasks.

    Returns:
        R, [T, T].

    Raises:
        ValueError: If the matrix is not finite, not symmetric, or not of exactly these tasks.
    """
    relations = read_relations(source) if isinstance(source, str) else source
    if isinstance(relations, Mapping):
        _check_names(relations, tasks, "row")
        for task, row in relations.items():
            _check_names(row, tasks, f"column, in the row of {task!r},")
        rows = [[relations[task][other] for other in tasks] for task in tasks]
    else:
        rows = [list(row) for row in relations]
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
            f"{matrix[j, i]:.6g}. Only their mean would have an effect; `mtl relate` writes a symmetric matrix"
        )
    return (matrix + matrix.T) / 2


def nearest_psd(matrix: Matrix) -> Matrix:
    """Project a symmetric matrix onto the positive semidefinite ones, in the Frobenius norm.

    Negative eigenvalues are set to 0 (Higham, "Computing a nearest symmetric positive semidefinite matrix", 1988).

    Args:
        matrix: [T, T], symmetric.

    Returns:
        [T, T] nearest matrix; `matrix` itself if it is positive semidefinite up to rounding.
    """
    values, vectors = np.linalg.eigh(matrix)
    if _is_psd(values):
        return matrix
    clipped: Matrix = (vectors * values.clip(min=0)) @ vectors.T
    return (clipped + clipped.T) / 2


def check_psd(matrix: Matrix) -> None:
    """Check that a symmetric matrix is positive semidefinite.

    Args:
        matrix: [T, T], symmetric.

    Raises:
        ValueError: If it is not, with its eigenvalues and the possible choices.
    """
    values = np.linalg.eigvalsh(matrix)
    if not _is_psd(values):
        change = float(np.linalg.norm(values.clip(max=0)))
        raise ValueError(
            f"matrix: not positive semidefinite: its eigenvalues range from {values[0]:.4g} to {values[-1]:.4g}, so "
            f"the objective may have no lower bound. Set `project: psd` (the nearest positive semidefinite matrix, at "
            f"a Frobenius distance of {change:.4g}, with ‖R‖_F = {float(np.linalg.norm(matrix)):.4g}) or "
            f"`project: none` (R as it is)"
        )


def _is_psd(eigenvalues: NDArray[np.floating[Any]]) -> bool:
    return bool(eigenvalues[0] >= -TOLERANCE * np.abs(eigenvalues).max())


def _check_names(labels: Iterable[str], tasks: Sequence[str], what: str) -> None:
    """Raise ValueError if the names are not exactly those of the tasks."""
    names = list(labels)
    unknown = [name for name in names if name not in tasks]
    if missing := [task for task in tasks if task not in names]:
        raise ValueError(
            f"matrix: no {what} for task {missing[0]!r}.{suggest(missing[0], unknown)} It has: {', '.join(names)}"
        )
    if unknown:
        raise ValueError(f"matrix: a {what} for {unknown[0]!r}, which is not a task. The tasks: {', '.join(tasks)}")


def _check_unique(names: Sequence[str], where: str) -> None:
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"{where}: two columns {name!r}")


def _parse_number(cell: str, what: str) -> float:
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{what} is {cell!r}; expected a finite number")
    return value


def self_contained(experiment: Experiment) -> Experiment:
    """Return the experiment with the numbers of its `weighting.matrix` in place of a file name.

    The `config.yaml` and the checkpoints of the run then do not depend on the file.

    Args:
        experiment: The experiment.

    Returns:
        The experiment, changed if its weighting names a file.

    Raises:
        ConfigError: If the file can't be read, or if `weighting.from` has not been measured.
    """
    if experiment.weighting.name != "relation":
        return experiment
    matrix, measure = (experiment.weighting.options[key] for key in ("matrix", "from"))
    if matrix is None and measure is not None:
        message = (
            f"{measure!r} has not been measured. `mtl train` measures it first; from Python, run "
            f"`mtl relate --measure {measure}` and set `matrix` to its relation.csv instead of `from`"
        )
        raise ConfigError(experiment.problem("weighting.from", message))
    if measure is not None or not isinstance(matrix, str):  # the weighting reports an error if both are set
        return experiment
    with Problems(experiment).now("weighting.matrix"):
        relations = read_relations(matrix)
    return with_relations(experiment, relations)


def with_relations(experiment: Experiment, relations: Relations) -> Experiment:
    """Return the experiment with these relations, {task: {task: number}}, as its `weighting.matrix`."""
    weighting = experiment.weighting
    options = {**weighting.options, "matrix": relations, "from": None}
    return experiment.model_copy(update={"weighting": replace(weighting, options=options)})
