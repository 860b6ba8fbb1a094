"""A run: everything that an experiment trains and evaluates."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from mtlcli import registry
from mtlcli.component import Component
from mtlcli.config import Experiment
from mtlcli.config.locations import Problems
from mtlcli.data.base import Dataset, Examples
from mtlcli.data.examples import wrap_read_errors
from mtlcli.data.fingerprint import DataRecord
from mtlcli.data.formats.tokenization import TextTokenizer
from mtlcli.data.loader import Batch
from mtlcli.data.placement import Placement
from mtlcli.data.samplers.base import Sampler, limit_sampler
from mtlcli.errors import ConfigError
from mtlcli.models.inputs import blank_texts
from mtlcli.models.model import MultiTaskModel
from mtlcli.models.pretrained.base import Base
from mtlcli.plugins import loaded_plugins
from mtlcli.specs import DatasetSpec, Shape
from mtlcli.tasks.base import TaskKind
from mtlcli.training.assembly.class_weights import fit_class_weights
from mtlcli.training.assembly.regularization import Regularization
from mtlcli.training.assembly.spaces import RESTRICTED, Space
from mtlcli.training.assembly.texts import encode_texts
from mtlcli.training.assembly.weight_checks import check_weights
from mtlcli.weighting.base import Weighting


@dataclass
class Run:
    """Datasets, model, weighting and regularizers of an experiment, on their device.

    Attributes:
        experiment: the experiment.
        device: the device of the model.
        datasets: alias → dataset.
        specs: alias → shapes, targets and statistics of the dataset.
        sources: task → (alias of its dataset, name of its target).
        kinds: task → its kind, in the experiment's order.
        model: the model.
        weighting: the weighting of the tasks, and of the regularizers that count as tasks.
        placement: how inputs reach the device.
        input_shape: shape of an example as the trunk takes it, the same for all datasets.
        size: size of the model before the regularizers changed its layers; empty if there are no regularizers.
        regularization: the regularizers.
        spaces: task → its sample space, for tasks with `where`.
        base: the pretrained model that the trunk is built from; None if there is none.
        tokenizer: tokenizer of the texts, for a trunk that reads text; None for others.
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
    spaces: dict[str, Space] = field(default_factory=dict)
    base: Base | None = None
    tokenizer: TextTokenizer | None = None
    _class_weights: dict[str, Tensor] | None = None
    _examples: dict[tuple[str, str], Examples] = field(default_factory=dict)

    def splits(self) -> list[str]:
        """Return the splits that every dataset has."""
        return [s for s in ("train", "val", "test") if all(s in spec.splits for spec in self.specs.values())]

    def blank_inputs(self, examples: int = 1, tokens: int = 8) -> dict[str, Tensor]:
        """Return alias → zeros, [examples, *input_shape], on the model's device; texts have at most `tokens` tokens."""
        return {
            alias: torch.zeros(examples, *spec.input_shape, device=self.device)
            if spec.text is None
            else blank_texts(spec.text, examples, tokens, self.device)
            for alias, spec in self.specs.items()
        }

    def notes(self) -> list[str]:
        """Return notes on the data, each with its key path: the datasets' own, and those on tasks with one target."""
        notes = [f"datasets.{alias}: {note}" for alias, dataset in self.datasets.items() for note in dataset.notes()]
        tasks: dict[tuple[str, str], list[str]] = {}
        for task, source in self.label_sources.items():
            tasks.setdefault(source, []).append(task)
        for (alias, target), names in tasks.items():
            if len(names) > 1:
                notes.append(
                    f"tasks: {' and '.join(names)} have the same target, {target!r} of dataset {alias!r}; set `target` "
                    "in each of them if that isn't meant"
                )
        return notes

    def examples(self, split: str | Mapping[str, str]) -> dict[str, Examples]:
        """Return the examples of a split of each dataset. They are read once.

        Args:
            split: name of the split of all datasets, or alias → name; `all` means the examples of all splits.

        Returns:
            Alias → examples. A dataset without that split raises ConfigError.
        """
        return {
            alias: self.examples_of(alias, split if isinstance(split, str) else split[alias]) for alias in self.specs
        }

    def examples_of(self, alias: str, split: str) -> Examples:
        """Return the examples of a split of one dataset.

        Args:
            alias: the alias of the dataset; errors name it.
            split: name of the split, or `all`.

        Returns:
            The examples.

        Raises:
            ConfigError: if the dataset has no such split.
        """
        spec = self.specs[alias]
        if split not in (*spec.splits, "all"):
            message = f"the dataset has no split {split!r}; it has {', '.join(spec.splits)}"
            raise ConfigError(self.experiment.problem(f"datasets.{alias}", message))
        if (alias, split) not in self._examples:
            with Problems(self.experiment).now(f"datasets.{alias}"), wrap_read_errors(alias):
                examples = self.datasets[alias].examples(split, self.experiment.seed)
                if spec.text is not None and self.tokenizer is not None:
                    examples = encode_texts(examples, alias, spec, self.tokenizer, self.base, self.sources, self.kinds)
                if examples.weights is not None:
                    kinds = {task: self.kinds[task] for task, (source, _) in self.sources.items() if source == alias}
                    check_weights(examples, split, kinds)
                self._examples[alias, split] = self._restrict(alias, examples) if self.spaces else examples
        return self._examples[alias, split]

    @property
    def label_sources(self) -> dict[str, tuple[str, str]]:
        """Task → (alias of its dataset, key of its labels in `Examples.targets`, which depends on its sample space)."""
        if not self.spaces:
            return self.sources
        return {
            task: (alias, f"{target}{RESTRICTED}{task}" if task in self.spaces else target)
            for task, (alias, target) in self.sources.items()
        }

    def labels(self, task: str, targets: Mapping[str, Tensor]) -> Tensor:
        """Return the labels of a task, missing outside its sample space.

        Args:
            task: the task.
            targets: target of its dataset → labels, [N] or [N, size].

        Returns:
            The labels, [N] or [N, size].
        """
        target, space = self.sources[task][1], self.spaces.get(task)
        return targets[target] if space is None else space.labels_of(target, targets)

    def _restrict(self, alias: str, examples: Examples) -> Examples:
        """Add the labels of the tasks with a sample space to the examples of a dataset."""
        derived = {
            key: partial(self.spaces[task].labels_of, self.sources[task][1])
            for task, (source, key) in self.label_sources.items()
            if source == alias and task in self.spaces
        }
        return examples.with_labels(derived)

    def sizes(self) -> dict[str, dict[str, int]]:
        """Return split → alias → number of examples, for the splits that every dataset has."""
        return {
            split: {alias: len(examples) for alias, examples in self.examples(split).items()} for split in self.splits()
        }

    def make_sampler(self, sizes: Mapping[str, int]) -> Sampler:
        """Create the sampler of `training.sampling`.

        Args:
            sizes: alias → number of training examples.

        Returns:
            The sampler.
        """
        entry, batch_size = self.experiment.training.sampling, self.experiment.training.batch_size
        component = registry.samplers[entry.name]
        aliases = [list(sizes)] if getattr(component.target, "takes_aliases", False) else []

        def make(numbers: list[int]) -> Sampler:
            sampler: Sampler = component.create(numbers, batch_size, *aliases, **entry.options)
            return sampler

        numbers = list(sizes.values())
        return make(numbers) if entry.limit is None else limit_sampler(make, numbers, entry.limits(sizes))

    def data_records(self) -> dict[str, DataRecord]:
        """Return alias → record of the data as it is now, for a checkpoint."""
        records: dict[str, DataRecord] = {}
        for alias, dataset in self.datasets.items():
            with Problems(self.experiment).now(f"datasets.{alias}"), wrap_read_errors(alias):
                records[alias] = dataset.recorded()
        return records

    @property
    def positive(self) -> dict[str, str]:
        """Task → positive class, for the binary tasks whose positive class isn't simply 1."""
        return {
            task: kind.positive
            for task, kind in self.kinds.items()
            if kind.positive is not None and (kind.target.classes or kind.positive != "1")
        }

    @property
    def columns(self) -> list[str]:
        """Names with a loss and a weight in each step: tasks, then regularizers, those that count as tasks first."""
        return [*self.kinds, *(term.name for term in self.regularization.terms)]

    @property
    def class_weights(self) -> dict[str, Tensor]:
        """Task → weight of each class in the loss, float64 [K], for tasks with such weights: fitted when first read."""
        if self._class_weights is None:
            self._class_weights = {}
            for task, entry in self.experiment.tasks.items():
                if entry.class_weights is not None:
                    alias, target = self.label_sources[task]
                    train = self.examples_of(alias, "train")
                    with Problems(self.experiment).now(f"tasks.{task}.class_weights"):
                        self._class_weights[task] = fit_class_weights(
                            entry.class_weights, self.kinds[task], train, target, task
                        )
        return self._class_weights

    def loss(self, task: str, prediction: Tensor, batch: Batch, normalized: bool = False) -> Tensor:
        """Compute the mean loss of a task over the labelled examples of a batch.

        Args:
            task: name of the task.
            prediction: predictions, [B, outputs].
            batch: the batch.
            normalized: whether `training.normalize_losses` applies.

        Returns:
            The loss, 0-d.
        """
        kind, weights = self.kinds[task], [batch.weights[task]] if task in batch.weights else []
        loss = kind.loss(prediction, batch.targets[task], *weights)
        if normalized and self.experiment.training.normalize_losses != "none" and kind.chance_loss is not None:
            return loss / kind.chance_loss
        return loss

    def autocast(self) -> torch.autocast:
        """Return the autocast context of `training.precision`."""
        return autocast(self.experiment, self.device)


def autocast(experiment: Experiment, device: torch.device) -> torch.autocast:
    """Return the context in which the model of an experiment computes on a device, by `training.precision`."""
    precision = experiment.training.precision
    dtype = torch.float16 if precision == "fp16" else torch.bfloat16
    return torch.autocast(device.type, dtype, enabled=precision != "fp32")


def plugins_of(experiment: Experiment) -> dict[str, str]:
    """Return `kind name` → plugin, for each component that comes from a plugin."""
    return {f"{c.group} {c.name}": c.plugin for c in _components(experiment) if c.plugin is not None}


def as_file(experiment: Experiment) -> dict[str, Any]:
    """Return the resolved experiment as in `config.yaml`, with the plugins of its components."""
    named = [registry.callbacks[entry.name].plugin for entry in experiment.callbacks]
    recorded = [*plugins_of(experiment).values(), *(plugin for plugin in named if plugin is not None)]
    plugins = loaded_plugins(recorded) if recorded else []
    return {**experiment.resolved(callbacks=True), **({"plugins": plugins} if plugins else {})}


def _components(experiment: Experiment) -> Iterator[Component[Any]]:
    for entry in experiment.datasets.values():
        yield registry.datasets[entry.name]
    for task in experiment.tasks.values():
        yield registry.kinds[task.kind.name]
        yield registry.heads[task.head.name]
    yield registry.trunks[experiment.trunk.name]
    yield registry.sharings[experiment.sharing.name]
    yield registry.weightings[experiment.weighting.name]
    for term in experiment.terms:
        yield registry.regularizers[term.name]
    yield registry.optimizers[experiment.optimizer.name]
    if experiment.scheduler is not None:
        yield registry.schedulers[experiment.scheduler.name]
    yield registry.samplers[experiment.training.sampling.name]
