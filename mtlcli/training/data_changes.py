"""Changes of the data since a checkpoint was trained on it: refused on resume, warned of in an evaluation."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any

from mtlcli.data.base import Dataset
from mtlcli.data.fingerprint import DataRecord, Fingerprint
from mtlcli.errors import ConfigError, Problem
from mtlcli.training.run import Run

LOG = logging.getLogger("mtl")
OVERLAP = 0.25  # share of the training examples among those evaluated from which there is a warning


def data_records(payload: Mapping[str, Any]) -> dict[str, DataRecord]:
    """The records of a checkpoint's datasets, by alias; in older checkpoints splits were drawn by position.

    ConfigError where it isn't what mtl records.
    """
    plain = payload.get("data", {})
    if not isinstance(plain, dict):
        raise ConfigError(Problem("is not a valid record of a dataset", "the checkpoint's data"))
    found = {alias: DataRecord.from_dict(one, f"the checkpoint's data.{alias}") for alias, one in plain.items()}
    return {alias: found.get(alias, DataRecord("position")) for alias in payload["specs"]}


def check_unchanged(run: Run, now: Mapping[str, DataRecord], payload: Mapping[str, Any], source: str) -> None:
    """Refuse to go on where the data has changed: ConfigError with all that has.

    A change of the split `test` alone is a warning, for the training doesn't see it. now: the data as it is.
    """
    before = data_records(payload)
    problems: list[Problem] = []
    for alias, dataset in run.datasets.items():
        path, record = f"datasets.{alias}", before.get(alias, DataRecord("position"))
        if record.rule != now[alias].rule:
            if dataset.draws_test() or ("val" not in dataset.own_splits() and dataset.val > 0):
                problems.append(Problem("its splits were drawn by another rule, that of an earlier mtl", path))
            continue
        for split, change in _changes(dataset, record, now[alias]).items():
            problem = Problem(f"{split}: {change}" if split else change, path)
            if split == "test":
                LOG.warning("changed since the checkpoint: %s", problem)
            else:
                problems.append(problem)
    if problems:
        best = f"{source.rpartition('last.pt')[0]}best.pt"
        head = f"{source}: a run goes on only with the data it was started with, and that has changed:"
        remedy = (
            f"Restore the data as it was, or start a new run with another --run-dir; trunk.init_from={best} gives it "
            "this run's trunk"
        )
        raise ConfigError([Problem(head), *problems, Problem(remedy)])


def new_datasets(run: Run, moved: Iterable[str]) -> set[str]:
    """Those of the datasets `moved` to another place whose content isn't that of the data the model was trained on."""
    found = set()
    for alias in moved:
        record, hashes = run.datasets[alias].record, run.datasets[alias].all_hashes()
        if record is None or hashes is None or Fingerprint.of(hashes).whole() != record.whole():
            found.add(alias)
    return found


def warn_of_changes(run: Run, splits: Mapping[str, str], new: set[str]) -> None:
    """Warn of data that isn't what the model was trained on, before it is evaluated.

    splits: alias → the split that is evaluated. new: the datasets that are of other data anyway.
    """
    for alias, dataset in run.datasets.items():
        record = dataset.record
        if record is None or not record.splits:
            continue
        if alias in new:
            _warn_of_overlap(alias, dataset, record, splits[alias])
            continue
        changes = _changes(dataset, record)
        if dataset.fixed:
            changes = {split: change for split, change in changes.items() if split == splits[alias]}
        for split, change in changes.items():
            LOG.warning(
                "datasets.%s: the data has changed since the model was trained: %s%s",
                alias, f"{split}: " if split else "", change,
            )  # fmt: skip


def _warn_of_overlap(alias: str, dataset: Dataset, record: DataRecord, split: str) -> None:
    hashes, train = dataset.all_hashes(), record.splits.get("train")
    if hashes is None or train is None or not train.sample or split != "all":
        return
    size = len(train.sample) // 16
    share = 1 - train.lost(hashes) / size
    if share >= OVERLAP:
        LOG.warning(
            "datasets.%s: %s%.0f%% of the examples that the model was trained on are among those evaluated, so the "
            "metrics are too good; --split test leaves them out", alias, "" if train.n == size else "about ",
            100 * share,
        )  # fmt: skip


def _changes(dataset: Dataset, record: DataRecord, now: DataRecord | None = None) -> dict[str, str]:
    """Split → what has changed in it; under "" what concerns all of the data. now: the data as it is, where known."""
    if not record.splits:
        return {}
    columns = dataset.hashed_columns()
    if record.columns is not None and columns is not None and set(record.columns) != set(columns):
        gone, added = sorted(set(record.columns) - set(columns)), sorted(set(columns) - set(record.columns))
        parts = [f"column {name!r} is gone" for name in gone] + [f"column {name!r} is new" for name in added]
        return {"": f"{', '.join(parts)}; rows are known by all their cells, so they may be in other splits"}
    found: dict[str, str] = {}
    own = dataset.own_splits()
    for split, before in record.splits.items():
        if split not in own:
            found[split] = f"{before.n:,} examples before, none now"
            continue
        if now is not None and now.splits.get(split) == before:
            continue
        hashes = dataset.hashes(split)
        if hashes is not None:
            change = before.changes(hashes)
        else:
            amount = len(dataset.examples(split, 0)) if split == "test" else before.n
            change = None if amount == before.n else f"{before.n:,} examples before, {amount:,} now"
        if change is not None:
            found[split] = change
    for split in own:
        if split not in record.splits:
            found[split] = "there was no such split"
    return found
