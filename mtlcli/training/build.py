"""Experiment → everything a run is made of: datasets, task kinds, model, weighting."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from mtlcli import registry
from mtlcli.config import ComponentEntry, Experiment
from mtlcli.data.dataset import Dataset, Examples
from mtlcli.data.placement import Placement
from mtlcli.errors import ConfigError, Problem, nearest
from mtlcli.models.model import MultiTaskModel
from mtlcli.models.trunk import Trunk
from mtlcli.models.warm_start import freeze, warm_start
from mtlcli.specs import DatasetSpec, Shape, TargetSpec
from mtlcli.tasks.kind import TaskKind
from mtlcli.training.checkpoint import load_checkpoint
from mtlcli.training.device import choose_device, prepare_device
from mtlcli.weighting.weighting import WeightedTask, Weighting


@dataclass
class Run:
    """One training, ready to start: every part built, on its device.

    datasets, specs: by alias. kinds: by task, in the experiment's order.
    sources: task → (alias of its dataset, name of its target).
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
    _examples: dict[tuple[str, str], Examples] = field(default_factory=dict)

    def splits(self) -> list[str]:
        """The splits that every dataset has."""
        return [s for s in ("train", "val", "test") if all(s in spec.splits for spec in self.specs.values())]

    def examples(self, split: str) -> dict[str, Examples]:
        """The examples of `split` of each dataset, read once. ConfigError where a dataset has no such split."""
        for alias, spec in self.specs.items():
            if split not in spec.splits:
                message = f"the dataset has no split {split!r}; it has {', '.join(spec.splits)}"
                raise ConfigError(self.experiment.problem(f"datasets.{alias}", message))
            if (alias, split) not in self._examples:
                self._examples[alias, split] = self.datasets[alias].examples(split, self.experiment.seed)
        return {alias: self._examples[alias, split] for alias in self.specs}

    def autocast(self) -> torch.autocast:
        """The context in which the model computes, by `training.precision`."""
        precision = self.experiment.training.precision
        dtype = torch.float16 if precision == "fp16" else torch.bfloat16
        return torch.autocast(self.device.type, dtype, enabled=precision != "fp32")


def build(experiment: Experiment) -> Run:
    """Everything the experiment names, initialized by its seed, on its device. ConfigError for what can't work."""
    device = choose_device(experiment)
    prepare_device(experiment, device)
    run = assemble(experiment, device)
    if experiment.trunk.init_from is not None:
        with Problems(experiment).now("trunk.init_from"):
            payload = load_checkpoint(experiment.trunk.init_from)
            warm_start(run.model.sharing, payload["model"], experiment.trunk.init_from)
    return run


def rebuild(experiment: Experiment, payload: Mapping[str, Any]) -> Run:
    """The run of a checkpoint's payload, with its trained model. `experiment` may name other data or another device."""
    device = choose_device(experiment)
    prepare_device(experiment, device)
    stored = {alias: DatasetSpec.from_dict(spec) for alias, spec in payload["specs"].items()}
    run = assemble(experiment, device, stored)
    run.model.load_state_dict(payload["model"])
    return run


def assemble(experiment: Experiment, device: torch.device, stored: Mapping[str, DatasetSpec] | None = None) -> Run:
    """Build every part. On the device `meta` that checks the whole experiment at next to no cost.

    stored: what the datasets were like when a checkpoint was trained; it takes the place of fitting them anew.
    The weights are drawn on the CPU, so they are the same for every device.
    """
    problems = Problems(experiment)
    datasets, specs = _datasets(experiment, stored, problems)
    input_shape = _input_shape(experiment, specs)
    sources, kinds = _tasks(experiment, specs, problems)

    def make_trunk() -> Trunk:
        with problems.now("trunk"):
            trunk: Trunk = _create(registry.trunks, experiment.trunk, input_shape)
            return freeze(trunk) if experiment.trunk.frozen else trunk

    def make_head(task: str, features: int) -> nn.Module:
        with problems.now(f"tasks.{task}.head"):
            head: nn.Module = _create(registry.heads, experiment.tasks[task].head, features, kinds[task].outputs)
            after = kinds[task].output_layer()
            return head if after is None else nn.Sequential(head, after)

    weighted = [WeightedTask(name, task.weight, kinds[name].likelihood) for name, task in experiment.tasks.items()]
    inputs = {task: alias for task, (alias, _) in sources.items()}
    with device if device.type == "meta" else nullcontext():
        with problems.now("sharing"):
            sharing = _create(registry.sharings, experiment.sharing, make_trunk, make_head, inputs)
        with problems.now("weighting"):
            weighting = _create(registry.weightings, experiment.weighting, weighted)
            weighting.seed(experiment.seed)
        model = MultiTaskModel(sharing, {alias: (spec.mean, spec.std) for alias, spec in specs.items()}, input_shape)
    model, weighting = model.to(device), weighting.to(device)
    placement = Placement(device, experiment.training.loading, experiment.training.workers)
    return Run(experiment, device, datasets, specs, sources, kinds, model, weighting, placement)


class Problems:
    """Collects what is wrong with an experiment's parts, with the place of each in the YAML file."""

    def __init__(self, experiment: Experiment) -> None:
        self.experiment = experiment
        self.found: list[Problem] = []

    @contextmanager
    def at(self, path: str) -> Iterator[None]:
        """Collect the problem a component at `path` raises, and go on after the block."""
        try:
            yield
        except ConfigError as error:
            self.found += error.problems
        except (ValueError, TypeError) as error:  # what components raise for what the user asked of them
            self.found.append(self.experiment.problem(path, str(error)))

    @contextmanager
    def now(self, path: str) -> Iterator[None]:
        """Raise at once the ConfigError for what a component at `path` raises."""
        with self.at(path):
            yield
        self.check()

    def check(self) -> None:
        if self.found:
            raise ConfigError(self.found)


def _create(components: registry.Registry, entry: ComponentEntry, *supplied: Any) -> Any:
    return components[entry.name].target(*supplied, **entry.options)


def _datasets(
    experiment: Experiment, stored: Mapping[str, DatasetSpec] | None, problems: Problems
) -> tuple[dict[str, Dataset], dict[str, DatasetSpec]]:
    datasets: dict[str, Dataset] = {}
    specs = {}
    for alias, entry in experiment.datasets.items():
        with problems.at(f"datasets.{alias}"):
            dataset: Dataset = _create(registry.datasets, entry)
            if stored is None:
                specs[alias] = dataset.describe()
            else:
                dataset.restore(stored[alias])
                specs[alias] = stored[alias]
            datasets[alias] = dataset
    problems.check()
    return datasets, specs


def _input_shape(experiment: Experiment, specs: Mapping[str, DatasetSpec]) -> Shape:
    """The one shape all inputs have, since they go through one trunk."""
    shapes = {alias: spec.input_shape for alias, spec in specs.items()}
    if len(set(shapes.values())) > 1:
        told = ", ".join(f"{alias} {'×'.join(map(str, shape))}" for alias, shape in shapes.items())
        message = f"the datasets' inputs differ in shape ({told}), and all of them go through the same trunk"
        raise ConfigError(experiment.problem("datasets", message))
    return next(iter(shapes.values()))


def _tasks(
    experiment: Experiment, specs: Mapping[str, DatasetSpec], problems: Problems
) -> tuple[dict[str, tuple[str, str]], dict[str, TaskKind]]:
    sources: dict[str, tuple[str, str]] = {}
    kinds: dict[str, TaskKind] = {}
    for name, task in experiment.tasks.items():
        with problems.at(f"tasks.{name}.target"):
            target_name, target = _target(task.target, specs[task.dataset], task.dataset)
            sources[name] = (task.dataset, target_name)
            with problems.at(f"tasks.{name}.kind"):
                kinds[name] = _create(registry.kinds, task.kind, target)
    problems.check()
    return sources, kinds


def _target(name: str | None, spec: DatasetSpec, alias: str) -> tuple[str, TargetSpec]:
    names = ", ".join(spec.targets)
    if name is None and spec.main_target is None:
        raise ValueError(f"dataset {alias!r} has several targets and no main one; name one of: {names}")
    name = name or spec.main_target
    if name not in spec.targets:
        hint = nearest(str(name), spec.targets)
        raise ValueError(f"dataset {alias!r} has no target {name!r}.{hint} It has: {names}")
    return name, spec.targets[name]
