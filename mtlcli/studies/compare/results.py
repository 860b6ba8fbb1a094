"""The figures of a study's runs, and what the statistics make of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from mtlcli.studies.compare.differences import Against, Scale, Side, against
from mtlcli.studies.compare.execution import COSTS, Metrics, Outcome
from mtlcli.studies.compare.plan import BASELINE, Method, Plan
from mtlcli.studies.compare.statistics import (
    Estimate,
    Figures,
    Metric,
    PairedTest,
    delta_m,
    delta_m_by_task,
    estimate,
    holm,
    mean_ranks,
    paired_test,
    relative,
)
from mtlcli.studies.compare.tuning import Choice

Outcomes = Mapping[Method, Sequence[Outcome]]
Part = Callable[[Outcome], Metrics]


@dataclass(frozen=True)
class Results:
    """choices, outcomes: of every method and every baseline."""

    plan: Plan
    choices: Mapping[Method, Choice]
    outcomes: Outcomes

    @cached_property
    def rises(self) -> dict[Metric, bool]:
        """Every metric that is compared → whether more of it is better."""
        directions = self.plan.directions
        return {(task, name): way == "max" for task, found in directions.items() for name, way in found.items()}

    @cached_property
    def primary(self) -> dict[str, Metric]:
        """task → its primary metric."""
        return {task: (task, next(iter(metrics))) for task, metrics in self.plan.directions.items()}

    @cached_property
    def split(self) -> str:
        """What the final figures are of: `test`, where the data has one."""
        return next((one.split for group in self.outcomes.values() for one in group if one.done), "test")

    def examples(self, task: str) -> int | None:
        """Labelled examples of a task that the final metrics are computed over; None where no run knows."""
        known = [one.examples[task] for group in self.outcomes.values() for one in group if task in one.examples]
        return max(known, default=None)

    @cached_property
    def baseline(self) -> dict[Metric, dict[int, float]]:
        """The baselines' figures, each task's from its own runs."""
        return self._of_baselines(lambda one: one.test)

    @cached_property
    def left_out(self) -> list[Metric]:
        """Metrics that have no part in the flat Δm, as the baseline has no mean of them, or 0."""
        return [metric for metric in self.rises if metric not in relative(self.baseline, self.baseline, self.rises)]

    def figures(self, method: Method) -> dict[Metric, dict[int, float]]:
        """A method's figures on the final split: metric → seed → value."""
        return self._figures(self.outcomes[method], lambda one: one.test)

    @cached_property
    def scales(self) -> dict[Metric, Scale]:
        """Unit, direction and floor of the changes of each metric, as its task's kind declares them."""
        found = {}
        for task in self.plan.tasks:
            kind = self.plan.kind(task)
            means = {name: estimate(list(self.baseline[t, name].values())).mean for t, name in self.rises if t == task}
            floors = kind.negligible_errors(means) if all(map(math.isfinite, means.values())) else {}
            for name in means:
                metric = task, name
                found[metric] = Scale(self.rises[metric], name in kind.bounded, floors.get(name, 0.0))
        return found

    @cached_property
    def references(self) -> dict[str, dict[str, Against]]:
        """Reference → method → the differences: from the single-task baselines, and from the reference method."""
        sides = {method.label: self._side(method) for method in self.plan.methods}
        found = {BASELINE: against(sides, self._baseline_side, self.scales, self.primary)}
        if len(sides) > 1:
            reference = self.plan.reference.label
            others = {label: side for label, side in sides.items() if label != reference}
            found[reference] = against(others, sides[reference], self.scales, self.primary)
        return found

    def changes(self, method: Method) -> dict[Metric, dict[int, float]]:
        """Relative to the baseline, in percent: see `statistics.relative`."""
        return relative(self.figures(method), self.baseline, self.rises)

    @cached_property
    def delta(self) -> dict[Method, dict[int, float]]:
        """Flat Δm over all metrics, of each method and seed."""
        return {method: delta_m(self.changes(method)) for method in self.plan.methods}

    def delta_by_task(self, method: Method) -> dict[int, float]:
        return delta_m_by_task(self.changes(method))

    def delta_of_tasks(self, method: Method) -> dict[str, Estimate]:
        """task → Δm over its metrics."""
        changes = self.changes(method)
        parts = {task: {key: c for key, c in changes.items() if key[0] == task} for task in self.plan.tasks}
        return {task: estimate(list(delta_m(part).values())) for task, part in parts.items()}

    @cached_property
    def ranks(self) -> dict[str, float]:
        """Mean rank of each method over all metrics; the baselines take no part."""
        return mean_ranks({method.label: self.figures(method) for method in self.plan.methods}, self.rises)

    @cached_property
    def tests(self) -> dict[Method, PairedTest]:
        """Each method but the reference against it, by flat Δm, with Holm's correction."""
        reference = self.plan.reference
        found = {
            method: paired_test(_finite(self.delta[method]), _finite(self.delta[reference]))
            for method in self.plan.methods
            if method is not reference
        }
        corrected = holm([test.p for test in found.values()])
        return {method: replace(test, holm=p) for (method, test), p in zip(found.items(), corrected, strict=True)}

    def gaps(self, method: Method) -> dict[str, dict[int, float]]:
        """task → seed → how much worse its primary metric is on the final split than on `train`."""
        train = self._figures(self.outcomes[method], lambda one: one.train)
        return self._gaps(self.figures(method), train)

    @cached_property
    def baseline_gaps(self) -> dict[str, dict[int, float]]:
        return self._gaps(self.baseline, self._of_baselines(lambda one: one.train))

    def cost(self, method: Method) -> dict[str, float]:
        """What a run of it costs, a mean over the seeds; NaN where all have failed."""
        done = [one for one in self.outcomes[method] if one.done]
        return {name: estimate([one.cost[name] for one in done]).mean for name in COSTS}

    @cached_property
    def baseline_cost(self) -> dict[str, float]:
        """The sum over the single-task models."""
        costs = [self.cost(method) for method in self.plan.baselines]
        return {name: math.fsum(cost[name] for cost in costs) for name in COSTS}

    @cached_property
    def largest_memory(self) -> float:
        """Peak memory of training the single-task models one after another: that of the largest."""
        sizes = [self.cost(method)["peak_memory_bytes"] for method in self.plan.baselines]
        return max(sizes) if all(map(math.isfinite, sizes)) else math.nan

    def failed(self) -> list[Outcome]:
        return [one for group in self.outcomes.values() for one in group if not one.done]

    def _figures(self, outcomes: Sequence[Outcome], of: Part) -> dict[Metric, dict[int, float]]:
        done = [one for one in outcomes if one.done]
        return {
            (task, name): {one.run.seed: of(one)[task][name] for one in done if task in of(one)}
            for task, name in self.rises
        }

    def _side(self, method: Method) -> Side:
        return Side(self.figures(method), self._replicates(method))

    @cached_property
    def _baseline_side(self) -> Side:
        own = {method.task: self._replicates(method) for method in self.plan.baselines}
        return Side(self.baseline, {metric: own[metric[0]][metric] for metric in self.rises})

    def _replicates(self, method: Method) -> dict[Metric, dict[int, Sequence[float]]]:
        done = [one for one in self.outcomes[method] if one.done]
        return {
            (task, name): {one.run.seed: one.resampled.get(task, {}).get(name, ()) for one in done}
            for task, name in self.rises
        }

    def _of_baselines(self, of: Part) -> dict[Metric, dict[int, float]]:
        found: dict[Metric, dict[int, float]] = {}
        for method in self.plan.baselines:
            values = self._figures(self.outcomes[method], of)
            found |= {metric: values[metric] for metric in values if metric[0] == method.task}
        return {metric: found[metric] for metric in self.rises}

    def _gaps(self, test: Figures, train: Figures) -> dict[str, dict[int, float]]:
        found = {}
        for task, metric in self.primary.items():
            sign = 1 if self.rises[metric] else -1
            found[task] = {seed: sign * (train[metric][seed] - value) for seed, value in test[metric].items()}
        return found


def _finite(values: Mapping[int, float]) -> dict[int, float]:
    return {seed: value for seed, value in values.items() if math.isfinite(value)}
