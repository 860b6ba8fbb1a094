"""Similarity of the labels of two tasks on the same examples."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from mtlcli.studies.compare.statistics import MIN_VALUES
from mtlcli.studies.relate.intervals import centred_interval
from mtlcli.studies.relate.relation import Matrix
from mtlcli.studies.relate.task_labels import Labels, LabelType

BINS = 10  # quantile bins of real labels that are compared with classes
NUMERIC = ("real", "binary")
ROUNDING = 1e-12  # relative to a sum of squares; a smaller variance is a rounding error


def label_similarity(first: tuple[LabelType, Labels], second: tuple[LabelType, Labels]) -> float:
    """Compute the similarity of labels: 0 if they are unrelated, 1 if each determines the other.

    For numbers (real or binary), it is the absolute Pearson correlation. If one of the tasks has classes, it is the
    mutual information, normalized by the mean of the entropies and adjusted for chance, but at least 0. Without the
    adjustment, unrelated labels with many classes would seem related. Real labels are then binned into deciles, and
    each combination of several labels counts as a class.

    Args:
        first: type and labels [n] or [n, labels] of one task. An example with a missing label (NaN) is left out.
        second: those of the other task, for the same examples.

    Returns:
        The similarity; NaN if the labels of either task are constant over the examples.

    References:
        N. X. Vinh, J. Epps, J. Bailey: "Information Theoretic Measures for Clusterings Comparison: Variants,
        Properties, Normalization and Correction for Chance", JMLR 11, 2010 (adjusted mutual information).
    """
    labelled = ~(_is_missing(first[1]) | _is_missing(second[1]))
    (kind, y), (other_kind, z) = ((kind, labels[labelled]) for kind, labels in (first, second))
    if not len(y) or _is_constant(y) or _is_constant(z):
        return math.nan
    if kind in NUMERIC and other_kind in NUMERIC:
        return min(round(abs(float(np.corrcoef(y, z)[0, 1])), 12), 1.0)
    from sklearn.metrics import adjusted_mutual_info_score

    similarity = adjusted_mutual_info_score(_classes(kind, y), _classes(other_kind, z), average_method="arithmetic")
    return min(max(round(float(similarity), 12), 0.0), 1.0)


def label_interval(
    first: tuple[LabelType, Labels], second: tuple[LabelType, Labels], counts: NDArray[np.int64]
) -> tuple[float, float]:
    """Compute the bootstrap interval of `label_similarity` over the examples.

    For numbers, the resampled statistic is the signed Pearson correlation; the interval of its magnitude starts at 0 if
    the signed one includes 0. For classes it is the adjusted mutual information; the mutual information expected by
    chance and the deciles of real labels are those of the sample. See `centred_interval`.

    Args:
        first: type and labels [n] or [n, labels] of one task.
        second: those of the other task, for the same examples.
        counts: bootstrap samples of the examples, [R, n]. Examples without both labels are left out.

    Returns:
        Lower and upper bound. NaN if fewer than three examples have both labels, or the labels of the sample or of a
        resample are constant.
    """
    labelled = ~(_is_missing(first[1]) | _is_missing(second[1]))
    (kind, y), (other_kind, z) = ((kind, labels[labelled]) for kind, labels in (first, second))
    if len(y) < MIN_VALUES or _is_constant(y) or _is_constant(z):
        return math.nan, math.nan
    weights = counts[:, labelled].astype(np.float64)
    if kind in NUMERIC and other_kind in NUMERIC:
        correlation = float(_correlations(y, z, np.ones((1, len(y))))[0])
        low, high = centred_interval(correlation, _correlations(y, z, weights))
        low, high = (0.0 if low < 0 < high else min(abs(low), abs(high))), max(abs(low), abs(high))
    else:
        classes, others = _classes(kind, y), _classes(other_kind, z)
        information = _adjusted_information(classes, others, np.concatenate([np.ones((1, len(y))), weights]))
        low, high = centred_interval(information[0], information[1:])
    low, high = np.clip([low, high], 0, 1).round(12).tolist()
    return low, high


def common_labels(first: Labels, second: Labels) -> int:
    """Count the examples with both labels.

    Args:
        first: labels of one task, [n] or [n, labels].
        second: labels of the other task.

    Returns:
        The number of examples.
    """
    return int((~(_is_missing(first) | _is_missing(second))).sum())


def _correlations(y: Labels, z: Labels, weights: Matrix) -> Matrix:
    """Return the Pearson correlation of y and z [n] for each row of weights [R, n]; NaN if one is constant."""
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
    """Return the adjusted mutual information of classes [n] for each row of weights [R, n]; NaN if one is constant."""
    from sklearn.metrics.cluster import contingency_matrix, expected_mutual_information

    by_chance = expected_mutual_information(contingency_matrix(y, z, sparse=True), len(y))
    entropy_y, entropy_z = _entropies(y, weights), _entropies(z, weights)
    information = entropy_y + entropy_z - _entropies(y * (z.max() + 1) + z, weights)
    mean = (entropy_y + entropy_z) / 2
    defined = (entropy_y > 0) & (entropy_z > 0) & (mean > by_chance)
    adjusted: Matrix = np.where(defined, (information - by_chance) / np.where(defined, mean - by_chance, 1.0), np.nan)
    return adjusted


def _entropies(classes: NDArray[np.int64], weights: Matrix) -> Matrix:
    """Return the entropy in nats of classes [n] for each row of weights [R, n]."""
    order = np.argsort(classes, kind="stable")
    starts = np.flatnonzero(np.diff(classes[order], prepend=-1))
    shares = np.add.reduceat(weights[:, order], starts, axis=1) / weights.sum(1, keepdims=True)
    entropies: Matrix = -(shares * np.log(np.where(shares > 0, shares, 1.0))).sum(1)
    return entropies


def _is_missing(values: Labels) -> NDArray[np.bool_]:
    missing: NDArray[np.bool_] = np.asarray(np.isnan(values).reshape(len(values), -1).any(axis=1))
    return missing


def _is_constant(values: Labels) -> bool:
    return bool((values == values[0]).all())


def _classes(kind: LabelType, values: Labels) -> NDArray[np.int64]:
    """Return the class of each example, [n]."""
    if kind == "real":
        edges = np.quantile(values, np.linspace(0, 1, BINS + 1)[1:-1])
        return np.searchsorted(edges, values, side="right")
    classes: NDArray[np.int64] = np.unique(values, axis=0, return_inverse=True)[1].reshape(-1)
    return classes
