"""Differences of the methods from a reference, task by task and over the tasks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from mtlcli.studies.compare.statistics import (
    CONFIDENCE,
    Change,
    Estimate,
    Figures,
    Metric,
    PairedTest,
    Replicates,
    change,
    delta_of_changes,
    estimate,
    example_error,
    holm,
    paired_test,
)

SIGNIFICANT = 1 - CONFIDENCE  # p-values below it
NORMAL_QUANTILE = 1.959963984540054  # of a 95 % interval


@dataclass(frozen=True)
class Scale:
    """Unit and direction of the changes of a metric. floor: smallest denominator of percentages."""

    rises: bool
    bounded: bool
    floor: float = 0.0


@dataclass(frozen=True)
class Side:
    """The values of a method, or of the baselines: metric → seed → value, and the same of bootstrap samples."""

    figures: Figures
    replicates: Mapping[Metric, Replicates]


@dataclass(frozen=True)
class Difference:
    """Difference of a method from the reference in one metric.

    estimate: of the change over the seeds. test: of the values, paired by seed; its correction is for all methods and
    tasks. example_error: standard error of the change that comes from the choice of the evaluated examples.
    """

    change: Change
    estimate: Estimate
    test: PairedTest
    example_error: float
    rises: bool

    @property
    def gain(self) -> float:
        """The mean change, positive where the method is better."""
        return self.estimate.mean if self.rises else -self.estimate.mean

    @property
    def significant(self) -> bool:
        """True where the difference is significant over the seeds."""
        return self.test.holm < SIGNIFICANT

    @property
    def beyond_examples(self) -> bool:
        """True where the change exceeds the uncertainty of the evaluated examples, or where that is unknown."""
        return not abs(self.estimate.mean) <= NORMAL_QUANTILE * self.example_error


@dataclass(frozen=True)
class Against:
    """A method against the reference.

    metrics: of every metric of every task. delta: Δm over the primary metrics, by seed, less being better. test: of
    Δm against 0; its correction is for all methods. parts: task → its part of Δm, their sum being its mean.
    """

    metrics: Mapping[Metric, Difference]
    primary: Mapping[str, Metric]
    delta: Mapping[int, float]
    test: PairedTest
    parts: Mapping[str, float]

    @property
    def tasks(self) -> dict[str, Difference]:
        """task → the difference in its primary metric."""
        return {task: self.metrics[metric] for task, metric in self.primary.items()}

    @property
    def left_out(self) -> list[str]:
        """Tasks that have no part in Δm, as the two share no seed with a value."""
        return [task for task in self.primary if task not in self.parts]

    @property
    def largest(self) -> str | None:
        """The task with the largest part of Δm; None where all parts are 0."""
        largest = max(self.parts, key=lambda task: abs(self.parts[task]), default=None)
        return largest if largest is not None and self.parts[largest] else None


def against(
    methods: Mapping[str, Side], reference: Side, scales: Mapping[Metric, Scale], primary: Mapping[str, Metric]
) -> dict[str, Against]:
    """Each method against the reference. The p-values are corrected (Holm) over all methods and their tasks.

    scales: of the metrics that are compared.
    """
    found = {label: _against(side, reference, scales, primary) for label, side in methods.items()}
    corrected = iter(holm([one.test.p for part in found.values() for one in part.tasks.values()]))
    overall = iter(holm([part.test.p for part in found.values()]))
    settled = {}
    for label, part in found.items():
        metrics = dict(part.metrics)
        for metric in primary.values():
            metrics[metric] = replace(metrics[metric], test=replace(metrics[metric].test, holm=next(corrected)))
        settled[label] = replace(part, metrics=metrics, test=replace(part.test, holm=next(overall)))
    return settled


def _against(method: Side, reference: Side, scales: Mapping[Metric, Scale], primary: Mapping[str, Metric]) -> Against:
    metrics = {metric: _difference(method, reference, metric, scale) for metric, scale in scales.items()}
    changes = {metric: metrics[metric].change for metric in primary.values()}
    delta = delta_of_changes(changes, {metric: scale.rises for metric, scale in scales.items()})
    parts = {}
    for task, metric in primary.items():
        seeds = changes[metric].seeds
        if seeds and delta:
            parts[task] = -_gain(metrics[metric], list(delta)) / sum(bool(c.seeds) for c in changes.values())
    return Against(metrics, primary, delta, paired_test(delta, dict.fromkeys(delta, 0.0)), parts)


def _difference(method: Side, reference: Side, metric: Metric, scale: Scale) -> Difference:
    own, theirs = method.figures.get(metric, {}), reference.figures.get(metric, {})
    found = change(own, theirs, scale.bounded, scale.floor)
    seeds = list(found.seeds)
    test = paired_test({seed: own[seed] for seed in seeds}, {seed: theirs[seed] for seed in seeds})
    error = example_error(
        method.replicates.get(metric, {}), reference.replicates.get(metric, {}), seeds, found.denominator
    )
    return Difference(found, estimate(list(found.seeds.values())), test, error, scale.rises)


def _gain(difference: Difference, seeds: Sequence[int]) -> float:
    mean = math.fsum(difference.change.seeds[seed] for seed in seeds) / len(seeds)
    return mean if difference.rises else -mean
