"""How much two tasks' labels of the same examples say about each other."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from mtlcli.studies.compare.statistics import FEWEST
from mtlcli.studies.relate.intervals import centred_percentiles
from mtlcli.studies.relate.relation import Matrix
from mtlcli.studies.relate.task_labels import Labels, Nature

BINS = 10  # of a real target's quantiles, where it is compared with classes
NUMBERS = ("real", "binary")
ROUNDING = 1e-12  # of a sum of squares: what is left of a constant one


def label_similarity(first: tuple[Nature, Labels], second: tuple[Nature, Labels]) -> float:
    """0 for unrelated labels, 1 where each tells the other.

    Two numbers (real, or binary): |Pearson correlation|. Where one has classes: the mutual information, normalized by
    the mean of the entropies and adjusted for chance (Vinh, Epps and Bailey 2010), not below 0: without the adjustment
    unrelated labels of many classes seem related. A real target takes part as its ten quantiles, several labels as the
    combination they are.

    Labels: [n] or [n, labels], of the same examples; one that is missing (NaN) takes its example out. NaN where the
    examples left all have the same label.
    """
    known = ~(_missing(first[1]) | _missing(second[1]))
    (kind, y), (other, z) = ((nature, values[known]) for nature, values in (first, second))
    if not len(y) or _constant(y) or _constant(z):
        return math.nan
    if kind in NUMBERS and other in NUMBERS:
        return min(round(abs(float(np.corrcoef(y, z)[0, 1])), 12), 1.0)
    from sklearn.metrics import adjusted_mutual_info_score

    similarity = adjusted_mutual_info_score(_classes(kind, y), _classes(other, z), average_method="arithmetic")
    return min(max(round(float(similarity), 12), 0.0), 1.0)


def label_interval(
    first: tuple[Nature, Labels], second: tuple[Nature, Labels], counts: NDArray[np.int64]
) -> tuple[float, float]:
    """Compute the bootstrap interval of `label_similarity` over the examples.

    For numbers, the resampled statistic is the signed Pearson correlation; the interval of its magnitude starts at 0 if
    the signed one includes 0. For classes it is the adjusted mutual information, with the mutual information expected
    by chance, and the deciles of a real target, kept at those of the sample. See `centred_percentiles`.

    Args:
        first: Nature and labels [n] or [n, labels] of one task.
        second: Those of the other task, of the same examples.
        counts: Bootstrap samples of the examples, [R, n]. Examples without both labels are left out.

    Returns:
        Lower and upper bound. NaN if fewer than three examples have both labels, or the labels of the sample or of a
        resample are constant.
    """
    both = ~(_missing(first[1]) | _missing(second[1]))
    (kind, y), (other, z) = ((nature, values[both]) for nature, values in (first, second))
    if len(y) < FEWEST or _constant(y) or _constant(z):
        return math.nan, math.nan
    weights = counts[:, both].astype(np.float64)
    if kind in NUMBERS and other in NUMBERS:
        correlation = float(_correlations(y, z, np.ones((1, len(y))))[0])
        low, high = centred_percentiles(correlation, _correlations(y, z, weights))
        low, high = (0.0 if low < 0 < high else min(abs(low), abs(high))), max(abs(low), abs(high))
    else:
        classes, others = _classes(kind, y), _classes(other, z)
        information = _adjusted_information(classes, others, np.concatenate([np.ones((1, len(y))), weights]))
        low, high = centred_percentiles(information[0], information[1:])
    low, high = np.clip([low, high], 0, 1).round(12).tolist()
    return low, high


def common_labels(first: Labels, second: Labels) -> int:
    """Count the examples that have both labels, each [n] or [n, labels]."""
    return int((~(_missing(first) | _missing(second))).sum())


def _correlations(y: Labels, z: Labels, weights: Matrix) -> Matrix:
    """Pearson correlation of y and z [n] under each row of weights [R, n]; NaN where one is constant."""
    y, z = y - y.mean(), z - z.mean()
    moments = weights @ np.stack([np.ones_like(y), y, z, y * y, z * z, y * z], axis=1)
    total, sum_y, sum_z, square_y, square_z, product = moments.T
    with np.errstate(invalid="ignore", divide="ignore"):
        variance_y, variance_z = square_y - sum_y**2 / total, square_z - sum_z**2 / total
        variance_y[~(variance_y > ROUNDING * square_y)] = np.nan
        variance_z[~(variance_z > ROUNDING * square_z)] = np.nan
        correlations: Matrix = (product - sum_y * sum_z / total) / np.sqrt(variance_y * variance_z)
    return correlations.clip(-1, 1)


def _adjusted_information(y: NDArray[np.int64], z: NDArray[np.int64], weights: Matrix) -> Matrix:
    """Adjusted mutual information of classes [n] under each row of weights [R, n]; NaN where one is constant."""
    from sklearn.metrics.cluster import contingency_matrix, expected_mutual_information

    by_chance = expected_mutual_information(contingency_matrix(y, z, sparse=True), len(y))
    entropy_y, entropy_z = _entropies(y, weights), _entropies(z, weights)
    information = entropy_y + entropy_z - _entropies(y * (z.max() + 1) + z, weights)
    mean = (entropy_y + entropy_z) / 2
    defined = (entropy_y > 0) & (entropy_z > 0) & (mean > by_chance)
    adjusted: Matrix = np.where(defined, (information - by_chance) / np.where(defined, mean - by_chance, 1.0), np.nan)
    return adjusted


def _entropies(classes: NDArray[np.int64], weights: Matrix) -> Matrix:
    """Entropy in nats of classes [n] under each row of weights [R, n]."""
    order = np.argsort(classes, kind="stable")
    starts = np.flatnonzero(np.diff(classes[order], prepend=-1))
    shares = np.add.reduceat(weights[:, order], starts, axis=1) / weights.sum(1, keepdims=True)
    entropies: Matrix = -(shares * np.log(np.where(shares > 0, shares, 1.0))).sum(1)
    return entropies


def _missing(values: Labels) -> NDArray[np.bool_]:
    missing: NDArray[np.bool_] = np.asarray(np.isnan(values).reshape(len(values), -1).any(axis=1))
    return missing


def _constant(values: Labels) -> bool:
    return bool((values == values[0]).all())


def _classes(nature: Nature, values: Labels) -> NDArray[np.int64]:
    """Each example's class, [n]."""
    if nature == "real":
        edges = np.quantile(values, np.linspace(0, 1, BINS + 1)[1:-1])
        return np.searchsorted(edges, values, side="right")
    classes: NDArray[np.int64] = np.unique(values, axis=0, return_inverse=True)[1].reshape(-1)
    return classes
