"""Content of `comparison.json`."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Mapping
from typing import Any

from mtlcli.studies.compare.differences import NORMAL_QUANTILE, Difference, PairedComparison
from mtlcli.studies.compare.execution import COSTS, Outcome
from mtlcli.studies.compare.findings import format_epochs, list_findings, list_warnings
from mtlcli.studies.compare.plan import BASELINE, Method
from mtlcli.studies.compare.results import Results
from mtlcli.studies.compare.statistics import (
    CONFIDENCE,
    Estimate,
    PairedTest,
    Scores,
    delta_m,
    estimate,
    relative_changes,
)
from mtlcli.studies.compare.tuning import Choice
from mtlcli.training.run_folder import versions
from mtlcli.version import __version__

Document = dict[str, Any]


def make_document(results: Results, out: str, command: str | None = None) -> Document:
    """Make the content of `comparison.json`, which `--json` prints too; `docs/comparison.md` defines its values.

    Args:
        results: the results of the comparison.
        out: path of the study folder.
        command: the command line; None if the study was started from Python.

    Returns:
        Dicts, lists, strings and numbers, with NaN for missing values.
    """
    plan = results.plan
    tuning = {"keys": plan.tuned, "seeds": plan.seeds[: plan.tune_seeds]}
    return {
        "name": plan.experiment.name,
        "out": out,
        "command": command,
        "versions": _versions(),
        "findings": list_findings(results),
        "warnings": list_warnings(results),
        "tasks": {task: _task(results, task) for task in plan.tasks},
        "seeds": plan.seeds,
        "epochs": format_epochs(results),
        "split": results.split,
        "evaluated": plan.experiment.evaluation.split,
        "confidence": CONFIDENCE,
        "reference": plan.reference.label,
        "tuning": tuning if plan.tuned else None,
        "left_out_of_delta_m": [{"task": task, "metric": metric} for task, metric in results.excluded_metrics],
        "baseline": _baseline(results),
        "methods": {method.label: _method(results, method) for method in plan.methods},
        "last": None if results.last_epochs is None else _last_epochs(results, results.last_epochs),
        "failed": [
            {"run": str(outcome.run), "folder": str(outcome.run.folder), "error": outcome.error}
            for outcome in results.failed()
        ],
    }


def summarize_values(values: Iterable[float]) -> Document:
    """Summarize values as mean, standard deviation, interval and n.

    Args:
        values: any number of values.

    Returns:
        `mean`, `sd`, `low`, `high` and `n`, as `statistics.Estimate` defines them.
    """
    return _estimate(estimate(list(values)))


def _versions() -> dict[str, str | None]:
    """Versions of this process; those of runs that were trained earlier are in their folders."""
    return {"mtl": __version__, "python": platform.python_version(), **versions()}


def _task(results: Results, task: str) -> Document:
    metrics = results.plan.directions[task]
    scales = {name: results.scales[task, name] for name in metrics}
    return {
        "primary": next(iter(metrics)),
        "metrics": metrics,
        "units": {name: "points" if scale.bounded else "percent" for name, scale in scales.items()},
        "examples": results.examples(task),
    }


def _method(results: Results, method: Method) -> Document:
    base_cost = results.baseline_cost
    test = results.tests.get(method)
    comparisons = {
        reference: methods[method.label]
        for reference, methods in results.comparisons.items()
        if method.label in methods
    }
    return {
        "settings": method.settings,
        **_choice(results.choices[method]),
        "runs": [_run(outcome) for outcome in results.outcomes[method]],
        "n": sum(outcome.completed for outcome in results.outcomes[method]),
        "metrics": _scores(results.scores(method)),
        "against": {reference: _comparison(comparison) for reference, comparison in comparisons.items()},
        "delta_m": {
            "primary": _values(comparisons[BASELINE].delta_m),
            "flat": _values(results.delta_m[method]),
            "by_task": _values(results.delta_m_by_task(method)),
            "tasks": {task: _estimate(delta_m) for task, delta_m in results.delta_m_of_tasks(method).items()},
        },
        "mean_rank": results.ranks[method.label],
        "test": None if test is None else {"against": results.plan.reference.label, **_test(test)},
        "gap": _gap(results.gaps(method)),
        "cost": {
            name: _memory(results, value) if name == "peak_memory_bytes" else _cost(value, base_cost[name])
            for name, value in results.cost(method).items()
        },
    }


def _last_epochs(results: Results, epochs: int) -> Document:
    """Describe the means over the last epochs: metrics of the baselines and methods, and flat Δm of the methods."""
    methods: Document = {}
    for method in results.plan.methods:
        scores = results.last_scores(method)
        changes = relative_changes(scores, results.last_baseline, results.higher_is_better)
        methods[method.label] = {"metrics": _scores(scores), "delta_m": _values(delta_m(changes) if changes else {})}
    return {"epochs": epochs, "baseline": {"metrics": _scores(results.last_baseline)}, "methods": methods}


def _comparison(comparison: PairedComparison) -> Document:
    tasks: Document = {}
    for (task, metric), difference in comparison.metrics.items():
        tasks.setdefault(task, {})[metric] = _difference(difference)
    return {
        "tasks": tasks,
        "delta_m": {
            **_values(comparison.delta_m),
            "p": comparison.test.p,
            "p_holm": comparison.test.holm,
            "parts": dict(comparison.contributions),
            "largest": comparison.largest_contribution,
            "left_out": comparison.excluded_tasks,
        },
    }


def _difference(difference: Difference) -> Document:
    half_width = NORMAL_QUANTILE * difference.example_error
    mean = difference.estimate.mean
    return {
        "unit": difference.change.unit,
        **_estimate(difference.estimate),
        "seeds": {str(seed): value for seed, value in difference.change.by_seed.items()},
        "method": difference.change.method,
        "reference": difference.change.reference,
        "p": difference.test.p,
        "p_holm": difference.test.holm,
        "examples": {"se": difference.example_error, "low": mean - half_width, "high": mean + half_width},
    }


def _cost(value: float, base: float) -> Document:
    return {"value": value, "ratio": value / base if base else None}


def _memory(results: Results, value: float) -> Document:
    """Peak memory and its ratios to the largest single-task model, and to the sum of them."""
    total = results.baseline_cost["peak_memory_bytes"]
    return {**_cost(value, results.largest_baseline_memory), "ratio_to_sum": value / total if total else None}


def _baseline(results: Results) -> Document:
    methods = results.plan.baselines
    return {
        "label": BASELINE,
        "tasks": {
            str(method.task): {
                **_choice(results.choices[method]),
                "runs": [_run(outcome) for outcome in results.outcomes[method]],
                "n": sum(outcome.completed for outcome in results.outcomes[method]),
                "cost": results.cost(method),
            }
            for method in methods
        },
        "metrics": _scores(results.baseline),
        "gap": _gap(results.baseline_gaps),
        "cost": {
            name: _memory(results, results.largest_baseline_memory)
            if name == "peak_memory_bytes"
            else {"value": results.baseline_cost[name], "ratio": 1.0}
            for name in COSTS
        },
    }


def _choice(choice: Choice) -> Document:
    if not choice.tried:
        return {"tuned": None}
    settings = None if choice.candidate is None else choice.candidate.point.settings
    return {"tuned": {"settings": settings, "tried": dict(choice.tried), "at_edge": list(choice.at_edge)}}


def _run(outcome: Outcome) -> Document:
    document: Document = {"seed": outcome.run.seed, "folder": str(outcome.run.folder)}
    if outcome.error is not None:
        return {**document, "status": "failed", "error": outcome.error}
    return {
        **document,
        "status": "completed",
        "epochs": outcome.epochs,
        "best_epoch": outcome.best_epoch,
        "value": outcome.value,
        **({"coefficients": dict(outcome.coefficients)} if outcome.coefficients else {}),
    }


def _scores(scores: Scores) -> Document:
    document: Document = {}
    for (task, metric), values in scores.items():
        document.setdefault(task, {})[metric] = _values(values)
    return document


def _values(values: Mapping[int, float]) -> Document:
    return {**summarize_values(values.values()), "seeds": {str(seed): value for seed, value in values.items()}}


def _estimate(estimate: Estimate) -> Document:
    return {"mean": estimate.mean, "sd": estimate.sd, "low": estimate.low, "high": estimate.high, "n": estimate.n}


def _gap(gaps: Mapping[str, Mapping[int, float]]) -> Document:
    """Summarize the gap of each task, and the mean over the tasks for the seeds that all tasks have."""
    common = [seed for seed in next(iter(gaps.values())) if all(seed in by_seed for by_seed in gaps.values())]
    means = [sum(by_seed[seed] for by_seed in gaps.values()) / len(gaps) for seed in common]
    return {
        "mean": summarize_values(means),
        "tasks": {task: summarize_values(by_seed.values()) for task, by_seed in gaps.items()},
    }


def _test(test: PairedTest) -> Document:
    return {"difference": _estimate(test.difference), "p": test.p, "p_holm": test.holm}
