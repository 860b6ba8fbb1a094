"""Runs of a study: whether a folder holds a completed run that can be reused."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from mtlcli.config import Condition, Experiment, SamplingConfig, Where, load_experiment
from mtlcli.config.changed_keys import check_same
from mtlcli.data.examples import wrap_read_errors
from mtlcli.errors import ConfigError, InterruptedRunError, Problem
from mtlcli.training.assembly.data_checks import open_datasets

# keys that do not affect the metrics of a run, so that they may differ between a run and an experiment that reuses it
IGNORED_KEYS = ("training.device", "training.threads", "training.loading", "training.workers",
                "checkpoint.every", "checkpoint.keep")  # fmt: skip

Fingerprints = Mapping[str, Mapping[str, Any]]  # split → `n`, `content` and `order`, as in `DataRecord.short`


def completed_summary(folder: Path, experiment: Experiment, data: CurrentData) -> dict[str, Any] | None:
    """Return the summary of the completed run in a folder.

    Args:
        folder: the run folder, which may not exist.
        experiment: the experiment that the run must have.
        data: the current data, which must be that of the run.

    Returns:
        The content of `summary.json`; None if it has no run, or an incomplete one.

    Raises:
        ConfigError: If the folder holds a run of a different experiment or with a damaged file, or a completed run
            whose data has changed.
    """
    config, summary_file = folder / "config.yaml", folder / "summary.json"
    if not config.is_file():
        return None
    saved = load_experiment(config).resolved()
    try:
        check_same(saved, experiment.resolved(), IGNORED_KEYS, str(folder))
    except ConfigError as error:
        message = f"{folder} belongs to a different experiment. Use another --out, or revert these keys:"
        raise ConfigError([Problem(message), *error.problems[1:]]) from error
    if not summary_file.is_file():
        return None
    summary = read_summary(folder)
    if summary["status"] != "completed":
        return None
    if changes := data.changes(experiment, summary.get("data", {})):
        message = f"{folder} was trained on data that has changed since. Use another --out, or restore the data:"
        raise ConfigError(map(Problem, [message, *changes]))
    return summary


def read_summary(folder: Path) -> dict[str, Any]:
    """Read the `summary.json` of a run folder; ConfigError if it is damaged."""
    return read_json(folder / "summary.json")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file of a run folder.

    Args:
        path: the file.

    Returns:
        Its content.

    Raises:
        ConfigError: If it is damaged.
    """
    try:
        document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"{path}: damaged; remove {path.parent} to train this run again") from error
    return document


class InterruptedStudyError(InterruptedRunError):
    """A study that was stopped by a signal.

    Args:
        exit_code: 130 after Ctrl-C, 143 after SIGTERM.
    """

    def __init__(self, exit_code: int) -> None:
        reason = "interrupted (Ctrl-C)" if exit_code == 130 else "terminated (SIGTERM)"
        super().__init__(f"{reason}; finished work is kept, and the same command resumes the study", exit_code)


class CurrentData:
    """The data as it is now; each dataset is read once, when it is first compared with the record of a run."""

    def __init__(self) -> None:
        self._fingerprints: dict[str, Fingerprints | None] = {}

    def changes(self, experiment: Experiment, recorded: Mapping[str, Fingerprints]) -> list[str]:
        """Describe the changes of the data since a run recorded it.

        Args:
            experiment: the experiment of the run.
            recorded: alias → fingerprints in the `summary.json` of the run; runs of earlier versions have none.

        Returns:
            The changes, such as `datasets.images: train: 300 examples then, 290 now`.
        """
        changes = []
        for alias in experiment.datasets:
            if (before := recorded.get(alias)) and (now := self._read(experiment, alias)) is not None:
                changes += [f"datasets.{alias}: {split}: {change}" for split, change in _changes(before, now)]
        return changes

    def _read(self, experiment: Experiment, alias: str) -> Fingerprints | None:
        """Fingerprint a dataset; None for a published one, whose examples never change."""
        entries = experiment.resolved()["datasets"]
        keys = {name: json.dumps(entry, default=str) for name, entry in entries.items()}
        if keys[alias] not in self._fingerprints:
            for name, (dataset, _) in open_datasets(experiment).items():
                if keys[name] not in self._fingerprints:
                    with wrap_read_errors(name):
                        self._fingerprints[keys[name]] = None if dataset.fixed else dataset.recorded().short()
        return self._fingerprints[keys[alias]]


def _changes(before: Fingerprints, now: Fingerprints) -> Iterator[tuple[str, str]]:
    for split in dict.fromkeys([*before, *now]):
        old, new = before.get(split), now.get(split)
        if old == new:
            continue
        if old is None or new is None:
            yield split, "the split is new" if old is None else "the split no longer exists"
        elif old["n"] != new["n"]:
            yield split, f"{old['n']:,} examples then, {new['n']:,} now"
        elif old["content"] == new["content"]:
            yield split, "the same examples, in a different order"
        else:
            yield split, "different examples, of the same number"


def keep_task(experiment: Experiment, task: str) -> Experiment:
    """Restrict an experiment to one task and its dataset.

    Args:
        experiment: the experiment; its stems have the key `shape` (see `fix_stem_shapes`), because it may depend on
            datasets that are left out.
        task: the task to keep.

    Returns:
        The experiment, with the stem of the dataset, without the optimizer groups of the other tasks and without
        `after`: the task alone receives no prediction of another. The sample space of the task is the same.
    """
    entry = experiment.tasks[task]
    alias = entry.dataset
    others = experiment.tasks.keys() - {task}
    if experiment.stems and alias not in experiment.stems:
        others |= {"stems"}
    groups = {name: group for name, group in experiment.optimizer.groups.items() if name not in others}
    return experiment.model_copy(
        update={
            "datasets": {alias: experiment.datasets[alias]},
            "tasks": {task: entry.model_copy(update={"after": None, "where": _space_alone(experiment, task)})},
            "stems": {alias: experiment.stems[alias]} if alias in experiment.stems else {},
            "optimizer": replace(experiment.optimizer, groups=groups),
            "training": experiment.training.model_copy(update={"sampling": _sampling_of(experiment, alias)}),
        }
    )


def _sampling_of(experiment: Experiment, alias: str) -> SamplingConfig:
    """Return the sampling of an experiment for one of its datasets: the other ones have no rate and no limit."""
    sampling = experiment.training.sampling
    if "rates" in sampling.options:
        sampling = replace(sampling, options={"rates": {alias: sampling.options["rates"][alias]}})
    if isinstance(sampling.limit, dict):
        sampling = replace(sampling, limit=sampling.limit.get(alias))
    return sampling


def _space_alone(experiment: Experiment, task: str) -> Where | None:
    """Return the sample space of a task with targets in place of other tasks."""
    conditions: list[Condition] = []
    where = experiment.tasks[task].where
    while where is not None:
        other = None if where.task is None else experiment.tasks[where.task]
        target = where.target if other is None else other.target or where.task
        conditions += [Condition(target=str(target), equals=where.equals), *where.also]
        where = None if other is None else other.where
    if not conditions:
        return None
    first, *others = conditions
    return Where(target=first.target, equals=first.equals, also=others)
