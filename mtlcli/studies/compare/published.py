"""Published results, which are shown with those of the study; `docs/comparison.md` describes the file."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field, PositiveFloat, PositiveInt, ValidationError

from mtlcli.config import validation_errors
from mtlcli.config.locations import KeyPath, Source, in_order
from mtlcli.config.options import Section
from mtlcli.config.type_names import format_value
from mtlcli.config.yaml import read
from mtlcli.errors import ConfigError, Problem, suggest
from mtlcli.studies.compare.document import summarize_values
from mtlcli.studies.compare.plan import BASELINE, Plan
from mtlcli.studies.compare.results import Results
from mtlcli.studies.compare.statistics import Metric, Scores, delta_m, relative_changes

MEAN = "mean"  # in the place of a task: the mean over the tasks
DELTA_M, MEAN_RANK = "delta_m", "mean_rank"  # in the place of a task: values that are printed for the whole row
NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
VALUE = re.compile(rf"({NUMBER})(?:\s*(?:±|\+-|\+/-)\s*({NUMBER}))?")


Value = float | str


class _Table(Section):
    source: str
    note: str = ""
    metrics: dict[str, str | list[str]] = Field({})
    scale: PositiveFloat | dict[str, PositiveFloat] = 1.0
    last: PositiveInt | None = None
    rows: dict[str, dict[str, Value | list[Value]]] = Field(min_length=1)


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

    Its columns are named by their task, or `task.metric` where the table has several metrics of the task.

    Attributes:
        source: the source of the values.
        note: remarks.
        last: number of the last epochs whose mean the values are; None for values of one epoch.
        metrics: column, or `mean` → metric.
        rows: method → column, or `mean` → value.
        delta_m: method → the Δm in percent that is printed there.
        mean_rank: method → the mean rank that is printed there.
    """

    source: str
    note: str
    last: int | None
    metrics: dict[str, str]
    rows: dict[str, dict[str, PublishedValue]]
    delta_m: dict[str, PublishedValue]
    mean_rank: dict[str, PublishedValue]

    def keyed_metrics(self) -> dict[str, Metric]:
        """Return column → (task, metric), without `mean`."""
        return {column: (column.partition(".")[0], metric) for column, metric in self.metrics.items() if column != MEAN}

    def scores(self, label: str) -> Scores:
        """Return the values of a row in the form of the scores of a study, as those of a single seed 0."""
        row = self.rows[label]
        return {key: {0: row[column].value} for column, key in self.keyed_metrics().items() if column in row}

    def computed_delta_m(self, higher_is_better: Mapping[Metric, bool]) -> dict[str, float]:
        """Compute the Δm over the metrics of the table from its values and those of its row `single-task`.

        Args:
            higher_is_better: metric → whether a higher value is better.

        Returns:
            Method → Δm in percent, for the rows that have all values.
        """
        if BASELINE not in self.rows:
            return {}
        baseline = self.scores(BASELINE)
        complete = [label for label in self.rows if label != BASELINE and self.scores(label).keys() == baseline.keys()]
        changes = {label: relative_changes(self.scores(label), baseline, higher_is_better) for label in complete}
        return {label: delta_m(values)[0] for label, values in changes.items() if values}


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
        For each table, `source`, `note`, `last`, `ours` (whether our values are those of the `best` epoch, or means
        over the `last` epochs, as the published ones), `metrics`, `rows` (method → column → `published`, `spread` and
        `ours`), `delta_m` (method → the same, and `computed`: whether Δm is not printed there, but computed from the
        row) and `mean_rank` (method → `published`, `spread`). A row with the label of a method of the study, or
        `single-task`, has its estimate in `ours`; others have None.
    """
    return [_join(results, table) for table in tables]


def _join(results: Results, table: PublishedTable) -> dict[str, Any]:
    last = table.last is not None and table.last == results.last_epochs
    select = results.last_scores if last else results.scores
    scores = {method.label: select(method) for method in results.plan.methods}
    scores[BASELINE] = results.last_baseline if last else results.baseline

    def ours(label: str, column: str) -> dict[str, Any] | None:
        return _estimate(results, scores[label], column, table.metrics[column]) if label in scores else None

    return {
        "source": table.source,
        "note": table.note,
        "last": table.last,
        "ours": "last" if last else "best",
        "metrics": table.metrics,
        "rows": {
            label: {column: {**_plain(value), "ours": ours(label, column)} for column, value in row.items()}
            for label, row in table.rows.items()
        },
        "delta_m": _join_delta_m(results, table, scores),
        "mean_rank": {label: _plain(value) for label, value in table.mean_rank.items()},
    }


def _join_delta_m(results: Results, table: PublishedTable, scores: Mapping[str, Scores]) -> dict[str, Any]:
    """Join the Δm over the metrics of the table: as printed, else computed from the row; and ours."""
    computed = table.computed_delta_m(results.higher_is_better)
    baseline = {key: scores[BASELINE][key] for key in table.keyed_metrics().values()}
    joined: dict[str, Any] = {}
    for label in table.rows:
        if label not in table.delta_m and label not in computed:
            continue
        published = table.delta_m.get(label) or PublishedValue(computed[label], None)
        ours = None
        if label in scores:
            changes = relative_changes(scores[label], baseline, results.higher_is_better)
            ours = summarize_values(delta_m(changes).values()) if changes else None
        joined[label] = {**_plain(published), "computed": label not in table.delta_m, "ours": ours}
    return joined


def _plain(value: PublishedValue) -> dict[str, Any]:
    return {"published": value.value, "spread": value.spread}


def _convert(table: _Table, plan: Plan) -> PublishedTable:
    metrics: dict[str, str] = {}
    rows: dict[str, dict[str, PublishedValue]] = {}
    printed: dict[str, dict[str, PublishedValue]] = {DELTA_M: {}, MEAN_RANK: {}}
    for label, row in table.rows.items():
        rows[label] = {}
        for task, value in row.items():
            if task in printed and task not in plan.tasks:
                printed[task][label] = _parse_value(value, 1.0)  # type: ignore[arg-type]
                continue
            names = _metrics(table, plan, task)
            for name, number in zip(names, value if isinstance(value, list) else [value], strict=True):
                column = task if len(names) == 1 else f"{task}.{name}"
                metrics[column] = name
                rows[label][column] = _parse_value(number, _scale(table, name))
    return PublishedTable(table.source, table.note, table.last, metrics, rows, printed[DELTA_M], printed[MEAN_RANK])


def _scale(table: _Table, metric: str) -> float:
    return table.scale.get(metric, 1.0) if isinstance(table.scale, dict) else table.scale


def _metrics(table: _Table, plan: Plan, task: str) -> list[str]:
    """Return the metrics of a task, or of `mean`, in the order of a row's values."""
    if task in table.metrics:
        metrics = table.metrics[task]
        return metrics if isinstance(metrics, list) else [metrics]
    return ["primary" if task == MEAN else next(iter(plan.directions[task]))]


def _parse_value(value: Value, scale: float) -> PublishedValue:
    if isinstance(value, str):
        match = VALUE.fullmatch(value.strip())
        assert match is not None
        return PublishedValue(scale * float(match[1]), scale * float(match[2]) if match[2] else None)
    return PublishedValue(scale * value, None)


def _find_problems(table: _Table, plan: Plan) -> Iterator[tuple[KeyPath, str]]:
    columns = [*plan.tasks, MEAN]
    for task in table.metrics:
        if task not in columns:
            yield ("metrics", task), _unknown_name("task", task, columns)
            continue
        for name in plan.tasks if task == MEAN else [task]:
            choices = ["primary", *plan.directions[name]] if task == MEAN else list(plan.directions[name])
            for metric in _metrics(table, plan, task):
                if metric not in choices:
                    yield ("metrics", task), _unknown_name(f"metric of task {name!r},", metric, choices)
        if task == MEAN and len(_metrics(table, plan, task)) > 1:
            yield ("metrics", task), "expected one metric, since the mean is over the tasks"
    if isinstance(table.scale, dict):
        named = list(dict.fromkeys(metric for task in table.metrics for metric in _metrics(table, plan, task)))
        for metric in table.scale:
            if metric not in named:
                yield ("scale", metric), _unknown_name("metric of the table,", metric, named)
    for label, row in table.rows.items():
        for task, value in row.items():
            place = ("rows", label, task)
            if task not in columns and task not in (DELTA_M, MEAN_RANK):
                yield place, _unknown_name("task", task, [*columns, DELTA_M, MEAN_RANK])
                continue
            values = value if isinstance(value, list) else [value]
            expected = len(_metrics(table, plan, task)) if task in columns else 1
            if len(values) != expected or (isinstance(value, list) and task not in columns):
                yield place, f"expected {_count(expected)}, found {_count(len(values))}"
            for text in values:
                if isinstance(text, str) and not VALUE.fullmatch(text.strip()):
                    yield place, f"expected a number, or one such as '94.76 ± 0.44', found {text!r}"


def _count(values: int) -> str:
    return f"{values} values" if values != 1 else "1 value"


def _unknown_name(noun: str, name: str, choices: list[str]) -> str:
    return f"no {noun} {name!r}.{suggest(name, choices)} Choose from: {', '.join(choices)}"


def _estimate(results: Results, scores: Scores, column: str, metric: str) -> dict[str, Any]:
    tasks = results.plan.tasks if column == MEAN else [column.partition(".")[0]]
    values = [scores[results.primary[name] if metric == "primary" else (name, metric)] for name in tasks]
    seeds = [seed for seed in values[0] if all(seed in by_seed for by_seed in values)]
    return summarize_values([sum(by_seed[seed] for by_seed in values) / len(values) for seed in seeds])
