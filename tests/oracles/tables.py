"""The encoding of the columns of a table, row by row and column by column, in float64."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from mtlcli.specs import Column

Floats = NDArray[np.float64]


def one_hot(columns: Sequence[Column], rows: Sequence[Sequence[float]]) -> Floats:
    """[N, width]: numbers standardized, a category a 1 among as many 0 as it has levels; missing and unseen: zeros."""
    result = []
    for row in rows:
        values: list[float] = []
        for column, cell in zip(columns, row, strict=True):
            if column.levels is None:
                values.append((cell - column.mean) / column.std)
            else:
                values += [float(cell == 2 + level) for level in range(len(column.levels))]
        result.append(values)
    return np.array(result)


def embedded(
    columns: Sequence[Column], rows: Sequence[Sequence[float]], vectors: Mapping[str, Floats], log: bool
) -> Floats:
    """[N, width]: the columns' vectors, the narrower ones first, then the numbers.

    vectors: name of a categorical column → [1 + levels, width], that of a missing value first.
    """
    categorical = [at for at, column in enumerate(columns) if column.levels is not None]
    categorical.sort(key=lambda at: vectors[columns[at].name].shape[1])  # stable: then in their order
    result = []
    for row in rows:
        values: list[float] = []
        for at in categorical:
            table = vectors[columns[at].name]
            values += [0.0] * table.shape[1] if row[at] == 0 else table[int(row[at]) - 1].tolist()
        for column, cell in zip(columns, row, strict=True):
            if column.levels is None and log:
                values.append((np.sign(cell) * np.log(1 + abs(cell)) - column.log_mean) / column.log_std)
            elif column.levels is None:
                values.append((cell - column.mean) / column.std)
        result.append(values)
    return np.array(result)
