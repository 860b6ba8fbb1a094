"""The statistics of a comparison: plain arithmetic on figures, of which it knows nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from statistics import fmean, stdev

CONFIDENCE = 0.95
Metric = tuple[str, str]  # task, name
Figures = Mapping[Metric, Mapping[int, float]]  # of a method: metric → seed → value


@dataclass(frozen=True)
class Estimate:
    """The mean of n values, and the Student-t interval of it: no width where n is 1; all NaN where n is 0.

    low, high: mean ∓ t · sd / √n, with t the quantile of n − 1 degrees of freedom; NaN for n < 2.
    """

    n: int
    mean: float
    sd: float
    low: float
    high: float

    @property
    def half(self) -> float:
        """Half of the interval's width; NaN where there is none."""
        return (self.high - self.low) / 2


@dataclass(frozen=True)
class PairedTest:
    """A paired t test of two methods over the seeds both have.

    difference: method − reference. p: two-sided; NaN for fewer than two seeds. holm: corrected for all tests made.
    """

    difference: Estimate
    p: float
    holm: float = math.nan


def estimate(values: Sequence[float]) -> Estimate:
    """Mean and interval of the values that are there (NaN is none)."""
    known = [value for value in values if math.isfinite(value)]
    n = len(known)
    if n < 2:
        return Estimate(n, known[0] if known else math.nan, math.nan, math.nan, math.nan)
    mean, sd = fmean(known), stdev(known)
    half = _quantile(n - 1) * sd / math.sqrt(n)
    return Estimate(n, mean, sd, mean - half, mean + half)


def relative(figures: Figures, baseline: Figures, rises: Mapping[Metric, bool]) -> dict[Metric, dict[int, float]]:
    """How much worse than the baseline each figure is, in percent: metric → seed → value. Negative: better.

        100 (−1)^[more is better] (M_ks − B_ks) / |B̄_k|

    The mean over the seeds is the change from mean to mean, as a table's readers would compute it; as the seeds are
    paired, its scatter is that of both. |·|: papers have no negative figures; for those that aren't it is the same.
    Metrics whose baseline has no mean, or 0, are left out. Seeds that one of the two lacks are NaN.
    """
    found: dict[Metric, dict[int, float]] = {}
    for metric, base in baseline.items():
        mean = estimate(list(base.values())).mean
        if not math.isfinite(mean) or mean == 0:
            continue
        sign = -100 if rises[metric] else 100
        found[metric] = {
            seed: sign * (value - base.get(seed, math.nan)) / abs(mean)
            for seed, value in figures.get(metric, {}).items()
        }
    return found


def delta_m(changes: Mapping[Metric, Mapping[int, float]]) -> dict[int, float]:
    """Δm over all metrics, flat: seed → mean of the changes. NaN where one is missing."""
    return _means(list(changes.values()))


def delta_m_by_task(changes: Mapping[Metric, Mapping[int, float]]) -> dict[int, float]:
    """Δm over the tasks: seed → mean over the tasks of the means over their metrics."""
    tasks = dict.fromkeys(task for task, _ in changes)
    return _means([_means([change for (own, _), change in changes.items() if own == task]) for task in tasks])


def mean_ranks(means: Mapping[str, Mapping[Metric, float]], rises: Mapping[Metric, bool]) -> dict[str, float]:
    """Method → mean over the metrics of its rank among the methods, 1 the best; equals share the mean of theirs.

    Of a metric that isn't known of all methods there is no rank; methods without any figure have NaN.
    """
    ranked = {method: figures for method, figures in means.items() if any(map(math.isfinite, figures.values()))}
    ranks: dict[str, list[float]] = {method: [] for method in ranked}
    for metric, up in rises.items():
        values = {method: figures.get(metric, math.nan) for method, figures in ranked.items()}
        if not all(map(math.isfinite, values.values())):
            continue
        for method, own in values.items():
            better = sum(value > own if up else value < own for value in values.values())
            equal = sum(value == own for value in values.values())
            ranks[method].append(better + (equal + 1) / 2)
    return {method: fmean(ranks[method]) if ranks.get(method) else math.nan for method in means}


def paired_test(values: Mapping[int, float], reference: Mapping[int, float]) -> PairedTest:
    """The paired t test of two methods' values by seed, over the seeds that both have."""
    differences = [values[seed] - reference[seed] for seed in values if seed in reference]
    difference = estimate(differences)
    if difference.n < 2:
        return PairedTest(difference, math.nan)
    if difference.sd == 0:  # the same in all seeds: t is 0/0, or a number over 0
        return PairedTest(difference, 1.0 if difference.mean == 0 else 0.0)
    t = difference.mean / (difference.sd / math.sqrt(difference.n))
    return PairedTest(difference, 2 * _tail(abs(t), difference.n - 1))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction: p_(i) → max over j ≤ i of min(1, (m − j + 1) p_(j)), of m tests; NaN is no test."""
    order = sorted((number for number, p in enumerate(p_values) if math.isfinite(p)), key=lambda one: p_values[one])
    corrected = [math.nan] * len(p_values)
    largest = 0.0
    for place, number in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - place) * p_values[number]))
        corrected[number] = largest
    return corrected


@cache
def _quantile(freedom: int) -> float:
    """The t between whose negative and itself Student's distribution has CONFIDENCE of its mass."""
    from scipy import stats

    return float(stats.t.ppf((1 + CONFIDENCE) / 2, freedom))  # type: ignore[attr-defined]


def _tail(t: float, freedom: int) -> float:
    """The mass of Student's distribution above t."""
    from scipy import stats

    return float(stats.t.sf(t, freedom))  # type: ignore[attr-defined]


def _means(parts: Sequence[Mapping[int, float]]) -> dict[int, float]:
    """seed → mean over the parts; NaN where one of them lacks it."""
    seeds = dict.fromkeys(seed for part in parts for seed in part)
    return {seed: math.fsum(part.get(seed, math.nan) for part in parts) / len(parts) for seed in seeds}
