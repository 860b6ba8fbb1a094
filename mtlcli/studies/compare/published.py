"""Published results, which are shown with those of the study; `docs/comparison.md` describes the file."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field, PositiveFloat, ValidationError

from mtlcli.config import validation_errors
from mtlcli.config.locations import KeyPath, Source, in_order
from mtlcli.config.options import Section
from mtlcli.config.type_names import format_value
from mtlcli.config.yaml import read
from mtlcli.errors import ConfigError, Problem, suggest
from mtlcli.studies.compare.document import summarize_values
from mtlcli.studies.compare.plan import BASELINE, Plan
from mtlcli.studies.compare.results import Results
from mtlcli.studies.compare.statistics import Scores

MEAN = "mean"  # in the place of a task: the mean over the tasks
NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
VALUE = re.compile(rf"({NUMBER})(?:\s*(?:±|\+-|\+/-)\s*({NUMBER}))?")


class _Table(Section):
    source: str
    note: str = ""
    metrics: dict[str, str] = Field({})
    scale: PositiveFloat = 1.0
    rows: dict[str, dict[str, float | str]] = Field(min_length=1)


class _File(Section):
    tables: list[_Table] = Field(min_length=1)


@dataclass(frozen=True)
class PublishedValue:
    """A published value, in the units of the study.

    Attributes:
        value: the value.
        spread: the published ±, or None.
    """

    value: float
    spread: float | None


@dataclass(frozen=True)
class PublishedTable:
    """A published table.

    Attributes:
        source: the source of the values.
        note: remarks.
        metrics: task, or `mean` → metric.
        rows: method → task, or `mean` → value.
    """

    source: str
    note: str
    metrics: dict[str, str]
    rows: dict[str, dict[str, PublishedValue]]


def read_published(path: str | Path, plan: Plan) -> list[PublishedTable]:
    """Read a file of published results.

    Args:
        path: the YAML file.
        plan: the plan of the study, which has the names of tasks and metrics.

    Returns:
        The tables of the file.

    Raises:
        ConfigError: Lists everything in the file that does not have the documented form, or does not fit the plan.
    """
    file = Path(path)
    document = read(file)
    source = Source(places=document.places)
    data = document.data
    if not isinstance(data, dict):
        raise ConfigError(source.problem((), f"expected `tables:`, found {format_value(data)}"))
    try:
        parsed = _File.model_validate(data)
    except ValidationError as error:
        raise ConfigError(in_order(validation_errors.problems(error, _File, data, source))) from error
    problems: list[Problem] = []
    for index, table in enumerate(parsed.tables):
        for key_path, message in _find_problems(table, plan):
            problems.append(source.problem(("tables", index, *key_path), message))
    if problems:
        raise ConfigError(in_order(problems))
    return [_convert(table, plan) for table in parsed.tables]


def join_published(results: Results, tables: Sequence[PublishedTable]) -> list[dict[str, Any]]:
    """Join published tables with the results of the study.

    Args:
        results: the results of the comparison.
        tables: the published tables.

    Returns:
        For each table, `source`, `note`, `metrics` and `rows`: method → task → `published`, `spread` and `ours`. A row
        with the label of a method of the study, or `single-task`, has its estimate in `ours`; others have None.
    """
    scores = {method.label: results.scores(method) for method in results.plan.methods}
    scores[BASELINE] = results.baseline
    return [
        {
            "source": table.source,
            "note": table.note,
            "metrics": table.metrics,
            "rows": {
                label: {
                    task: {
                        "published": value.value,
                        "spread": value.spread,
                        "ours": _estimate(results, scores[label], task, table.metrics[task])
                        if label in scores
                        else None,
                    }
                    for task, value in row.items()
                }
                for label, row in table.rows.items()
            },
        }
        for table in tables
    ]


def _convert(table: _Table, plan: Plan) -> PublishedTable:
    rows = {
        name: {task: _parse_value(value, table.scale) for task, value in row.items()}
        for name, row in table.rows.items()
    }
    columns = dict.fromkeys(task for row in rows.values() for task in row)
    return PublishedTable(table.source, table.note, {task: _metric(table, plan, task) for task in columns}, rows)


def _metric(table: _Table, plan: Plan, task: str) -> str:
    if task in table.metrics:
        return table.metrics[task]
    return "primary" if task == MEAN else next(iter(plan.directions[task]))


def _parse_value(value: float | str, scale: float) -> PublishedValue:
    if isinstance(value, str):
        match = VALUE.fullmatch(value.strip())
        assert match is not None
        return PublishedValue(scale * float(match[1]), scale * float(match[2]) if match[2] else None)
    return PublishedValue(scale * value, None)


def _find_problems(table: _Table, plan: Plan) -> Iterator[tuple[KeyPath, str]]:
    columns = [*plan.tasks, MEAN]
    for task, metric in table.metrics.items():
        if task not in columns:
            yield ("metrics", task), _unknown_name("task", task, columns)
            continue
        for name in plan.tasks if task == MEAN else [task]:
            metrics = ["primary", *plan.directions[name]] if task == MEAN else list(plan.directions[name])
            if metric not in metrics:
                yield ("metrics", task), _unknown_name(f"metric of task {name!r},", metric, metrics)
    for label, row in table.rows.items():
        for task, value in row.items():
            if task not in columns:
                yield ("rows", label, task), _unknown_name("task", task, columns)
            if isinstance(value, str) and not VALUE.fullmatch(value.strip()):
                yield ("rows", label, task), f"expected a number, or one such as '94.76 ± 0.44', found {value!r}"


def _unknown_name(noun: str, name: str, choices: list[str]) -> str:
    return f"no {noun} {name!r}.{suggest(name, choices)} Choose from: {', '.join(choices)}"


def _estimate(results: Results, scores: Scores, task: str, metric: str) -> dict[str, Any]:
    tasks = results.plan.tasks if task == MEAN else [task]
    values = [scores[results.primary[name] if metric == "primary" else (name, metric)] for name in tasks]
    seeds = [seed for seed in values[0] if all(seed in by_seed for by_seed in values)]
    return summarize_values([sum(by_seed[seed] for by_seed in values) / len(values) for seed in seeds])
