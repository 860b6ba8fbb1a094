"""Statistics of a comparison: estimates, paired tests and Δm of scores."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import chain
from statistics import fmean, stdev

CONFIDENCE = 0.95
MIN_VALUES = 3  # for an interval or a test: with two values, Student's quantile is 12.7 and the interval is useless
ROUNDING = 1e-12  # relative to the values; a smaller standard deviation is a rounding error
Metric = tuple[str, str]  # task, name
Scores = Mapping[Metric, Mapping[int, float]]  # of a method: metric → seed → value
Replicates = Mapping[int, Sequence[float]]  # of a metric: seed → its values on bootstrap samples of the examples


@dataclass(frozen=True)
class Estimate:
    """Mean of n values with its Student-t interval; all NaN if n is 0.

    Attributes:
        n: number of finite values.
        mean: their mean.
        sd: their standard deviation; NaN for n < 2.
        low: lower bound of the interval, mean − t · sd / √n, with t the quantile of n − 1 degrees of freedom; NaN for
            n < 3.
        high: upper bound, mean + t · sd / √n.
    """

    n: int
    mean: float
    sd: float
    low: float
    high: float


@dataclass(frozen=True)
class PairedTest:
    """Paired t-test of two methods over the seeds that both have.

    Attributes:
        difference: estimate of method − reference.
        p: two-sided p-value; NaN for fewer than three seeds, and if the difference is the same in all of them and
            not 0.
        holm: p-value after Holm's correction for all tests of the family.
    """

    difference: Estimate
    p: float
    holm: float = math.nan


@dataclass(frozen=True)
class Change:
    """Change of a metric from a reference to a method, over the seeds for which both have a value.

    Attributes:
        unit: `points` (hundredths) or `percent` of the reference.
        by_seed: seed → change, method − reference.
        method: mean of the method's metric over these seeds.
        reference: mean of the reference's metric over these seeds.
        denominator: value that percentages are relative to; 1 for points.
    """

    unit: str
    by_seed: Mapping[int, float]
    method: float
    reference: float
    denominator: float


def estimate(values: Sequence[float]) -> Estimate:
    """Compute the mean of the finite values and its interval.

    Args:
        values: any number of values.

    Returns:
        The estimate; values that are not finite are not counted.
    """
    finite = [value for value in values if math.isfinite(value)]
    n = len(finite)
    if n < 2:
        return Estimate(n, finite[0] if finite else math.nan, math.nan, math.nan, math.nan)
    mean, sd = fmean(finite), stdev(finite)
    half_width = _quantile(n - 1) * sd / math.sqrt(n) if n >= MIN_VALUES else math.nan
    return Estimate(n, mean, sd, mean - half_width, mean + half_width)


def compute_change(
    method: Mapping[int, float], reference: Mapping[int, float], bounded: bool, floor: float = 0.0
) -> Change:
    """Compute the change of one metric, paired by seed; seeds without a value on both sides are dropped.

    The change is in points, 100 (M_s − B_s), for a bounded metric. Otherwise it is in percent,
    100 (M_s − B_s) / max(|B̄|, floor), with B̄ the mean of the reference over the same seeds.

    Args:
        method: seed → value of the method.
        reference: seed → value of the reference.
        bounded: whether the best value of the metric is 1.
        floor: smallest denominator of percentages.

    Returns:
        The change; without seeds if no seed has both values, or if the denominator is 0.
    """
    seeds = [s for s in method if math.isfinite(method[s]) and math.isfinite(reference.get(s, math.nan))]
    unit = "points" if bounded else "percent"
    if not seeds:
        return Change(unit, {}, math.nan, math.nan, math.nan)
    method_mean, reference_mean = fmean(method[s] for s in seeds), fmean(reference[s] for s in seeds)
    denominator = 1.0 if bounded else max(abs(reference_mean), floor)
    by_seed = {s: 100 * (method[s] - reference[s]) / denominator for s in seeds} if denominator else {}
    return Change(unit, by_seed, method_mean, reference_mean, denominator)


def delta_m_of_changes(changes: Mapping[Metric, Change], higher_is_better: Mapping[Metric, bool]) -> dict[int, float]:
    """Compute Δm over the changes of the tasks' primary metrics; lower is better.

    Args:
        changes: metric → change. Metrics whose change has no seeds are left out.
        higher_is_better: metric → whether a higher value is better, in which case its changes are negated.

    Returns:
        seed → mean of the signed changes; seeds without a change of one of the metrics are missing.
    """
    signed = [
        {seed: (-value if higher_is_better[metric] else value) for seed, value in change.by_seed.items()}
        for metric, change in changes.items()
        if change.by_seed
    ]
    return {seed: value for seed, value in _mean_by_seed(signed).items() if math.isfinite(value)}


def example_error(method: Replicates, reference: Replicates, seeds: Sequence[int], denominator: float) -> float:
    """Compute the standard error of a mean change that is due to the sample of evaluated examples.

    It is the standard deviation, over bootstrap samples b of the examples, of the mean over the seeds of M_sb − B_sb.

    Args:
        method: seed → values of the metric on each bootstrap sample, for the method.
        reference: the same for the reference, on the same samples.
        seeds: seeds of the change.
        denominator: denominator of the change.

    Returns:
        The error in points or percent; NaN if a seed has no values, or the numbers of values differ.
    """
    if not seeds or any(not method.get(s) for s in seeds):
        return math.nan
    if len({len(values.get(s, ())) for values in (method, reference) for s in seeds}) > 1:
        return math.nan
    pairs = [zip(method[s], reference[s], strict=True) for s in seeds]
    by_seed = [[100 * (value - base) / denominator for value, base in pair] for pair in pairs]
    means = [value for values in zip(*by_seed, strict=True) if math.isfinite(value := fmean(values))]
    return stdev(means) if len(means) >= len(by_seed[0]) / 2 else math.nan


def relative_changes(
    scores: Scores, baseline: Scores, higher_is_better: Mapping[Metric, bool]
) -> dict[Metric, dict[int, float]]:
    """Compute the relative change of each metric in percent, as in the tables of Nash-MTL; lower is better.

        100 (−1)^[higher is better] (M_ks − B_ks) / |B̄_k|

    over the seeds for which both have a value. The papers have no negative metrics; for those, the absolute value in
    the denominator keeps the sign of the change.

    Args:
        scores: scores of a method.
        baseline: scores of the baseline.
        higher_is_better: metric → whether a higher value is better.

    Returns:
        metric → seed → change. A metric is missing if the baseline's mean is 0, or no seed has both values.
    """
    changes: dict[Metric, dict[int, float]] = {}
    for metric, base in baseline.items():
        by_seed = compute_change(scores.get(metric, {}), base, bounded=False).by_seed
        if by_seed:
            changes[metric] = {seed: -value if higher_is_better[metric] else value for seed, value in by_seed.items()}
    return changes


def delta_m(changes: Mapping[Metric, Mapping[int, float]]) -> dict[int, float]:
    """Compute the flat Δm, over all metrics.

    Args:
        changes: metric → seed → relative change in percent.

    Returns:
        seed → mean of the changes; NaN if one is missing.
    """
    return _mean_by_seed(list(changes.values()))


def delta_m_by_task(changes: Mapping[Metric, Mapping[int, float]]) -> dict[int, float]:
    """Compute Δm by task.

    Args:
        changes: metric → seed → relative change in percent.

    Returns:
        seed → mean over the tasks of the mean over the metrics of each; NaN if a change is missing.
    """
    tasks = dict.fromkeys(task for task, _ in changes)
    return _mean_by_seed(
        [_mean_by_seed([change for (other, _), change in changes.items() if other == task]) for task in tasks]
    )


def mean_ranks(methods: Mapping[str, Scores], higher_is_better: Mapping[Metric, bool]) -> dict[str, float]:
    """Compute the mean rank (MR) of each method over the metrics; 1 is best, and ties share the mean of their ranks.

    Methods are ranked by their means over the seeds for which all of them have the metric. A metric without such a
    seed has no ranks.

    Args:
        methods: label → scores.
        higher_is_better: metric → whether a higher value is better.

    Returns:
        label → mean rank; NaN for methods without any value, which are not ranked.
    """
    ranked = {m: f for m, f in methods.items() if any(map(math.isfinite, chain(*(v.values() for v in f.values()))))}
    ranks: dict[str, list[float]] = {method: [] for method in ranked}
    for metric, up in higher_is_better.items():
        values = [scores.get(metric, {}) for scores in ranked.values()]
        seeds = [s for s in (values[0] if values else ()) if all(math.isfinite(v.get(s, math.nan)) for v in values)]
        if not seeds:
            continue
        means = {method: fmean(v[s] for s in seeds) for method, v in zip(ranked, values, strict=True)}
        for method, mean in means.items():
            better = sum(value > mean if up else value < mean for value in means.values())
            equal = sum(value == mean for value in means.values())
            ranks[method].append(better + (equal + 1) / 2)
    return {method: fmean(ranks[method]) if ranks.get(method) else math.nan for method in methods}


def paired_test(values: Mapping[int, float], reference: Mapping[int, float]) -> PairedTest:
    """Test the difference of two methods with a paired t-test over the seeds that both have.

    Args:
        values: seed → value of the method.
        reference: seed → value of the reference.

    Returns:
        The test, without a correction for multiple tests.
    """
    differences = [values[seed] - reference[seed] for seed in values if seed in reference]
    difference = estimate(differences)
    if difference.n < MIN_VALUES:
        return PairedTest(difference, math.nan)
    size = max(abs(values[seed]) + abs(reference[seed]) for seed in values if seed in reference)
    if difference.sd <= ROUNDING * size:  # t is 0/0, or a number over 0
        return PairedTest(difference, 1.0 if abs(difference.mean) <= ROUNDING * size else math.nan)
    t = difference.mean / (difference.sd / math.sqrt(difference.n))
    return PairedTest(difference, 2 * _upper_tail(abs(t), difference.n - 1))


def holm(p_values: Sequence[float]) -> list[float]:
    """Apply Holm's step-down correction, p_(i) → max over j ≤ i of min(1, (m − j + 1) p_(j)) for m tests.

    Args:
        p_values: p-values; NaN entries are not counted as tests.

    Returns:
        The corrected p-values in the same order.
    """
    order = sorted((index for index, p in enumerate(p_values) if math.isfinite(p)), key=lambda index: p_values[index])
    corrected = [math.nan] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * p_values[index]))
        corrected[index] = largest
    return corrected


@cache
def _quantile(degrees_of_freedom: int) -> float:
    """Return the two-sided quantile of Student's distribution at CONFIDENCE."""
    from scipy import stats

    return float(stats.t.ppf((1 + CONFIDENCE) / 2, degrees_of_freedom))  # type: ignore[attr-defined]


def _upper_tail(t: float, degrees_of_freedom: int) -> float:
    """Return the probability that Student's distribution exceeds t."""
    from scipy import stats

    return float(stats.t.sf(t, degrees_of_freedom))  # type: ignore[attr-defined]


def _mean_by_seed(terms: Sequence[Mapping[int, float]]) -> dict[int, float]:
    """Average over the terms for each seed; NaN if one of them lacks it."""
    seeds = dict.fromkeys(seed for term in terms for seed in term)
    return {seed: math.fsum(term.get(seed, math.nan) for term in terms) / len(terms) for seed in seeds}
