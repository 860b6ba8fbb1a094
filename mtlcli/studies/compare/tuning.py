"""Which point of the `--tune` grid each method and each baseline gets: by `val` alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mtlcli import registry
from mtlcli.config import Experiment
from mtlcli.config.yaml import parse
from mtlcli.errors import ConfigError
from mtlcli.studies.compare.execution import Outcome, Runs
from mtlcli.studies.compare.plan import Candidate, Method, Plan
from mtlcli.training.evaluate import primary_metric


@dataclass(frozen=True)
class Choice:
    """What a method is trained with.

    candidate: None where every one has failed. tried: point, in words → mean of the monitored value over the seeds
    tuned with; NaN where a run has failed. at_edge: the tuned keys whose value is the least or largest of those tried.
    error: of the last that failed, where all have.
    """

    method: Method
    candidate: Candidate | None
    tried: Mapping[str, float]
    at_edge: tuple[str, ...] = ()
    error: str | None = None


def choose(plan: Plan, runs: Runs) -> list[Choice]:
    """The choice for each method and each baseline; where there is nothing to choose from, nothing is trained."""
    everyone = [*plan.methods, *plan.baselines]
    seeds = plan.seeds[: plan.tune_seeds]
    asked = {
        (method, number): [runs.run(method, candidate, seed) for seed in seeds]
        for method in everyone
        if len(method.candidates) > 1
        for number, candidate in enumerate(method.candidates)
    }
    flat = [run for group in asked.values() for run in group]
    found = dict(zip(flat, runs.get(flat), strict=True)) if flat else {}
    choices = []
    for method in everyone:
        groups = [[found[run] for run in asked[key]] for key in asked if key[0] is method]
        choices.append(_chosen(method, groups) if groups else Choice(method, method.candidates[0], {}))
    return choices


def rises(experiment: Experiment) -> bool:
    """Whether more of an experiment's monitored metric is better."""
    monitor = experiment.evaluation.monitor
    task = next(iter(experiment.tasks)) if monitor.task == "mean" else monitor.task
    kind = registry.kinds[experiment.tasks[task].kind.name].target
    metric = primary_metric(experiment, task) if monitor.metric == "primary" else monitor.metric
    return kind.directions[metric] == "max"


def _chosen(method: Method, groups: Sequence[Sequence[Outcome]]) -> Choice:
    """groups: the outcomes of each candidate, in their order. Of candidates that are as good, the first."""
    values = [math.fsum(one.value if one.done else math.nan for one in group) / len(group) for group in groups]
    tried = {candidate.point.label: value for candidate, value in zip(method.candidates, values, strict=True)}
    sign = 1 if rises(method.candidates[0].experiment) else -1
    best = max(
        (number for number, value in enumerate(values) if math.isfinite(value)),
        key=lambda number: sign * values[number],
        default=None,
    )
    if best is None:
        errors = [one.error for group in groups for one in group if one.error]
        return Choice(method, None, tried, error=errors[-1] if errors else "no value to tune by")
    return Choice(method, method.candidates[best], tried, _at_edge(method, best))


def _at_edge(method: Method, best: int) -> tuple[str, ...]:
    settings = [candidate.point.settings for candidate in method.candidates]
    found = []
    for key in settings[best]:
        numbers = [_number(one[key]) for one in settings]
        if len(set(numbers)) > 1 and None not in numbers:
            known = [number for number in numbers if number is not None]
            if numbers[best] in (min(known), max(known)):
                found.append(key)
    return tuple(found)


def _number(text: str) -> float | None:
    try:
        value = parse(text, text).data
    except ConfigError:
        return None
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
