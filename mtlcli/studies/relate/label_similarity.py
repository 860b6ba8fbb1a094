"""How much two tasks' labels of the same examples say about each other."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from mtlcli.studies.relate.labels import Labels, Nature

BINS = 10  # of a real target's quantiles, where it is compared with classes
NUMBERS = ("real", "binary")


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
