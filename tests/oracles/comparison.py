"""The statistics of a comparison, from their definitions, in NumPy float64.

figures: [methods, seeds, metrics]; baseline: [seeds, metrics]; rises: [metrics], whether more is better.
"""

from __future__ import annotations

from math import gamma, pi, sqrt

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

# Single-task baseline and rows of the NYUv2 table of Navon et al. (Nash-MTL, ICML 2022, table 2; FAMO: Liu et al.,
# NeurIPS 2023, table 1): mIoU, pixel accuracy, absolute and relative error of the depth, mean and median angle of the
# normals, and the shares of angles within 11.25, 22.5 and 30 degrees; then the Δm that is printed there.
# (Of its rows RLW and IMTL-G are left out: their printed Δm, 7.78 and −0.76, isn't that of their printed figures,
# which have 7.85 and −0.60.)
NYU_BASELINE = [0.3830, 0.6376, 0.6754, 0.2780, 25.01, 19.21, 0.3014, 0.5720, 0.6915]
NYU_RISES = [True, True, False, False, False, False, True, True, True]
NYU_TASKS = ["segmentation"] * 2 + ["depth"] * 2 + ["normal"] * 5
NYU_ROWS = {
    "LS": ([0.3929, 0.6533, 0.5493, 0.2263, 28.15, 23.96, 0.2209, 0.4750, 0.6108], 5.59),
    "SI": ([0.3845, 0.6427, 0.5354, 0.2201, 27.60, 23.37, 0.2253, 0.4857, 0.6232], 4.39),
    "DWA": ([0.3911, 0.6531, 0.5510, 0.2285, 27.61, 23.18, 0.2417, 0.5018, 0.6239], 3.57),
    "UW": ([0.3687, 0.6317, 0.5446, 0.2260, 27.04, 22.61, 0.2354, 0.4905, 0.6365], 4.05),
    "MGDA": ([0.3047, 0.5990, 0.6070, 0.2555, 24.88, 19.45, 0.2918, 0.5688, 0.6936], 1.38),
    "PCGrad": ([0.3806, 0.6464, 0.5550, 0.2325, 27.41, 22.80, 0.2386, 0.4983, 0.6314], 3.97),
    "GradDrop": ([0.3939, 0.6512, 0.5455, 0.2279, 27.48, 22.96, 0.2338, 0.4944, 0.6287], 3.58),
    "CAGrad": ([0.3979, 0.6549, 0.5486, 0.2250, 26.31, 21.58, 0.2561, 0.5236, 0.6558], 0.20),
    "Nash-MTL": ([0.4013, 0.6593, 0.5261, 0.2171, 25.26, 20.08, 0.2840, 0.5547, 0.6815], -4.04),
    "FAMO": ([0.3888, 0.6490, 0.5474, 0.2194, 25.06, 19.57, 0.2921, 0.5661, 0.6898], -4.10),
}


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
