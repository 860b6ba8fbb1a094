"""The statistics of a comparison, from their definitions, in NumPy float64.

figures: [methods, seeds, metrics]; baseline: [seeds, metrics]; rises: [metrics], whether more is better.
"""

from __future__ import annotations

from math import gamma, pi, sqrt

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def student_tail(t: float, freedom: int) -> float:
    """P(T > t) of Student's distribution, for t ≥ 0: its density, integrated."""
    density = gamma((freedom + 1) / 2) / (sqrt(freedom * pi) * gamma(freedom / 2))
    angle = np.linspace(0, np.arctan(t / sqrt(freedom)), 20001)  # t = √ν tan θ: the density is then cos^(ν−1) θ
    values = np.cos(angle) ** (freedom - 1)
    area = np.sum((values[1:] + values[:-1]) / 2 * np.diff(angle))
    return float(0.5 - area * density * sqrt(freedom))


def student_quantile(confidence: float, freedom: int) -> float:
    """The t with P(|T| < t) = confidence, by bisection."""
    low, high = 0.0, 1e4
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if 1 - 2 * student_tail(middle, freedom) < confidence else (low, middle)
    return low


def interval(values: Array, confidence: float = 0.95) -> tuple[float, float]:
    n = len(values)
    half = student_quantile(confidence, n - 1) * values.std(ddof=1) / sqrt(n)
    return float(values.mean() - half), float(values.mean() + half)


def delta_m(means: Array, baseline: Array, rises: Array) -> float:
    """100/K Σ_k (−1)^{l_k} (M_k − B_k) / B_k, with l_k = 1 where more is better."""
    return float(100 * np.mean((-1.0) ** rises * (means - baseline) / baseline))


def changes(values: Array, baseline: Array, bounded: Array, floor: Array) -> Array:
    """[seeds, metrics] → the same: hundredths, or percent of the baseline's mean, guarded by `floor` [metrics].

    A row that lacks a value in one of the two has none in either.
    """
    lacking = np.isnan(values) | np.isnan(baseline)
    mean = np.nanmean(np.where(lacking, np.nan, baseline), axis=0)
    return np.where(lacking, np.nan, 100 * (values - baseline)) / np.where(bounded, 1, np.maximum(np.abs(mean), floor))


def bootstrap_error(predictions: Array, reference: Array) -> float:
    """Standard error, in hundredths, of a difference of accuracies over the same examples.

    own, reference: right or wrong, [seeds, examples]. What infinitely many resamples of the examples would give: the
    scatter of an example's mean difference over √n.
    """
    differences = (predictions - reference).mean(0)
    return float(100 * differences.std() / sqrt(differences.size))


def mean_ranks(means: Array, rises: Array) -> Array:
    """means: [methods, metrics] → [methods]. Equals share the mean of their ranks."""
    oriented = np.where(rises, -means, means)
    ranks = np.empty_like(means)
    for metric in range(means.shape[1]):
        column = oriented[:, metric]
        for method, value in enumerate(column):
            places = np.flatnonzero(np.sort(column) == value) + 1
            ranks[method, metric] = places.mean()
    return ranks.mean(1)


def paired_p(a: Array, b: Array) -> float:
    d = a - b
    t = d.mean() / (d.std(ddof=1) / sqrt(len(d)))
    return 2 * student_tail(abs(float(t)), len(d) - 1)


def holm(p: Array) -> Array:
    """Reject in order as long as p_(i) ≤ α / (m − i + 1): the least α at which each is rejected."""
    order = np.argsort(p)
    adjusted = np.empty_like(p)
    for place, index in enumerate(order):
        adjusted[index] = max(min(1.0, (len(p) - j) * p[order[j]]) for j in range(place + 1))
    return adjusted
