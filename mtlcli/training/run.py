"""One training, ready to start."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from mtlcli.config import Experiment
from mtlcli.data.base import Dataset, Examples
from mtlcli.data.examples import wrap_read_errors
from mtlcli.data.fingerprint import DataRecord
from mtlcli.data.placement import Placement
from mtlcli.errors import ConfigError
from mtlcli.models.model import MultiTaskModel
from mtlcli.specs import DatasetSpec, Shape
from mtlcli.tasks.base import TaskKind
from mtlcli.training.assembly.regularization import Regularization
from mtlcli.training.problems import Problems
from mtlcli.weighting.base import Weighting


@dataclass
class Run:
    """Every part of a run, built, on its device.

    datasets, specs: by alias. kinds: by task, in the experiment's order.
    sources: task → (alias of its dataset, name of its target).
    weighting: of the tasks, and of the regularizers that count as such.
    input_shape: of an example as the trunk is given it, the same for all datasets.
    size: of the model before the regularizers reshaped it (see `size.size`); empty where there are none.
    """

    experiment: Experiment
    device: torch.device
    datasets: dict[str, Dataset]
    specs: dict[str, DatasetSpec]
    sources: dict[str, tuple[str, str]]
    kinds: dict[str, TaskKind]
    model: MultiTaskModel
    weighting: Weighting
    placement: Placement
    input_shape: Shape
    size: dict[str, int] = field(default_factory=dict)
    regularization: Regularization = field(default_factory=lambda: Regularization([], []))
    _examples: dict[tuple[str, str], Examples] = field(default_factory=dict)

    def splits(self) -> list[str]:
        """The splits that every dataset has."""
        return [s for s in ("train", "val", "test") if all(s in spec.splits for spec in self.specs.values())]

    def notes(self) -> list[str]:
        """Notes on the data for the user, each with the key it is about.

        The datasets' own, and one for the tasks that have the same target.
        """
        notes = [f"datasets.{alias}: {note}" for alias, dataset in self.datasets.items() for note in dataset.notes()]
        tasks: dict[tuple[str, str], list[str]] = {}
        for task, source in self.sources.items():
            tasks.setdefault(source, []).append(task)
        for (alias, target), names in tasks.items():
            if len(names) > 1:
                notes.append(
                    f"tasks: {' and '.join(names)} have the same target, {target!r} of dataset {alias!r}; set `target` "
                    "in each of them if that isn't meant"
                )
        return notes

    def examples(self, split: str | Mapping[str, str]) -> dict[str, Examples]:
        """The examples of `split` of each dataset, read once. ConfigError where a dataset has no such split.

        split: `all` are those of all splits; a mapping names the split of each dataset, by alias.
        """
        return {
            alias: self.examples_of(alias, split if isinstance(split, str) else split[alias]) for alias in self.specs
        }

    def examples_of(self, alias: str, split: str) -> Examples:
        """The examples of `split` of one dataset; see `examples`. Errors name the dataset."""
        spec = self.specs[alias]
        if split not in (*spec.splits, "all"):
            message = f"the dataset has no split {split!r}; it has {', '.join(spec.splits)}"
            raise ConfigError(self.experiment.problem(f"datasets.{alias}", message))
        if (alias, split) not in self._examples:
            with Problems(self.experiment).now(f"datasets.{alias}"), wrap_read_errors(alias):
                self._examples[alias, split] = self.datasets[alias].examples(split, self.experiment.seed)
        return self._examples[alias, split]

    def sizes(self) -> dict[str, dict[str, int]]:
        """Split → alias → number of examples, of the splits that every dataset has."""
        return {split: {alias: len(part) for alias, part in self.examples(split).items()} for split in self.splits()}

    def data_records(self) -> dict[str, DataRecord]:
        """The data as it is now, by alias, for a checkpoint."""
        found: dict[str, DataRecord] = {}
        for alias, dataset in self.datasets.items():
            with Problems(self.experiment).now(f"datasets.{alias}"), wrap_read_errors(alias):
                found[alias] = dataset.recorded()
        return found

    @property
    def positive(self) -> dict[str, str]:
        """Task → the class that counts as yes, of the binary tasks where that isn't simply 1."""
        return {
            task: kind.positive
            for task, kind in self.kinds.items()
            if kind.positive is not None and (kind.target.classes or kind.positive != "1")
        }

    @property
    def columns(self) -> list[str]:
        """What a step has a loss and a weight of: the tasks, then the regularizers, those counted as tasks first."""
        return [*self.kinds, *(term.name for term in self.regularization.terms)]

    def autocast(self) -> torch.autocast:
        """The context in which the model computes, by `training.precision`."""
        return autocast(self.experiment, self.device)


def autocast(experiment: Experiment, device: torch.device) -> torch.autocast:
    """Return the context in which the model of an experiment computes on a device, by `training.precision`."""
    precision = experiment.training.precision
    dtype = torch.float16 if precision == "fp16" else torch.bfloat16
    return torch.autocast(device.type, dtype, enabled=precision != "fp32")
