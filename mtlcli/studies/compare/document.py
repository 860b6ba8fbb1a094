"""A comparison as one JSON document."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Mapping
from typing import Any

from mtlcli.studies.compare.differences import NORMAL_QUANTILE, Against, Difference
from mtlcli.studies.compare.execution import COSTS, Outcome
from mtlcli.studies.compare.findings import epochs, findings, warnings
from mtlcli.studies.compare.plan import BASELINE, Method
from mtlcli.studies.compare.results import Results
from mtlcli.studies.compare.statistics import CONFIDENCE, Estimate, Figures, PairedTest, estimate
from mtlcli.studies.compare.tuning import Choice
from mtlcli.training.environment import versions
from mtlcli.version import __version__

Document = dict[str, Any]


def document(results: Results, out: str, command: str | None = None) -> Document:
    """Everything that was compared: what `comparison.json` holds and `--json` prints. See `docs/comparison.md`."""
    plan = results.plan
    tuning = {"keys": plan.tuned, "seeds": plan.seeds[: plan.tune_seeds]}
    return {
        "name": plan.experiment.name,
        "out": out,
        "command": command,
        "versions": _versions(),
        "findings": findings(results),
        "warnings": warnings(results),
        "tasks": {task: _task(results, task) for task in plan.tasks},
        "seeds": plan.seeds,
        "epochs": epochs(results),
        "split": results.split,
        "evaluated": plan.experiment.evaluation.split,
        "confidence": CONFIDENCE,
        "reference": plan.reference.label,
        "tuning": tuning if plan.tuned else None,
        "left_out_of_delta_m": [{"task": task, "metric": metric} for task, metric in results.left_out],
        "baseline": _baseline(results),
        "methods": {method.label: _method(results, method) for method in plan.methods},
        "failed": [
            {"run": str(one.run), "folder": str(one.run.folder), "error": one.error} for one in results.failed()
        ],
    }


def _versions() -> dict[str, str | None]:
    """Of this process; runs that were trained before keep theirs in their folders."""
    packages = versions()
    return {"mtl": __version__, "python": platform.python_version(), **packages}


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
    gaps, base = results.gaps(method), results.baseline_cost
    test = results.tests.get(method)
    compared = {ref: parts[method.label] for ref, parts in results.references.items() if method.label in parts}
    return {
        "settings": method.settings,
        **_choice(results.choices[method]),
        "runs": [_run(one) for one in results.outcomes[method]],
        "n": sum(one.done for one in results.outcomes[method]),
        "metrics": _figures(results.figures(method)),
        "against": {reference: _against(found) for reference, found in compared.items()},
        "delta_m": {
            "primary": _values(compared[BASELINE].delta),
            "flat": _values(results.delta[method]),
            "by_task": _values(results.delta_by_task(method)),
            "tasks": {task: _estimate(found) for task, found in results.delta_of_tasks(method).items()},
        },
        "mean_rank": results.ranks[method.label],
        "test": None if test is None else {"against": results.plan.reference.label, **_test(test)},
        "gap": _gap(gaps),
        "cost": {
            name: _memory(results, value) if name == "peak_memory_bytes" else _cost(value, base[name])
            for name, value in results.cost(method).items()
        },
    }


def _against(found: Against) -> Document:
    tasks: Document = {}
    for (task, metric), one in found.metrics.items():
        tasks.setdefault(task, {})[metric] = _difference(one)
    return {
        "tasks": tasks,
        "delta_m": {
            **_values(found.delta),
            "p": found.test.p,
            "p_holm": found.test.holm,
            "parts": dict(found.parts),
            "largest": found.largest,
            "left_out": found.left_out,
        },
    }


def _difference(one: Difference) -> Document:
    half = NORMAL_QUANTILE * one.example_error
    mean = one.estimate.mean
    return {
        "unit": one.change.unit,
        **_estimate(one.estimate),
        "seeds": {str(seed): value for seed, value in one.change.seeds.items()},
        "method": one.change.own,
        "reference": one.change.reference,
        "p": one.test.p,
        "p_holm": one.test.holm,
        "examples": {"se": one.example_error, "low": mean - half, "high": mean + half},
    }


def _cost(value: float, base: float) -> Document:
    return {"value": value, "ratio": value / base if base else None}


def _memory(results: Results, value: float) -> Document:
    """The ratio is to the largest single-task model, as they can be trained one after another."""
    total = results.baseline_cost["peak_memory_bytes"]
    return {**_cost(value, results.largest_memory), "ratio_to_sum": value / total if total else None}


def _baseline(results: Results) -> Document:
    methods = results.plan.baselines
    return {
        "label": BASELINE,
        "tasks": {
            str(method.task): {
                **_choice(results.choices[method]),
                "runs": [_run(one) for one in results.outcomes[method]],
                "n": sum(one.done for one in results.outcomes[method]),
                "cost": results.cost(method),
            }
            for method in methods
        },
        "metrics": _figures(results.baseline),
        "gap": _gap(results.baseline_gaps),
        "cost": {
            name: _memory(results, results.largest_memory)
            if name == "peak_memory_bytes"
            else {"value": results.baseline_cost[name], "ratio": 1.0}
            for name in COSTS
        },
    }


def _choice(choice: Choice) -> Document:
    """What a method was tuned to; nothing where there was nothing to tune."""
    if not choice.tried:
        return {"tuned": None}
    settings = None if choice.candidate is None else choice.candidate.point.settings
    return {"tuned": {"settings": settings, "tried": dict(choice.tried), "at_edge": list(choice.at_edge)}}


def _run(one: Outcome) -> Document:
    found: Document = {"seed": one.run.seed, "folder": str(one.run.folder)}
    if one.error is not None:
        return {**found, "status": "failed", "error": one.error}
    return {**found, "status": "completed", "epochs": one.epochs, "best_epoch": one.best_epoch, "value": one.value}


def _figures(figures: Figures) -> Document:
    found: Document = {}
    for (task, metric), values in figures.items():
        found.setdefault(task, {})[metric] = _values(values)
    return found


def _values(values: Mapping[int, float]) -> Document:
    return {**estimated(values.values()), "seeds": {str(seed): v for seed, v in values.items()}}


def estimated(values: Iterable[float]) -> Document:
    return _estimate(estimate(list(values)))


def _estimate(found: Estimate) -> Document:
    return {"mean": found.mean, "sd": found.sd, "low": found.low, "high": found.high, "n": found.n}


def _gap(gaps: Mapping[str, Mapping[int, float]]) -> Document:
    """Each task's gap, and the mean over the tasks, of the seeds that all have."""
    common = [seed for seed in next(iter(gaps.values())) if all(seed in found for found in gaps.values())]
    means = [sum(found[seed] for found in gaps.values()) / len(gaps) for seed in common]
    return {
        "mean": estimated(means),
        "tasks": {task: estimated(found.values()) for task, found in gaps.items()},
    }


def _test(test: PairedTest) -> Document:
    return {"difference": _estimate(test.difference), "p": test.p, "p_holm": test.holm}
