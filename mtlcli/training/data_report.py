"""Report on the data of an experiment: columns, targets and numbers of labels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import date, timedelta
from typing import Any

import torch
from torch import Tensor

from mtlcli.data.base import Dataset
from mtlcli.data.examples import StreamedExamples
from mtlcli.data.formats.column_report import ColumnFacts
from mtlcli.data.samplers.base import EpochAmount, epoch_amounts
from mtlcli.errors import MtlError
from mtlcli.specs import TargetSpec, has_label, is_labelled
from mtlcli.training.map_report import describe_maps
from mtlcli.training.run import Run
from mtlcli.training.text_report import describe_tokens, summarize_tokens

Report = dict[str, dict[str, Any]]
Gaps = dict[str, dict[str, dict[str, dict[str, float]]]]
SHOWN_CLASSES = 10
SHOWN_COLUMNS = 200
EPOCH = date(1970, 1, 1)  # day 0 of encoded dates


def data_report(run: Run, fetch: bool = False) -> Report:
    """Describe the columns and targets of each dataset.

    Args:
        run: the run.
        fetch: whether to read data that may have to be downloaded; if not, the targets of such datasets are left out.

    Returns:
        Alias → a dict of plain data. `columns`, for a table: name → type, share of missing values, and levels or range
        in the training rows. `texts`, for a trunk that reads text: split → numbers of tokens. `excluded`: column → the
        reason why it isn't a feature. `targets`: name → type, number of labels in each split, and for the training rows
        the number of each class or label, or the range, mean and standard deviation. For a target that is a map, see
        `map_report.describe_maps`.
    """
    return {
        alias: {
            "columns": _columns(dataset),
            **(_texts(run, alias, fetch) if run.tokenizer is not None else {}),
            "excluded": dict(report.excluded) if (report := dataset.report()) else {},
            "targets": _targets(run, alias) if fetch else _targets_at_hand(run, alias),
        }
        for alias, dataset in run.datasets.items()
    }


def _texts(run: Run, alias: str, fetch: bool) -> dict[str, Any]:
    """Return the tokens of a dataset under `texts`, if its examples can be read without a download or may be."""
    dataset, spec = run.datasets[alias], run.specs[alias]
    if not fetch and (dataset.collection is not None or dataset.made_of):
        return {}
    facts = {split: describe_tokens(run.examples_of(alias, split)) for split in spec.splits}
    return {"texts": {split: tokens for split, tokens in facts.items() if tokens is not None}}


def epoch_report(run: Run) -> dict[str, EpochAmount]:
    """Describe an epoch.

    Args:
        run: the run.

    Returns:
        Alias → examples in an epoch, and passes over the dataset; empty if the examples of a dataset aren't at hand.
    """
    if any(dataset.collection is not None or dataset.made_of for dataset in run.datasets.values()):
        return {}
    with suppress(MtlError):  # a training run reports errors in the examples
        sizes = {alias: len(run.examples_of(alias, "train")) for alias in run.datasets}
        return epoch_amounts(run.make_sampler(sizes), sizes)
    return {}


def count_unseen(run: Run, split: str | Mapping[str, str]) -> Gaps:
    """Count the categories unseen in training and the missing values in the rows of a split.

    Args:
        run: the run.
        split: name of the split of all datasets, or alias → name.

    Returns:
        `unknown` and `missing` → alias → column → {count, share}; datasets and columns without any are left out.
    """
    counts: Gaps = {"unknown": {}, "missing": {}}
    for alias, examples in run.examples(split).items():
        for name, gaps in run.datasets[alias].unseen(examples).items():
            for kind, count in (("unknown", gaps.unknown), ("missing", gaps.missing)):
                if count:
                    counts[kind].setdefault(alias, {})[name] = {"count": count, "share": count / gaps.rows}
    return counts


def report_rows(report: Report) -> Iterator[list[str]]:
    """Yield the rows of the report, the header first; nothing if it has no column and no target.

    Args:
        report: what `data_report` returned.

    Yields:
        The cells of a row.
    """
    if not any(any(description.values()) for description in report.values()):
        return
    yield ["dataset", "column", "as", "type", "missing", "levels, range, or labels"]
    for alias, description in report.items():
        if splits := description.get("texts"):
            yield [alias, "(tokens)", "input", "text", "", summarize_tokens(splits)]
        for name, facts in list(description["columns"].items())[:SHOWN_COLUMNS]:
            yield [alias, name, "feature", facts["type"], f"{facts['missing']:.1%}", _content(facts)]
        if (more := len(description["columns"]) - SHOWN_COLUMNS) > 0:
            yield [alias, f"… {more} more", "feature", "", "", ""]
        for name, why in description["excluded"].items():
            yield [alias, name, "not used", "", "", why]
        for name, facts in description["targets"].items():
            if facts["labels"] is None:
                yield [alias, name, "target", facts["type"], "", "not counted: the maps are read one at a time"]
                continue
            labels = ", ".join(f"{split} {count:,}" for split, count in facts["labels"].items())
            labels = f"images with labels: {labels}" if "pixels" in facts else labels
            yield [alias, name, "target", facts["type"], f"{facts['missing']:.1%}", f"{_content(facts)} ({labels})"]


def describe_unseen(gaps: Gaps) -> Iterator[str]:
    """Yield a line for each column with unknown categories or missing values.

    Args:
        gaps: what `count_unseen` returned.

    Yields:
        The line.
    """
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
            **_extent(facts),
        }
        for facts in report.facts
    }


def _extent(facts: ColumnFacts) -> dict[str, Any]:
    if facts.type == "text":  # without features for a trunk that reads text
        return {} if facts.features is None else {"features": facts.features}
    return {"levels": facts.levels} if facts.levels is not None else {"range": [facts.low, facts.high]}


def _targets_at_hand(run: Run, alias: str) -> dict[str, dict[str, Any]]:
    """Describe the targets if the examples can be read without a download."""
    dataset = run.datasets[alias]
    if dataset.collection is not None or dataset.made_of:
        return {}
    with suppress(MtlError):  # a training run reports errors in the examples
        return _targets(run, alias)
    return {}


def _targets(run: Run, alias: str) -> dict[str, dict[str, Any]]:
    spec = run.specs[alias]
    examples = {split: run.examples_of(alias, split) for split in spec.splits}
    if any(isinstance(of_split, StreamedExamples) for of_split in examples.values()):
        return {}  # counting the labels would take a pass over the data
    targets: dict[str, dict[str, Any]] = {}
    for name, target in spec.targets.items():
        if target.is_map:
            targets[name] = describe_maps(examples, name, target)
            continue
        targets[name] = _describe({split: of_split.labels(name) for split, of_split in examples.items()}, target)
    for task, space in run.spaces.items():
        if run.sources[task][0] == alias:
            labels = {split: of_split.labels(run.label_sources[task][1]) for split, of_split in examples.items()}
            targets[f"{run.sources[task][1]} where {space}"] = _describe(labels, run.kinds[task].target)
    return targets


def _describe(labels: Mapping[str, Tensor], target: TargetSpec) -> dict[str, Any]:
    counts = {split: int(has_label(values).sum()) for split, values in labels.items()}
    total = sum(len(values) for values in labels.values())
    basis = labels.get("train", next(iter(labels.values())))
    return {
        "type": target.type,
        "labels": counts,
        "missing": 1 - sum(counts.values()) / max(total, 1),
        **_distribution(basis, target),
    }


def _distribution(labels: Tensor, target: TargetSpec) -> dict[str, Any]:
    if target.type == "multilabel":
        return {"classes": dict(zip(target.class_names, (labels == 1).sum(0).tolist(), strict=True))}
    values = labels[is_labelled(labels)]
    if target.type == "text":
        return {}
    if target.type != "real":
        names = target.class_names
        counts = torch.bincount(values.long().clamp(min=0), minlength=len(names)).tolist()
        return {"classes": dict(zip(names, counts, strict=False))}
    if not len(values):
        return {"range": [None, None], "mean": None, "std": None}
    digits = 7 if values.dtype == torch.float32 else 15
    values = values.double()
    statistics = (values.min(), values.max(), values.mean(), values.std(correction=0))
    low, high, mean, std = (float(f"{statistic.item():.{digits}g}") for statistic in statistics)
    return {"range": [low, high], "mean": mean, "std": std}


def _content(facts: Mapping[str, Any]) -> str:
    if "levels" in facts:
        return f"{facts['levels']:,} levels"
    if "features" in facts:
        return f"{facts['features']:,} features"
    if "range" in facts:
        low, high = facts["range"]
        if low is None:
            return "no values"
        if facts["type"] == "date":
            return " … ".join(str(EPOCH + timedelta(days=days)) for days in (low, high))
        return f"{low:.15g} … {high:.15g}"
    if "classes" not in facts:  # a text, whose tokens are described
        return ""
    classes, total = facts["classes"], sum(facts["classes"].values())
    if "pixels" in facts:
        shares = sorted(((count / max(total, 1), name) for name, count in classes.items()), reverse=True)
        more = f", … ({len(classes)} classes)" if len(classes) > SHOWN_CLASSES else ""
        return "pixels of " + ", ".join(f"{name}: {share:.1%}" for share, name in shares[:SHOWN_CLASSES]) + more
    shown = (
        sorted(classes.items(), key=lambda item: -item[1])[:SHOWN_CLASSES] if len(classes) > SHOWN_CLASSES else classes
    )
    amounts = ", ".join(f"{name}: {count:,}" for name, count in dict(shown).items())
    if facts["type"] == "multilabel":
        return f"yes in {amounts}"
    more = f", … ({len(classes)} classes)" if len(classes) > SHOWN_CLASSES else ""
    largest = f"; largest {max(classes.values()) / total:.1%}" if total else ""
    return amounts + more + largest
