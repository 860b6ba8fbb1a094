"""Bootstrap intervals of the measures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtlcli.studies.compare.statistics import CONFIDENCE, MIN_VALUES
from mtlcli.studies.relate.relation import Matrix

RESAMPLES = 1000
DATA_RESAMPLES = 200  # of examples; each requires a fit if inputs are compared


def percentile_interval(resampled: Matrix) -> Matrix:
    """Compute the 2.5 and 97.5 percentiles of resampled relations.

    Args:
        resampled: a relation for each of R resamples, [R, T, T].

    Returns:
        Lower and upper bounds, [2, T, T]; NaN without resamples, or if one has no value.
    """
    if not len(resampled):
        return np.full((2, *resampled.shape[1:]), np.nan)
    bounds: Matrix = np.quantile(resampled, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2], axis=0)
    return bounds


def centred_interval(estimate: float, resampled: Matrix) -> tuple[float, float]:
    """Compute the percentile interval of resamples that are shifted so that their mean is the estimate.

    A statistic that counts chance agreement, or fits a classifier again, is biased in a resample, which has fewer
    distinct examples than the sample. The shift removes this bias and keeps the spread of the resamples.

    Args:
        estimate: statistic of the sample.
        resampled: statistic of each resample, [R].

    Returns:
        Lower and upper bound; NaN if the statistic of a resample is undefined.
    """
    low, high = np.quantile(resampled - resampled.mean() + estimate, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


def resample_means(values: Matrix) -> Matrix:
    """Compute means over bootstrap samples of K steps.

    Args:
        values: values of each step, [K, T, T]; NaN if undefined.

    Returns:
        Means over the defined values, [RESAMPLES, T, T]; NaN for a sample without any, and everywhere for a pair with
        values at fewer than three steps.
    """
    steps, defined = len(values), ~np.isnan(values)
    draws = draw_bootstrap_counts(steps, RESAMPLES, np.random.default_rng(steps))
    sums = np.tensordot(draws, np.where(defined, values, 0.0), axes=1)
    counts = np.tensordot(draws, defined.astype(np.float64), axes=1)
    enough = (counts > 0) & (defined.sum(0) >= MIN_VALUES)
    means: Matrix = np.where(enough, sums / np.where(enough, counts, 1.0), np.nan)
    return means


def draw_bootstrap_counts(size: int, resamples: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """Draw bootstrap samples, as the number of times that each element is in each of them.

    Args:
        size: number of elements, n, and of draws with replacement in a sample.
        resamples: number of samples, R.
        generator: source of the draws.

    Returns:
        Counts [R, n]; every row sums to n.
    """
    return generator.multinomial(size, np.full(size, 1 / size), size=resamples)


def describe_interval(tasks: Sequence[str], interval: Matrix, resampled: str) -> dict[str, Any]:
    """Describe an interval for `numbers.json`.

    Args:
        tasks: names of the tasks.
        interval: lower and upper bounds, [2, T, T].
        resampled: description of the resamples, such as `bootstrap over 3 seeds`.

    Returns:
        `interval` ({task: {task: [low, high]}}), `confidence` and `interval_of`.
    """
    low, high = interval
    return {
        "interval": {
            task: {other: [float(low[i, j]), float(high[i, j])] for j, other in enumerate(tasks)}
            for i, task in enumerate(tasks)
        },
        "confidence": CONFIDENCE,
        "interval_of": resampled,
    }
