"""Selection of a point of the `--tune` grid for each method and each baseline, on the evaluated split."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mtlcli import registry
from mtlcli.config import Experiment
from mtlcli.config.yaml import parse
from mtlcli.errors import ConfigError
from mtlcli.metric_names import metric_direction
from mtlcli.studies.compare.execution import Outcome, RunStore
from mtlcli.studies.compare.plan import Candidate, Method, Plan
from mtlcli.training.evaluate import primary_metric


@dataclass(frozen=True)
class Choice:
    """The selected candidate of a method.

    Attributes:
        method: the method, or the baseline.
        candidate: the selected candidate; None if all have failed.
        tried: label of a grid point → mean of the monitored value over the seeds used for tuning; NaN if a run has
            failed. Empty if there was nothing to tune.
        at_edge: the tuned keys whose selected value is the smallest or largest of those tried.
        error: error of the last failed run, if all candidates have failed.
    """

    method: Method
    candidate: Candidate | None
    tried: Mapping[str, float]
    at_edge: tuple[str, ...] = ()
    error: str | None = None


def select_candidates(plan: Plan, store: RunStore) -> list[Choice]:
    """Select a candidate for each method and each baseline; nothing is trained for those with one candidate.

    Args:
        plan: the plan of the study.
        store: trains the runs, or takes them from the study folder.

    Returns:
        The choices, of the methods and then the baselines.
    """
    methods = [*plan.methods, *plan.baselines]
    seeds = plan.seeds[: plan.tune_seeds]
    runs = {
        (method, index): [store.make_run(method, candidate, seed) for seed in seeds]
        for method in methods
        if len(method.candidates) > 1
        for index, candidate in enumerate(method.candidates)
    }
    all_runs = [run for group in runs.values() for run in group]
    outcomes = dict(zip(all_runs, store.complete(all_runs), strict=True)) if all_runs else {}
    choices = []
    for method in methods:
        groups = [[outcomes[run] for run in runs[key]] for key in runs if key[0] is method]
        choices.append(_select(method, groups) if groups else Choice(method, method.candidates[0], {}))
    return choices


def _select(method: Method, groups: Sequence[Sequence[Outcome]]) -> Choice:
    """Select the candidate with the best mean, the first of equal ones, from the outcomes of each."""
    values = [
        math.fsum(outcome.value if outcome.completed else math.nan for outcome in group) / len(group)
        for group in groups
    ]
    tried = {candidate.point.label: value for candidate, value in zip(method.candidates, values, strict=True)}
    sign = 1 if _higher_is_better(method.candidates[0].experiment) else -1
    best = max(
        (index for index, value in enumerate(values) if math.isfinite(value)),
        key=lambda index: sign * values[index],
        default=None,
    )
    if best is None:
        errors = [outcome.error for group in groups for outcome in group if outcome.error]
        return Choice(method, None, tried, error=errors[-1] if errors else "the monitored metric has no value")
    return Choice(method, method.candidates[best], tried, _keys_at_edge(method, best))


def _higher_is_better(experiment: Experiment) -> bool:
    """Return whether a higher value of the monitored metric is better."""
    monitor = experiment.evaluation.monitor
    task = next(iter(experiment.tasks)) if monitor.task == "mean" else monitor.task
    entry = experiment.tasks[task]
    kind = registry.kinds[entry.kind.name].target
    metric = primary_metric(experiment, task) if monitor.metric == "primary" else monitor.metric
    return metric_direction(metric, kind) == "max"


def _keys_at_edge(method: Method, best: int) -> tuple[str, ...]:
    settings = [candidate.point.settings for candidate in method.candidates]
    keys = []
    for key in settings[best]:
        values = [_parse_number(point[key]) for point in settings]
        numbers = [value for value in values if value is not None]
        if len(set(values)) > 1 and len(numbers) == len(values) and values[best] in (min(numbers), max(numbers)):
            keys.append(key)
    return tuple(keys)


def _parse_number(text: str) -> float | None:
    try:
        value = parse(text, text).data
    except ConfigError:
        return None
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
