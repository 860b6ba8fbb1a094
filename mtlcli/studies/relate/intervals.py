"""Intervals of the measures, from resamples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtlcli.studies.compare.statistics import CONFIDENCE, FEWEST
from mtlcli.studies.relate.relation import Matrix

RESAMPLES = 1000
DATA_RESAMPLES = 200  # of examples: every one costs a fit where inputs are compared


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
    draws = bootstrap_counts(points, RESAMPLES, np.random.default_rng(points))
    sums = np.tensordot(draws, np.where(known, values, 0.0), axes=1)
    counts = np.tensordot(draws, known.astype(np.float64), axes=1)
    enough = (counts > 0) & (known.sum(0) >= FEWEST)
    means: Matrix = np.where(enough, sums / np.where(enough, counts, 1.0), np.nan)
    return means


def bootstrap_counts(size: int, resamples: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """Draw bootstrap samples, as the number of times that each element is in each of them.

    Args:
        size: Number of elements, n, and of draws with replacement in a sample.
        resamples: Number of samples, R.
        generator: Source of the draws.

    Returns:
        Counts [R, n]; every row sums to n.
    """
    return generator.multinomial(size, np.full(size, 1 / size), size=resamples)


def centred_percentiles(estimate: float, resampled: Matrix) -> tuple[float, float]:
    """Compute the percentile interval of resamples that are moved so that their mean is the estimate.

    A statistic that counts chance agreement, or refits a classifier, is biased in a resample, which holds fewer
    distinct examples than the sample. The shift removes this bias and keeps the resamples' spread.

    Args:
        estimate: Statistic of the sample.
        resampled: Statistic of each resample, [R].

    Returns:
        Lower and upper bound; NaN if the statistic of a resample is undefined.
    """
    low, high = np.quantile(resampled - resampled.mean() + estimate, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


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
