"""Changes of the data since a checkpoint was saved: an error on resume, a warning in an evaluation."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any

from mtlcli.data.base import Dataset
from mtlcli.data.fingerprint import DataRecord, Fingerprint
from mtlcli.errors import ConfigError, Problem
from mtlcli.specs import DatasetSpec
from mtlcli.text import join_names
from mtlcli.training.run import Run

LOG = logging.getLogger("mtl")
OVERLAP = 0.25  # share of the training examples among the evaluated ones from which a warning is logged


def data_records(payload: Mapping[str, Any]) -> dict[str, DataRecord]:
    """Return the records of a checkpoint's datasets; older checkpoints have none: their splits were drawn by position.

    Args:
        payload: the content of the checkpoint.

    Returns:
        Alias → record.

    Raises:
        ConfigError: if the records are malformed.
    """
    plain = payload.get("data", {})
    if not isinstance(plain, dict):
        raise ConfigError(Problem("is not a valid record of a dataset", "the checkpoint's data"))
    records = {alias: DataRecord.from_dict(record, f"the checkpoint's data.{alias}") for alias, record in plain.items()}
    return {alias: records.get(alias, DataRecord("position")) for alias in payload["specs"]}


def check_unchanged(run: Run, now: Mapping[str, DataRecord], payload: Mapping[str, Any], source: str) -> None:
    """Check that the data has not changed since a checkpoint was saved.

    A change of the split `test` is a warning, since it doesn't affect the training.

    Args:
        run: the run.
        now: alias → record of the data as it is now.
        payload: the content of the checkpoint.
        source: path of the checkpoint, for messages.

    Raises:
        ConfigError: if the data has changed; the message lists all changes.
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
        head = f"{source}: a run can be resumed only with the data it was started with, and that has changed:"
        remedy = (
            f"Restore the data as it was, or start a new run with another --run-dir; trunk.init_from={best} gives it "
            "this run's trunk"
        )
        raise ConfigError([Problem(head), *problems, Problem(remedy)])


def check_specs(specs: Mapping[str, DatasetSpec], saved: Mapping[str, Any], source: str) -> None:
    """Check that the datasets have the descriptions of a checkpoint.

    Args:
        specs: alias → description now.
        saved: alias → description in the checkpoint, as plain data.
        source: path of the checkpoint, for messages.

    Raises:
        ConfigError: if a description differs; the message lists all.
    """
    # parsed first, since an older checkpoint lacks the fields that were added later
    parsed = {a: DatasetSpec.from_dict(spec, f"{source}: specs.{a}").to_dict() for a, spec in saved.items()}
    if differing := [alias for alias, spec in specs.items() if parsed.get(alias) != spec.to_dict()]:
        raise ConfigError(
            Problem(f"{source}: {_difference(parsed.get(alias), specs[alias])}", f"datasets.{alias}")
            for alias in differing
        )


def _difference(saved: dict[str, Any] | None, spec: DatasetSpec) -> str:
    """Describe the difference between the specs of a dataset whose content hasn't changed, with the remedy."""
    before = [column["name"] for column in (saved or {}).get("columns", [])]
    now = [column.name for column in spec.columns]
    if before != now and sorted(before) == sorted(now):
        return f"the feature columns are in another order. Restore the order in the file: {join_names(before)}"
    return "the run was started with other data, or the data is now read in another way; start a new run"


def new_datasets(run: Run, moved: Iterable[str]) -> set[str]:
    """Return the moved datasets whose content differs from the data that the model was trained on.

    Args:
        run: the run.
        moved: aliases of the datasets that are in another place.

    Returns:
        Aliases of those with other content.
    """
    changed = set()
    for alias in moved:
        record, hashes = run.datasets[alias].record, run.datasets[alias].all_hashes()
        if record is None or hashes is None or Fingerprint.of(hashes).whole() != record.whole():
            changed.add(alias)
    return changed


def warn_of_changes(run: Run, splits: Mapping[str, str], new: set[str]) -> None:
    """Log a warning if the evaluated data differs from the data that the model was trained on.

    Args:
        run: the run.
        splits: alias → the split that is evaluated.
        new: aliases of the datasets that are meant to have other data.
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
    """Return split → its change, and "" → a change of all data. now: the data as it is, if known."""
    if not record.splits:
        return {}
    columns = dataset.hashed_columns()
    if record.columns is not None and columns is not None and set(record.columns) != set(columns):
        gone, added = sorted(set(record.columns) - set(columns)), sorted(set(columns) - set(record.columns))
        differences = [f"column {name!r} is gone" for name in gone] + [f"column {name!r} is new" for name in added]
        return {"": f"{', '.join(differences)}; rows are identified by all cells, so they may be in other splits"}
    changes: dict[str, str] = {}
    own = dataset.own_splits()
    for split, before in record.splits.items():
        if split not in own:
            changes[split] = f"{before.n:,} examples before, none now"
            continue
        if now is not None and now.splits.get(split) == before:
            continue
        hashes = dataset.hashes(split)
        if hashes is not None:
            change = before.changes(hashes)
        else:
            current = None if now is None else now.splits.get(split)
            amount = len(dataset.examples(split, 0)) if split == "test" else before.n if current is None else current.n
            change = None if amount == before.n else f"{before.n:,} examples before, {amount:,} now"
            if change is None and current is not None and current.order != before.order:
                change = "its files have other numbers of rows, so that its rows would be in another order"
        if change is not None:
            changes[split] = change
    for split in own:
        if split not in record.splits:
            changes[split] = "the split didn't exist"
    return changes
