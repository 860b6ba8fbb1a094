"""Mean and standard deviation of maps of numbers that are read one at a time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from mtlcli.cores import usable_cores
from mtlcli.data.examples import LazyInputs
from mtlcli.errors import ConfigError, MtlError, Problem
from mtlcli.labels import is_labelled


def measure_maps(maps: LazyInputs, rows: Sequence[int]) -> tuple[float, float]:
    """Compute mean and standard deviation of the labels of all pixels of some images.

    Args:
        maps: the maps of a target of numbers, [H, W] each.
        rows: indices of the images.

    Returns:
        Mean and (population) standard deviation over the labelled pixels; 0 and 1 if there are none.

    Raises:
        ConfigError: maps can't be read; lists them all.
    """
    with ThreadPoolExecutor(usable_cores()) as pool:
        sums = list(pool.map(lambda row: _sum(maps, row), rows))
    if faults := [Problem(str(error)) for error in sums if isinstance(error, MtlError)]:
        raise ConfigError(faults)
    count, total, squares = np.sum([of_map for of_map in sums if not isinstance(of_map, MtlError)], axis=0).tolist()
    if not count:
        return 0.0, 1.0
    mean = total / count
    return mean, math.sqrt(max(squares / count - mean * mean, 0.0))


def _sum(maps: LazyInputs, row: int) -> tuple[float, float, float] | MtlError:
    """Return number, sum and sum of squares of the labels of a map, or the error of one that can't be read."""
    try:
        labels = maps[row]
    except MtlError as error:
        return error
    values = labels[is_labelled(labels)].double()
    return float(len(values)), float(values.sum()), float(values.square().sum())
