"""Intervals of the measures, from resamples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mtlcli.studies.compare.statistics import CONFIDENCE, FEWEST
from mtlcli.studies.relate.relation import Matrix

RESAMPLES = 1000


def percentiles(resampled: Matrix) -> Matrix:
    """[2, T, T]: the 2.5 and 97.5 percentiles of [resamples, T, T]; NaN where there are none, or one has no value."""
    if not len(resampled):
        return np.full((2, *resampled.shape[1:]), np.nan)
    found: Matrix = np.quantile(resampled, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2], axis=0)
    return found


def resampled_means(values: Matrix) -> Matrix:
    """[RESAMPLES, T, T]: means of [K, T, T] over bootstrap samples of the K points; NaN where a sample has no value.

    A pair that has a value at fewer than three points has NaN everywhere.
    """
    points, known = len(values), ~np.isnan(values)
    draws = np.random.default_rng(points).multinomial(points, np.full(points, 1 / points), size=RESAMPLES)
    sums = np.tensordot(draws, np.where(known, values, 0.0), axes=1)
    counts = np.tensordot(draws, known.astype(np.float64), axes=1)
    enough = (counts > 0) & (known.sum(0) >= FEWEST)
    means: Matrix = np.where(enough, sums / np.where(enough, counts, 1.0), np.nan)
    return means


def with_interval(tasks: Sequence[str], interval: Matrix, sample: str) -> dict[str, Any]:
    """The interval as `numbers.json` has it. sample: what the resamples are of."""
    low, high = interval
    return {
        "interval": {
            task: {other: [float(low[i, j]), float(high[i, j])] for j, other in enumerate(tasks)}
            for i, task in enumerate(tasks)
        },
        "confidence": CONFIDENCE,
        "interval_of": sample,
    }
