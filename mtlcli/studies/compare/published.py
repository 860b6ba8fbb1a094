"""Published figures, to be shown beside ours: `--published FILE`. The file's form is in `docs/comparison.md`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field, PositiveFloat, ValidationError

from mtlcli.config import validation_errors
from mtlcli.config.locations import KeyPath, Source, in_order
from mtlcli.config.schema import Section
from mtlcli.config.type_names import format_value
from mtlcli.config.yaml import read
from mtlcli.errors import ConfigError, Problem, nearest
from mtlcli.studies.compare.document import estimated
from mtlcli.studies.compare.plan import BASELINE, Plan
from mtlcli.studies.compare.results import Results
from mtlcli.studies.compare.statistics import Figures

MEAN = "mean"
NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
FIGURE = re.compile(rf"({NUMBER})(?:\s*(?:±|\+-|\+/-)\s*({NUMBER}))?")


class _Table(Section):
    source: str
    note: str = ""
    metrics: dict[str, str] = Field({})
    scale: PositiveFloat = 1.0
    rows: dict[str, dict[str, float | str]] = Field(min_length=1)


class _File(Section):
    tables: list[_Table] = Field(min_length=1)


@dataclass(frozen=True)
class Figure:
    """A published figure in our units, and what is published as its ±; None where nothing is."""

    value: float
    spread: float | None


@dataclass(frozen=True)
class PublishedTable:
    """source: whose it is. metrics: task, or `mean` → metric. rows: method → task, or `mean` → figure."""

    source: str
    note: str
    metrics: dict[str, str]
    rows: dict[str, dict[str, Figure]]


def read_published(path: str | Path, plan: Plan) -> list[PublishedTable]:
    """The tables in a file. ConfigError, with all problems by line, where they don't fit the file's form or the plan.

    A row's name is a method's label, or `single-task`; one of any other name is shown alone.
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
    for number, table in enumerate(parsed.tables):
        for where, message in _misfits(table, plan):
            problems.append(source.problem(("tables", number, *where), message))
    if problems:
        raise ConfigError(in_order(problems))
    return [_table(table, plan) for table in parsed.tables]


def _table(table: _Table, plan: Plan) -> PublishedTable:
    rows = {
        name: {task: _figure(value, table.scale) for task, value in row.items()} for name, row in table.rows.items()
    }
    columns = dict.fromkeys(task for row in rows.values() for task in row)
    return PublishedTable(table.source, table.note, {task: _metric(table, plan, task) for task in columns}, rows)


def _metric(table: _Table, plan: Plan, task: str) -> str:
    if task in table.metrics:
        return table.metrics[task]
    return "primary" if task == MEAN else next(iter(plan.directions[task]))


def _figure(value: float | str, scale: float) -> Figure:
    if isinstance(value, str):
        form = FIGURE.fullmatch(value.strip())
        assert form is not None
        return Figure(scale * float(form[1]), scale * float(form[2]) if form[2] else None)
    return Figure(scale * value, None)


def _misfits(table: _Table, plan: Plan) -> Iterator[tuple[KeyPath, str]]:
    known = [*plan.tasks, MEAN]
    for task, metric in table.metrics.items():
        if task not in known:
            yield ("metrics", task), _unknown("task", task, known)
            continue
        for one in plan.tasks if task == MEAN else [task]:
            has = ["primary", *plan.directions[one]] if task == MEAN else list(plan.directions[one])
            if metric not in has:
                yield ("metrics", task), _unknown(f"metric of task {one!r},", metric, has)
    for name, row in table.rows.items():
        for task, value in row.items():
            if task not in known:
                yield ("rows", name, task), _unknown("task", task, known)
            if isinstance(value, str) and not FIGURE.fullmatch(value.strip()):
                yield ("rows", name, task), f"expected a number, or one such as '94.76 ± 0.44', found {value!r}"


def _unknown(what: str, name: str, known: list[str]) -> str:
    return f"no {what} {name!r}.{nearest(name, known)} Choose from: {', '.join(known)}"


def beside(results: Results, tables: Sequence[PublishedTable]) -> list[dict[str, Any]]:
    """Each published table with our estimate of every figure; null where no method here has the row's name."""
    ours = {method.label: results.figures(method) for method in results.plan.methods}
    ours[BASELINE] = results.baseline
    return [
        {
            "source": table.source,
            "note": table.note,
            "metrics": table.metrics,
            "rows": {
                name: {
                    task: {
                        "published": figure.value,
                        "spread": figure.spread,
                        "ours": _ours(results, ours[name], task, table.metrics[task]) if name in ours else None,
                    }
                    for task, figure in row.items()
                }
                for name, row in table.rows.items()
            },
        }
        for table in tables
    ]


def _ours(results: Results, figures: Figures, task: str, metric: str) -> dict[str, Any]:
    tasks = results.plan.tasks if task == MEAN else [task]
    parts = [figures[results.primary[one] if metric == "primary" else (one, metric)] for one in tasks]
    seeds = [seed for seed in parts[0] if all(seed in part for part in parts)]
    return estimated([sum(part[seed] for part in parts) / len(parts) for seed in seeds])
