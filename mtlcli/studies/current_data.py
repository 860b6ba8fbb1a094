"""Comparison of the data as it is now with the data that the finished runs of a study were trained on."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from mtlcli.config import Experiment
from mtlcli.data.reading import reading
from mtlcli.training.assemble import open_datasets

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
                    with reading(name):
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
