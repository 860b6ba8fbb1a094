"""Differences of the methods from a reference, by task and averaged over the tasks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from mtlcli.studies.compare.statistics import (
    CONFIDENCE,
    Change,
    Estimate,
    Metric,
    PairedTest,
    Replicates,
    Scores,
    compute_change,
    delta_m_of_changes,
    estimate,
    example_error,
    holm,
    paired_test,
)

SIGNIFICANCE = 1 - CONFIDENCE  # a difference with a smaller corrected p-value is significant
NORMAL_QUANTILE = 1.959963984540054  # of a 95 % interval


@dataclass(frozen=True)
class Scale:
    """Unit and direction of the changes of a metric.

    Attributes:
        higher_is_better: whether a higher value is better.
        bounded: whether its best value is 1, so that changes are in points and not in percent.
        floor: smallest denominator of percentages.
    """

    higher_is_better: bool
    bounded: bool
    floor: float = 0.0


@dataclass(frozen=True)
class MethodScores:
    """Scores of a method, or of the baselines.

    Attributes:
        scores: metric → seed → value.
        replicates: metric → seed → values on bootstrap samples of the evaluated examples.
    """

    scores: Scores
    replicates: Mapping[Metric, Replicates]


@dataclass(frozen=True)
class Difference:
    """Difference of a method from the reference in one metric.

    Attributes:
        change: change of the metric by seed.
        estimate: mean change over the seeds, with its interval.
        test: paired test of the values; its correction is for all methods and tasks.
        example_error: standard error of the change that is due to the sample of evaluated examples.
        higher_is_better: whether a higher value of the metric is better.
    """

    change: Change
    estimate: Estimate
    test: PairedTest
    example_error: float
    higher_is_better: bool

    @property
    def improvement(self) -> float:
        """The mean change, positive if the method is better."""
        return self.estimate.mean if self.higher_is_better else -self.estimate.mean

    @property
    def significant(self) -> bool:
        """True if the difference is significant over the seeds."""
        return self.test.holm < SIGNIFICANCE

    @property
    def exceeds_example_error(self) -> bool:
        """True if the change exceeds the uncertainty of the evaluated examples, or if that is unknown."""
        return not abs(self.estimate.mean) <= NORMAL_QUANTILE * self.example_error


@dataclass(frozen=True)
class PairedComparison:
    """A method compared with a reference.

    Attributes:
        metrics: metric → difference, for all metrics of all tasks.
        primary: task → its primary metric.
        delta_m: seed → Δm over the primary metrics; lower is better.
        test: test of Δm against 0; its correction is for all methods.
        contributions: task → its contribution to the mean of Δm; they sum to it.
    """

    metrics: Mapping[Metric, Difference]
    primary: Mapping[str, Metric]
    delta_m: Mapping[int, float]
    test: PairedTest
    contributions: Mapping[str, float]

    @property
    def tasks(self) -> dict[str, Difference]:
        """Task → the difference in its primary metric."""
        return {task: self.metrics[metric] for task, metric in self.primary.items()}

    @property
    def excluded_tasks(self) -> list[str]:
        """Tasks that Δm does not include, since no seed has a value on both sides."""
        return [task for task in self.primary if task not in self.contributions]

    @property
    def largest_contribution(self) -> str | None:
        """The task with the largest contribution to Δm; None if all are 0."""
        largest = max(self.contributions, key=lambda task: abs(self.contributions[task]), default=None)
        return largest if largest is not None and self.contributions[largest] else None


def compare_with(
    reference: MethodScores,
    methods: Mapping[str, MethodScores],
    scales: Mapping[Metric, Scale],
    primary: Mapping[str, Metric],
) -> dict[str, PairedComparison]:
    """Compare each method with a reference. The p-values are corrected (Holm) over all methods and their tasks.

    Args:
        reference: scores of the reference.
        methods: label → scores.
        scales: metric → scale, for all metrics to compare.
        primary: task → its primary metric.

    Returns:
        label → comparison.
    """
    comparisons = {label: _compare(method, reference, scales, primary) for label, method in methods.items()}
    task_p = iter(
        holm([difference.test.p for comparison in comparisons.values() for difference in comparison.tasks.values()])
    )
    delta_m_p = iter(holm([comparison.test.p for comparison in comparisons.values()]))
    corrected = {}
    for label, comparison in comparisons.items():
        metrics = dict(comparison.metrics)
        for metric in primary.values():
            metrics[metric] = replace(metrics[metric], test=replace(metrics[metric].test, holm=next(task_p)))
        corrected[label] = replace(comparison, metrics=metrics, test=replace(comparison.test, holm=next(delta_m_p)))
    return corrected


def _compare(
    method: MethodScores, reference: MethodScores, scales: Mapping[Metric, Scale], primary: Mapping[str, Metric]
) -> PairedComparison:
    metrics = {metric: _difference(method, reference, metric, scale) for metric, scale in scales.items()}
    changes = {metric: metrics[metric].change for metric in primary.values()}
    delta_m = delta_m_of_changes(changes, {metric: scale.higher_is_better for metric, scale in scales.items()})
    contributions = {}
    for task, metric in primary.items():
        if changes[metric].by_seed and delta_m:
            included = sum(bool(change.by_seed) for change in changes.values())
            contributions[task] = -_improvement(metrics[metric], list(delta_m)) / included
    return PairedComparison(metrics, primary, delta_m, paired_test(delta_m, dict.fromkeys(delta_m, 0.0)), contributions)


def _difference(method: MethodScores, reference: MethodScores, metric: Metric, scale: Scale) -> Difference:
    values, base = method.scores.get(metric, {}), reference.scores.get(metric, {})
    change = compute_change(values, base, scale.bounded, scale.floor)
    seeds = list(change.by_seed)
    test = paired_test({seed: values[seed] for seed in seeds}, {seed: base[seed] for seed in seeds})
    error = example_error(
        method.replicates.get(metric, {}), reference.replicates.get(metric, {}), seeds, change.denominator
    )
    return Difference(change, estimate(list(change.by_seed.values())), test, error, scale.higher_is_better)


def _improvement(difference: Difference, seeds: Sequence[int]) -> float:
    mean = math.fsum(difference.change.by_seed[seed] for seed in seeds) / len(seeds)
    return mean if difference.higher_is_better else -mean
