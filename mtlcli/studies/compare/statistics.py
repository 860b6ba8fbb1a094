"""The statistics of a comparison: plain arithmetic on figures, of which it knows nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import chain
from statistics import fmean, stdev

CONFIDENCE = 0.95
FEWEST = 3  # values an interval or a test needs: of two, Student's quantile is 12.7 and the interval says nothing
ROUNDING = 1e-12  # of the values' size: a standard deviation below it is rounding
Metric = tuple[str, str]  # task, name
Figures = Mapping[Metric, Mapping[int, float]]  # of a method: metric → seed → value
Replicates = Mapping[int, Sequence[float]]  # of a metric: seed → its values on bootstrap samples of the examples


@dataclass(frozen=True)
class Estimate:
    """Mean of n values with its Student-t interval; all NaN where n is 0.

    sd: NaN for n < 2. low, high: mean ∓ t · sd / √n, with t the quantile of n − 1 degrees of freedom; NaN for n < 3.
    """

    n: int
    mean: float
    sd: float
    low: float
    high: float


@dataclass(frozen=True)
class PairedTest:
    """A paired t test of two methods over the seeds both have.

    difference: method − reference. p: two-sided; NaN for fewer than three seeds, and where the difference is the same
    in all of them and not 0. holm: corrected for all tests of the family.
    """

    difference: Estimate
    p: float
    holm: float = math.nan


@dataclass(frozen=True)
class Change:
    """Change of a metric from a reference to a method, over the seeds in which both have a value.

    unit: `points` (hundredths) or `percent` of the reference. seeds: seed → change, method − reference.
    own, reference: means of the metric over these seeds. denominator: what percentages are of; 1 for points.
    """

    unit: str
    seeds: Mapping[int, float]
    own: float
    reference: float
    denominator: float


def estimate(values: Sequence[float]) -> Estimate:
    """Mean and interval of the values that are finite."""
    known = [value for value in values if math.isfinite(value)]
    n = len(known)
    if n < 2:
        return Estimate(n, known[0] if known else math.nan, math.nan, math.nan, math.nan)
    mean, sd = fmean(known), stdev(known)
    half = _quantile(n - 1) * sd / math.sqrt(n) if n >= FEWEST else math.nan
    return Estimate(n, mean, sd, mean - half, mean + half)


def change(own: Mapping[int, float], reference: Mapping[int, float], bounded: bool, floor: float = 0.0) -> Change:
    """Change of one metric, paired by seed: seeds that one of the two lacks are dropped from both.

    In points, 100 (M_s − B_s), for a bounded metric; else in percent, 100 (M_s − B_s) / max(|B̄|, floor) with B̄ the
    mean of the reference over the same seeds. Percentages of 0 don't exist: then there are no seeds.
    """
    seeds = [s for s in own if math.isfinite(own[s]) and math.isfinite(reference.get(s, math.nan))]
    unit = "points" if bounded else "percent"
    if not seeds:
        return Change(unit, {}, math.nan, math.nan, math.nan)
    ours, theirs = fmean(own[s] for s in seeds), fmean(reference[s] for s in seeds)
    denominator = 1.0 if bounded else max(abs(theirs), floor)
    found = {s: 100 * (own[s] - reference[s]) / denominator for s in seeds} if denominator else {}
    return Change(unit, found, ours, theirs, denominator)


def delta_of_changes(changes: Mapping[Metric, Change], rises: Mapping[Metric, bool]) -> dict[int, float]:
    """Δm over the changes of the tasks' primary metrics: seed → mean of ∓ change, less being better.

    Metrics without any change are left out; a seed that lacks one of the others has no Δm.
    """
    parts = [{s: (-v if rises[metric] else v) for s, v in c.seeds.items()} for metric, c in changes.items() if c.seeds]
    return {seed: value for seed, value in _means(parts).items() if math.isfinite(value)}


def example_error(own: Replicates, reference: Replicates, seeds: Sequence[int], denominator: float) -> float:
    """Standard error, in points or percent, of a change's mean that comes from the choice of the evaluated examples.

    The standard deviation over bootstrap samples of the examples, of the mean over the seeds of M_sb − B_sb.
    own, reference: seed → values of the metric on the same samples. NaN where a seed has none, or not as many.
    """
    if not seeds or any(not own.get(s) for s in seeds):
        return math.nan
    if len({len(values.get(s, ())) for values in (own, reference) for s in seeds}) > 1:
        return math.nan
    pairs = [zip(own[s], reference[s], strict=True) for s in seeds]
    by_seed = [[100 * (ours - theirs) / denominator for ours, theirs in pair] for pair in pairs]
    means = [value for values in zip(*by_seed, strict=True) if math.isfinite(value := fmean(values))]
    return stdev(means) if len(means) >= len(by_seed[0]) / 2 else math.nan


def relative(figures: Figures, baseline: Figures, rises: Mapping[Metric, bool]) -> dict[Metric, dict[int, float]]:
    """Relative change of each metric in percent, as in the tables of Nash-MTL: metric → seed → value; less is better.

        100 (−1)^[more is better] (M_ks − B_ks) / |B̄_k|

    over the seeds in which both have a value. |·|: papers have no negative metrics; for others it is the same. A metric
    is left out where the baseline's mean is 0, or no seed has both.
    """
    found: dict[Metric, dict[int, float]] = {}
    for metric, base in baseline.items():
        seeds = change(figures.get(metric, {}), base, bounded=False).seeds
        if seeds:
            found[metric] = {seed: -value if rises[metric] else value for seed, value in seeds.items()}
    return found


def delta_m(changes: Mapping[Metric, Mapping[int, float]]) -> dict[int, float]:
    """Δm over all metrics, flat: seed → mean of the changes. NaN where one is missing."""
    return _means(list(changes.values()))


def delta_m_by_task(changes: Mapping[Metric, Mapping[int, float]]) -> dict[int, float]:
    """Δm over the tasks: seed → mean over the tasks of the means over their metrics."""
    tasks = dict.fromkeys(task for task, _ in changes)
    return _means([_means([change for (own, _), change in changes.items() if own == task]) for task in tasks])


def mean_ranks(methods: Mapping[str, Figures], rises: Mapping[Metric, bool]) -> dict[str, float]:
    """Method → mean over the metrics of its rank among the methods, 1 the best; ties share the mean of their ranks.

    Ranks are of means over the seeds in which all ranked methods have the metric; a metric without such a seed has no
    ranks. Methods without any value are not ranked: NaN.
    """
    ranked = {m: f for m, f in methods.items() if any(map(math.isfinite, chain(*(v.values() for v in f.values()))))}
    ranks: dict[str, list[float]] = {method: [] for method in ranked}
    for metric, up in rises.items():
        values = [figures.get(metric, {}) for figures in ranked.values()]
        seeds = [s for s in (values[0] if values else ()) if all(math.isfinite(v.get(s, math.nan)) for v in values)]
        if not seeds:
            continue
        means = {method: fmean(v[s] for s in seeds) for method, v in zip(ranked, values, strict=True)}
        for method, own in means.items():
            better = sum(value > own if up else value < own for value in means.values())
            equal = sum(value == own for value in means.values())
            ranks[method].append(better + (equal + 1) / 2)
    return {method: fmean(ranks[method]) if ranks.get(method) else math.nan for method in methods}


def paired_test(values: Mapping[int, float], reference: Mapping[int, float]) -> PairedTest:
    """Paired t test of two methods' values by seed, over the seeds that both have."""
    differences = [values[seed] - reference[seed] for seed in values if seed in reference]
    difference = estimate(differences)
    if difference.n < FEWEST:
        return PairedTest(difference, math.nan)
    size = max(abs(values[seed]) + abs(reference[seed]) for seed in values if seed in reference)
    if difference.sd <= ROUNDING * size:  # t is 0/0, or a number over 0
        return PairedTest(difference, 1.0 if abs(difference.mean) <= ROUNDING * size else math.nan)
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
