"""The runs of a study: trained once, and used again ever after."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from mtlcli.config import Experiment, load_experiment
from mtlcli.config.differences import check_same
from mtlcli.data.examples import wrap_read_errors
from mtlcli.errors import ConfigError, InterruptedRunError, Problem
from mtlcli.training.assembly.data_checks import open_datasets

# what may differ between the run that is there and the one asked for: where and how fast it trains
FREE = ("training.device", "training.threads", "training.loading", "training.workers",
        "checkpoint.every", "checkpoint.keep")  # fmt: skip


def finished(folder: Path, experiment: Experiment, data: CurrentData) -> dict[str, Any] | None:
    """The summary of the run in a folder, if it is there and completed.

    ConfigError where the folder holds a run, done or not, of another experiment or one whose `config.yaml` can't be
    loaded, or a completed one of other data.
    """
    config, summary = folder / "config.yaml", folder / "summary.json"
    if not config.is_file():
        return None
    saved = load_experiment(config).resolved()
    try:
        check_same(saved, experiment.resolved(), FREE, str(folder))
    except ConfigError as error:
        message = f"{folder} is of another experiment or budget; use another --out, or undo:"
        raise ConfigError([Problem(message), *error.problems[1:]]) from error
    if not summary.is_file():
        return None
    found = summary_of(folder)
    if found["status"] != "completed":
        return None
    if changes := data.changes(experiment, found.get("data", {})):
        message = f"{folder} was trained on data that has changed since; use another --out, or restore the data:"
        raise ConfigError(map(Problem, [message, *changes]))
    return found


def summary_of(folder: Path) -> dict[str, Any]:
    """The `summary.json` of a run folder. ConfigError where it is damaged."""
    return read_json(folder / "summary.json")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON document of a run folder. ConfigError where it is damaged."""
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"{path}: damaged; remove {path.parent}, and it is trained anew") from error
    return found


def interrupted(exit_code: int) -> InterruptedRunError:
    """The error of a study that a signal has stopped."""
    name = "interrupted (Ctrl-C)" if exit_code == 130 else "terminated (SIGTERM)"
    return InterruptedRunError(f"{name}; what is done is kept: the same command goes on from there", exit_code)


Prints = Mapping[str, Mapping[str, Any]]  # split → `n`, `content` and `order`, as `DataRecord.short` gives them


class CurrentData:
    """The data as it is now. It is read when it is first compared with what a run recorded, once for each dataset."""

    def __init__(self) -> None:
        self._known: dict[str, Prints | None] = {}

    def changes(self, experiment: Experiment, recorded: Mapping[str, Prints]) -> list[str]:
        """Changes since a run of the experiment recorded its data, such as `t: train: 300 examples then, …`.

        recorded: alias → its data, as the run's `summary.json` has it; runs of earlier versions have none.
        """
        found = []
        for alias in experiment.datasets:
            if (then := recorded.get(alias)) and (now := self._of(experiment, alias)) is not None:
                found += [f"datasets.{alias}: {split}: {change}" for split, change in _changes(then, now)]
        return found

    def _of(self, experiment: Experiment, alias: str) -> Prints | None:
        """None for published data, whose examples never change."""
        entries = experiment.resolved()["datasets"]
        keys = {name: json.dumps(entry, default=str) for name, entry in entries.items()}
        if keys[alias] not in self._known:
            for name, (dataset, _) in open_datasets(experiment).items():
                if keys[name] not in self._known:
                    with wrap_read_errors(name):
                        self._known[keys[name]] = None if dataset.fixed else dataset.recorded().short()
        return self._known[keys[alias]]


def _changes(then: Prints, now: Prints) -> Iterator[tuple[str, str]]:
    for split in dict.fromkeys([*then, *now]):
        before, after = then.get(split), now.get(split)
        if before == after:
            continue
        if before is None or after is None:
            yield split, "there was no such split" if before is None else "there is no such split any more"
        elif before["n"] != after["n"]:
            yield split, f"{before['n']:,} examples then, {after['n']:,} now"
        elif before["content"] == after["content"]:
            yield split, "the same examples are in another order"
        else:
            yield split, "other examples, though as many"


def one_task(experiment: Experiment, task: str) -> Experiment:
    """The same with that task and its dataset alone."""
    alias = experiment.tasks[task].dataset
    others = experiment.tasks.keys() - {task}
    groups = {name: group for name, group in experiment.optimizer.groups.items() if name not in others}
    return experiment.model_copy(
        update={
            "datasets": {alias: experiment.datasets[alias]},
            "tasks": {task: experiment.tasks[task]},
            "optimizer": replace(experiment.optimizer, groups=groups),
        }
    )
