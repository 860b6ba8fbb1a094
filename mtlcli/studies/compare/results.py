"""Scores of a study's runs, and the statistics computed from them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from mtlcli.metric_names import is_bounded
from mtlcli.studies.compare.differences import MethodScores, PairedComparison, Scale, compare_with
from mtlcli.studies.compare.execution import COSTS, Metrics, Outcome
from mtlcli.studies.compare.plan import BASELINE, Method, Plan
from mtlcli.studies.compare.statistics import (
    Estimate,
    Metric,
    PairedTest,
    Scores,
    delta_m,
    delta_m_by_task,
    estimate,
    holm,
    mean_ranks,
    paired_test,
    relative_changes,
)
from mtlcli.studies.compare.tuning import Choice

Outcomes = Mapping[Method, Sequence[Outcome]]
Selector = Callable[[Outcome], Metrics]  # selects the metrics of one split


@dataclass(frozen=True)
class Results:
    """Results of a comparison.

    Attributes:
        plan: the plan of the study.
        choices: the selected grid point of every method and every baseline.
        outcomes: the outcomes of every method and every baseline, one for each seed.
    """

    plan: Plan
    choices: Mapping[Method, Choice]
    outcomes: Outcomes

    @cached_property
    def higher_is_better(self) -> dict[Metric, bool]:
        """Metric → whether a higher value is better, for all metrics that are compared."""
        directions = self.plan.directions
        return {
            (task, name): direction == "max"
            for task, metrics in directions.items()
            for name, direction in metrics.items()
        }

    @cached_property
    def primary(self) -> dict[str, Metric]:
        """Task → its primary metric."""
        return {task: (task, next(iter(metrics))) for task, metrics in self.plan.directions.items()}

    @cached_property
    def split(self) -> str:
        """The split of the final scores: `test` if the data has one, else the evaluated split."""
        return next((run.split for outcomes in self.outcomes.values() for run in outcomes if run.completed), "test")

    def examples(self, task: str) -> int | None:
        """Return the number of labelled examples of a task in the final scores; None if no run has recorded it."""
        counts = [run.examples[task] for outcomes in self.outcomes.values() for run in outcomes if task in run.examples]
        return max(counts, default=None)

    @cached_property
    def baseline(self) -> Scores:
        """Scores of the baselines on the final split, each task's from its own runs."""
        return self._baseline_scores(lambda run: run.test)

    @cached_property
    def excluded_metrics(self) -> list[Metric]:
        """Metrics that the flat Δm does not include, since the baseline has no mean of them, or 0."""
        included = relative_changes(self.baseline, self.baseline, self.higher_is_better)
        return [metric for metric in self.higher_is_better if metric not in included]

    def scores(self, method: Method) -> Scores:
        """Return the scores of a method on the final split: metric → seed → value."""
        return self._scores(self.outcomes[method], lambda run: run.test)

    @cached_property
    def last_epochs(self) -> int | None:
        """Number of the last epochs over which runs average their metrics, too; None if they don't."""
        return self.plan.experiment.evaluation.last

    def last_scores(self, method: Method) -> Scores:
        """Return the scores of a method as means over the last epochs."""
        return self._scores(self.outcomes[method], lambda run: run.last)

    @cached_property
    def last_baseline(self) -> Scores:
        """Scores of the baselines as means over the last epochs."""
        return self._baseline_scores(lambda run: run.last)

    @cached_property
    def scales(self) -> dict[Metric, Scale]:
        """Unit, direction and floor of the changes of each metric, as the kind of its task declares them."""
        scales = {}
        for task in self.plan.tasks:
            kind = self.plan.kinds[task]
            names = [name for other, name in self.higher_is_better if other == task]
            means = {name: estimate(list(self.baseline[task, name].values())).mean for name in names}
            floors = kind.negligible_errors(means) if all(map(math.isfinite, means.values())) else {}
            for name in names:
                higher = self.higher_is_better[task, name]
                scales[task, name] = Scale(higher, is_bounded(name, kind), floors.get(name, 0.0))
        return scales

    @cached_property
    def comparisons(self) -> dict[str, dict[str, PairedComparison]]:
        """Reference → method → comparison; the references are the single-task baselines and the reference method."""
        methods = {method.label: self._method_scores(method) for method in self.plan.methods}
        comparisons = {BASELINE: compare_with(self._baseline_method_scores, methods, self.scales, self.primary)}
        if len(methods) > 1:
            reference = self.plan.reference.label
            others = {label: scores for label, scores in methods.items() if label != reference}
            comparisons[reference] = compare_with(methods[reference], others, self.scales, self.primary)
        return comparisons

    def relative_changes(self, method: Method) -> dict[Metric, dict[int, float]]:
        """Return the changes relative to the baseline in percent; see `statistics.relative_changes`."""
        return relative_changes(self.scores(method), self.baseline, self.higher_is_better)

    @cached_property
    def delta_m(self) -> dict[Method, dict[int, float]]:
        """Method → seed → flat Δm, over all metrics."""
        return {method: delta_m(self.relative_changes(method)) for method in self.plan.methods}

    def delta_m_by_task(self, method: Method) -> dict[int, float]:
        """Return seed → Δm by task, the mean over the tasks of the mean over their metrics."""
        return delta_m_by_task(self.relative_changes(method))

    def delta_m_of_tasks(self, method: Method) -> dict[str, Estimate]:
        """Return task → Δm over the metrics of the task."""
        changes = self.relative_changes(method)
        by_task = {task: {m: change for m, change in changes.items() if m[0] == task} for task in self.plan.tasks}
        return {task: estimate(list(delta_m(changes).values())) for task, changes in by_task.items()}

    @cached_property
    def ranks(self) -> dict[str, float]:
        """Mean rank of each method over all metrics; the baselines are not ranked."""
        return mean_ranks({method.label: self.scores(method) for method in self.plan.methods}, self.higher_is_better)

    @cached_property
    def tests(self) -> dict[Method, PairedTest]:
        """Tests of the flat Δm of each method against that of the reference method, with Holm's correction."""
        reference = self.plan.reference
        tests = {
            method: paired_test(_finite(self.delta_m[method]), _finite(self.delta_m[reference]))
            for method in self.plan.methods
            if method is not reference
        }
        corrected = holm([test.p for test in tests.values()])
        return {method: replace(test, holm=p) for (method, test), p in zip(tests.items(), corrected, strict=True)}

    def gaps(self, method: Method) -> dict[str, dict[int, float]]:
        """Return the generalization gap of a method.

        Args:
            method: the method.

        Returns:
            task → seed → how much worse the primary metric is on the final split than on `train`.
        """
        train = self._scores(self.outcomes[method], lambda run: run.train)
        return self._gaps(self.scores(method), train)

    @cached_property
    def baseline_gaps(self) -> dict[str, dict[int, float]]:
        """Generalization gap of the baselines: task → seed → gap."""
        return self._gaps(self.baseline, self._baseline_scores(lambda run: run.train))

    def cost(self, method: Method) -> dict[str, float]:
        """Return the cost of a run of a method, as means over the seeds; NaN if all have failed."""
        completed = [run for run in self.outcomes[method] if run.completed]
        return {name: estimate([run.cost[name] for run in completed]).mean for name in COSTS}

    @cached_property
    def baseline_cost(self) -> dict[str, float]:
        """Sum of the costs of the single-task models."""
        costs = [self.cost(method) for method in self.plan.baselines]
        return {name: math.fsum(cost[name] for cost in costs) for name in COSTS}

    @cached_property
    def largest_baseline_memory(self) -> float:
        """Peak memory of training the single-task models one after another, which is that of the largest."""
        sizes = [self.cost(method)["peak_memory_bytes"] for method in self.plan.baselines]
        return max(sizes) if all(map(math.isfinite, sizes)) else math.nan

    def failed(self) -> list[Outcome]:
        """Return the outcomes of the failed runs."""
        return [run for outcomes in self.outcomes.values() for run in outcomes if not run.completed]

    def _scores(self, outcomes: Sequence[Outcome], select: Selector) -> dict[Metric, dict[int, float]]:
        completed = [run for run in outcomes if run.completed]
        return {
            (task, name): {run.run.seed: select(run)[task][name] for run in completed if task in select(run)}
            for task, name in self.higher_is_better
        }

    def _method_scores(self, method: Method) -> MethodScores:
        return MethodScores(self.scores(method), self._replicates(method))

    @cached_property
    def _baseline_method_scores(self) -> MethodScores:
        replicates = {method.task: self._replicates(method) for method in self.plan.baselines}
        return MethodScores(self.baseline, {metric: replicates[metric[0]][metric] for metric in self.higher_is_better})

    def _replicates(self, method: Method) -> dict[Metric, dict[int, Sequence[float]]]:
        completed = [run for run in self.outcomes[method] if run.completed]
        return {
            (task, name): {run.run.seed: run.resampled.get(task, {}).get(name, ()) for run in completed}
            for task, name in self.higher_is_better
        }

    def _baseline_scores(self, select: Selector) -> dict[Metric, dict[int, float]]:
        scores: dict[Metric, dict[int, float]] = {}
        for method in self.plan.baselines:
            values = self._scores(self.outcomes[method], select)
            scores |= {metric: values[metric] for metric in values if metric[0] == method.task}
        return {metric: scores[metric] for metric in self.higher_is_better}

    def _gaps(self, final: Scores, train: Scores) -> dict[str, dict[int, float]]:
        gaps = {}
        for task, metric in self.primary.items():
            sign = 1 if self.higher_is_better[metric] else -1
            gaps[task] = {seed: sign * (train[metric][seed] - value) for seed, value in final[metric].items()}
        return gaps


def _finite(values: Mapping[int, float]) -> dict[int, float]:
    return {seed: value for seed, value in values.items() if math.isfinite(value)}
