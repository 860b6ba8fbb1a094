"""A report on the data of an experiment: every column, and every target with its labels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import date, timedelta
from typing import Any

import torch
from torch import Tensor

from mtlcli.data.base import Dataset
from mtlcli.errors import MtlError
from mtlcli.specs import TargetSpec, has_label
from mtlcli.training.run import Run

Report = dict[str, dict[str, Any]]
Gaps = dict[str, dict[str, dict[str, dict[str, float]]]]
SHOWN_CLASSES = 10
SHOWN_COLUMNS = 200
EPOCH = date(1970, 1, 1)  # which dates are counted from


def data_report(run: Run, fetch: bool = False) -> Report:
    """Alias → `columns`, `excluded` and `targets` of the dataset, plain data.

    columns: of a table, name → type, the share of missing values and the levels or the range over the training rows.
    excluded: column → why it isn't a feature. targets: name → type, the number of labels of each split, and over the
    training rows the number of each class or label, or the range, mean and standard deviation.
    fetch: whether to read data that may have to be downloaded; without, such datasets have no targets here.
    """
    return {
        alias: {
            "columns": _columns(dataset),
            "excluded": dict(report.excluded) if (report := dataset.report()) else {},
            "targets": _targets(run, alias) if fetch else _targets_at_hand(run, alias),
        }
        for alias, dataset in run.datasets.items()
    }


def unseen(run: Run, split: str | Mapping[str, str]) -> Gaps:
    """`unknown` and `missing` → alias → column → {count, share} of the rows of the split (one, or one by alias).

    Counts the categories that training has not seen and the missing values; datasets and columns without any are left
    out.
    """
    counts: Gaps = {"unknown": {}, "missing": {}}
    for alias, examples in run.examples(split).items():
        for name, gaps in run.datasets[alias].unseen(examples).items():
            for kind, count in (("unknown", gaps.unknown), ("missing", gaps.missing)):
                if count:
                    counts[kind].setdefault(alias, {})[name] = {"count": count, "share": count / gaps.rows}
    return counts


def lines(report: Report) -> Iterator[list[str]]:
    """The report as rows of cells, the first of which is the head; nothing where there is no column and no target."""
    if not any(any(part.values()) for part in report.values()):
        return
    yield ["dataset", "column", "as", "type", "missing", "levels, range, or labels"]
    for alias, part in report.items():
        for name, facts in list(part["columns"].items())[:SHOWN_COLUMNS]:
            yield [alias, name, "feature", facts["type"], f"{facts['missing']:.1%}", _content(facts)]
        if (more := len(part["columns"]) - SHOWN_COLUMNS) > 0:
            yield [alias, f"… {more} more", "feature", "", "", ""]
        for name, why in part["excluded"].items():
            yield [alias, name, "not used", "", "", why]
        for name, facts in part["targets"].items():
            labels = ", ".join(f"{split} {count:,}" for split, count in facts["labels"].items())
            yield [alias, name, "target", facts["type"], f"{facts['missing']:.1%}", f"{_content(facts)} ({labels})"]


def unseen_lines(gaps: Gaps) -> Iterator[str]:
    """A line for each column with unknown categories or missing values."""
    for kind, words in (("unknown", "categories that training has not seen"), ("missing", "missing values")):
        for alias, columns in gaps[kind].items():
            for name, cells in columns.items():
                yield f"{alias}.{name}: {cells['count']:,} {words} ({cells['share']:.1%} of the rows)"


def _columns(dataset: Dataset) -> dict[str, dict[str, Any]]:
    report = dataset.report()
    if report is None:
        return {}
    return {
        facts.name: {
            "type": facts.type,
            "missing": facts.missing,
            **({"levels": facts.levels} if facts.levels is not None else {"range": [facts.low, facts.high]}),
        }
        for facts in report.facts
    }


def _targets_at_hand(run: Run, alias: str) -> dict[str, dict[str, Any]]:
    """The targets where the examples can be read without a download; else nothing."""
    dataset = run.datasets[alias]
    if dataset.collection is not None or dataset.made_of:
        return {}
    with suppress(MtlError):  # a training names what is wrong with the examples
        return _targets(run, alias)
    return {}


def _targets(run: Run, alias: str) -> dict[str, dict[str, Any]]:
    spec = run.specs[alias]
    examples = {split: run.examples_of(alias, split) for split in spec.splits}
    targets: dict[str, dict[str, Any]] = {}
    for name, target in spec.targets.items():
        labels = {split: part.labels(name) for split, part in examples.items()}
        counts = {split: int(has_label(values).sum()) for split, values in labels.items()}
        total = sum(len(values) for values in labels.values())
        basis = labels.get("train", next(iter(labels.values())))
        targets[name] = {
            "type": target.type,
            "labels": counts,
            "missing": 1 - sum(counts.values()) / max(total, 1),
            **_distribution(basis, target),
        }
    return targets


def _distribution(labels: Tensor, target: TargetSpec) -> dict[str, Any]:
    if target.type == "multilabel":
        return {"classes": dict(zip(target.class_names, (labels == 1).sum(0).tolist(), strict=True))}
    values = labels[has_label(labels)]
    if target.type != "real":
        names = target.class_names
        counts = torch.bincount(values.long().clamp(min=0), minlength=len(names)).tolist()
        return {"classes": dict(zip(names, counts, strict=False))}
    if not len(values):
        return {"range": [None, None], "mean": None, "std": None}
    digits = 7 if values.dtype == torch.float32 else 15
    values = values.double()
    figures = (values.min(), values.max(), values.mean(), values.std(correction=0))
    low, high, mean, std = (float(f"{figure.item():.{digits}g}") for figure in figures)
    return {"range": [low, high], "mean": mean, "std": std}


def _content(facts: Mapping[str, Any]) -> str:
    if "levels" in facts:
        return f"{facts['levels']:,} levels"
    if "range" in facts:
        low, high = facts["range"]
        if low is None:
            return "no values"
        if facts["type"] == "date":
            return " … ".join(str(EPOCH + timedelta(days=days)) for days in (low, high))
        return f"{low:.15g} … {high:.15g}"
    classes, total = facts["classes"], sum(facts["classes"].values())
    shown = (
        sorted(classes.items(), key=lambda item: -item[1])[:SHOWN_CLASSES] if len(classes) > SHOWN_CLASSES else classes
    )
    amounts = ", ".join(f"{name}: {count:,}" for name, count in dict(shown).items())
    if facts["type"] == "multilabel":
        return f"yes in {amounts}"
    more = f", … ({len(classes)} classes)" if len(classes) > SHOWN_CLASSES else ""
    largest = f"; largest {max(classes.values()) / total:.1%}" if total else ""
    return amounts + more + largest
