"""Construction of the parts of a run from the entries of its experiment."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from mtlcli import registry
from mtlcli.config import Experiment
from mtlcli.config.locations import Problems
from mtlcli.data.placement import Placement
from mtlcli.errors import ConfigError
from mtlcli.models.inputs import make_preparation, prepared_shape
from mtlcli.models.model import MultiTaskModel
from mtlcli.models.pretrained.base import Base
from mtlcli.models.sharing.base import Sharing
from mtlcli.models.trunks.base import Trunk
from mtlcli.models.warm_start import freeze
from mtlcli.specs import Column, DatasetSpec, Shape
from mtlcli.tasks.base import TargetTypeError, TaskKind
from mtlcli.training.assembly.adaptation import make_adapted_sharing
from mtlcli.training.assembly.class_weights import check_class_weights
from mtlcli.training.assembly.data_checks import Datasets
from mtlcli.training.assembly.dependent_heads import connect_tasks, extra_features, wrap_head
from mtlcli.training.assembly.language_models import add_language_model, answer_head, connect_language_models
from mtlcli.training.assembly.map_heads import make_map_head
from mtlcli.training.assembly.metric_choice import choose_metrics
from mtlcli.training.assembly.model_size import size
from mtlcli.training.assembly.pair_heads import make_pair_head
from mtlcli.training.assembly.pooling import make_pooling
from mtlcli.training.assembly.regularization import regularize, terms_of
from mtlcli.training.assembly.spaces import Space, Statistics, resolve_space, restricted
from mtlcli.training.assembly.stems import describe_shapes, encodes_columns, make_stems, stem_output_shape
from mtlcli.training.assembly.texts import make_tokenizer
from mtlcli.training.assembly.trunk_layers import freeze_stages
from mtlcli.training.run import Run
from mtlcli.weighting.base import WeightedTask, Weighting


def assemble(
    experiment: Experiment,
    device: torch.device,
    opened: Datasets,
    statistics: Statistics | None = None,
    base: Base | None = None,
) -> Run:
    """Build all parts of a run except the regularizers.

    Weights are initialized on the CPU, so that they are the same on every device. On `meta` they take no memory.

    Args:
        experiment: The validated experiment.
        device: The training device, or `meta`.
        opened: The datasets, from `open_datasets`.
        statistics: Mean and standard deviation of the targets of tasks with a sample space (see `fit_statistics`);
            those of the whole datasets if None.
        base: The pretrained model that the trunk is built from; if None, it is read where the trunk needs one.

    Returns:
        The run, without regularizers.

    Raises:
        ConfigError: If parts do not fit together.
    """
    problems = Problems(experiment)
    specs = {alias: spec for alias, (_, spec) in opened.items()}
    given = trunk_input(experiment, specs)
    sources, kinds, output_layers, spaces = _tasks(experiment, opened, problems, statistics or {})
    trunk_class: Any = registry.trunks[experiment.trunk.name].target
    if getattr(trunk_class, "takes_base", False) and base is None:
        with problems.now("trunk"):
            base = trunk_class.load_base(experiment.trunk.options)
    supplied = (given.supplied,) if base is None else (given.supplied, base)
    trunks: list[Trunk] = []
    generating = [task for task, kind in kinds.items() if kind.generates]

    def make_trunk() -> Trunk:
        with problems.now("trunk"):
            trunk: Trunk = registry.trunks.create(Trunk, experiment.trunk, *supplied)
            if not isinstance(getattr(trunk, "features", None), int):
                raise ValueError("does not set `features`, the number of features it returns")
            trunk.input_shape = given.shape
            trunks.append(trunk)
            if generating:
                add_language_model(trunk, base, generating[0])
            if experiment.trunk.freeze:
                freeze_stages(experiment, trunk)
            return freeze(trunk) if experiment.trunk.frozen else trunk

    def make_head(task: str, features: int) -> nn.Module:
        with problems.now(f"tasks.{task}.head"):
            entry, last = experiment.tasks[task].head, output_layers[task]
            if experiment.tasks[task].after is not None:
                features += extra_features(experiment, task, kinds)
            spec = specs[sources[task][0]]
            if task in generating:
                head = answer_head(entry.name)
            elif kinds[task].pairs or (spec.text is not None and spec.text.separate):
                head = make_pair_head(experiment, task, features, kinds[task], spec)
            elif kinds[task].predicts == "map" or getattr(registry.heads[entry.name].target, "of_maps", False):
                head = make_map_head(experiment, task, features, kinds[task], spec)
            else:
                head = registry.heads.create(nn.Module, entry, features, kinds[task].outputs)
            head = head if last is None else nn.Sequential(head, last)
            return head if experiment.tasks[task].after is None else wrap_head(experiment, task, head, kinds)

    weighted = [WeightedTask(name, task.weight, kinds[name].likelihood) for name, task in experiment.tasks.items()]
    if experiment.terms:
        weighted += _weighted_terms(experiment)
    inputs = {task: alias for task, (alias, _) in sources.items()}
    with device if device.type == "meta" else nullcontext():
        with problems.now("sharing"):
            if experiment.adapters is None:
                sharing = registry.sharings.create(Sharing, experiment.sharing, make_trunk, make_head, inputs)
            else:
                sharing = make_adapted_sharing(experiment, make_trunk, make_head, inputs)
        if sharing.sequence or any(task.after is not None for task in experiment.tasks.values()):
            connect_tasks(experiment, sharing, kinds)
        if generating:
            connect_language_models(experiment, sharing, kinds, base)
        pooled = any(task.head.pool is not None for task in experiment.tasks.values())
        if pooled or trunks[0].representation != "vector" or any(k.predicts != "vector" for k in kinds.values()):
            sharing.pooling = make_pooling(experiment, trunks[0], kinds)
        with problems.now("weighting"):
            weighting = registry.weightings.create(Weighting, experiment.weighting, weighted)
            weighting.seed(experiment.seed)
        stems = make_stems(experiment, specs, given.shape) if experiment.stems else None
        model = MultiTaskModel(sharing, given.prepare, stems)
    model, weighting = model.to(device), weighting.to(device)
    placement = Placement(device, experiment.training.loading, experiment.training.workers)
    datasets = {alias: dataset for alias, (dataset, _) in opened.items()}
    return Run(
        experiment, device, datasets, specs, sources, kinds, model, weighting, placement, given.shape, spaces=spaces,
        base=base, tokenizer=None if base is None else make_tokenizer(experiment, base),
    )  # fmt: skip


def _weighted_terms(experiment: Experiment) -> list[WeightedTask]:
    """Return the regularizers that count as tasks."""
    components = [registry.regularizers[entry.name] for entry in experiment.terms]
    targets: list[Any] = [component.target for component in components]
    return [
        WeightedTask(term.name, likelihood=targets[term.index].likelihood)
        for term in terms_of(experiment)
        if term.as_task
    ]


def add_regularizers(run: Run) -> None:
    """Construct the regularizers for the current weights of the trunk.

    Their own weights are initialized after all others, which are therefore the same without regularizers.

    Args:
        run: The run, which receives them.

    Raises:
        ConfigError: If a regularizer does not fit the model.
    """
    if run.experiment.terms:
        with Problems(run.experiment).now("trunk"):  # torch says so where the inputs don't fit
            run.size = size(run)
    with run.device if run.device.type == "meta" else nullcontext():
        run.regularization = regularize(run.experiment, run.model).to(run.device)


def _tasks(
    experiment: Experiment, opened: Datasets, problems: Problems, statistics: Statistics
) -> tuple[dict[str, tuple[str, str]], dict[str, TaskKind], dict[str, nn.Module | None], dict[str, Space]]:
    """Return by task: alias of its dataset and name of its target, its kind, the module after its head, its space."""
    spaces: dict[str, Space] = {}
    sources: dict[str, tuple[str, str]] = {}
    kinds: dict[str, TaskKind] = {}
    output_layers: dict[str, nn.Module | None] = {}
    for name, task in experiment.tasks.items():
        with problems.at(f"tasks.{name}.target"):
            dataset, spec = opened[task.dataset]
            target_name, target = spec.find_target(task.target, task.dataset, name)
            sources[name] = (task.dataset, target_name)
            if task.where is not None:
                with problems.at(f"tasks.{name}.where"):
                    spaces[name] = resolve_space(experiment, name, spec)
                target = restricted(target, statistics.get(name))
            with problems.at(f"tasks.{name}.kind"):
                try:
                    kinds[name] = registry.kinds.create(TaskKind, task.kind, target)
                except TargetTypeError as error:
                    hint = dataset.type_hint(target_name, target)
                    raise ValueError(f"{error}. {hint} (dataset {task.dataset!r})" if hint else str(error)) from error
                output_layers[name] = kinds[name].output_layer()
            if name in kinds and (task.metrics, task.primary) != (None, None):
                with problems.at(f"tasks.{name}.metrics"):
                    choose_metrics(kinds[name], task)
            if task.class_weights is not None and name in kinds:
                with problems.at(f"tasks.{name}.class_weights"):
                    check_class_weights(task.class_weights, kinds[name])
    problems.check()
    return sources, kinds, output_layers, spaces


@dataclass(frozen=True)
class TrunkInput:
    """Input of a trunk.

    Attributes:
        supplied: Positional argument of the trunk: the shape of an example, or the columns of a table.
        shape: Shape of an example, without the batch dimension.
        prepare: alias → module that converts the raw inputs of the dataset.
    """

    supplied: Shape | tuple[Column, ...]
    shape: Shape
    prepare: dict[str, nn.Module]


def trunk_input(experiment: Experiment, specs: Mapping[str, DatasetSpec]) -> TrunkInput:
    """Return the common input of all datasets, which pass the same trunk.

    Args:
        experiment: The experiment.
        specs: alias → description of the dataset.

    Returns:
        The input.

    Raises:
        ConfigError: If their shapes or columns differ.
    """
    if experiment.stems:
        shape = stem_output_shape(experiment, specs)
        encoded = {alias: encodes_columns(experiment, alias) for alias in specs}
        return TrunkInput(
            shape, shape, {alias: make_preparation(spec, encoded[alias]) for alias, spec in specs.items()}
        )
    name = experiment.trunk.name
    raw_columns = getattr(registry.trunks[name].target, "of_columns", False)
    prepare = {alias: make_preparation(spec, raw_columns) for alias, spec in specs.items()}
    shapes = {alias: prepared_shape(spec, raw_columns) for alias, spec in specs.items()}
    if not raw_columns:
        shape = _one_shape(experiment, shapes)
        return TrunkInput(shape, shape, prepare)
    with Problems(experiment).now("trunk"):
        columns = _same_columns(name, specs)
    return TrunkInput(columns, (len(columns),), prepare)


def _one_shape(experiment: Experiment, shapes: Mapping[str, Shape]) -> Shape:
    if len(set(shapes.values())) > 1:
        raise ConfigError(experiment.problem("datasets", describe_shapes(shapes)))
    return next(iter(shapes.values()))


def _same_columns(trunk: str, specs: Mapping[str, DatasetSpec]) -> tuple[Column, ...]:
    for alias, spec in specs.items():
        if not spec.columns:
            hint = "" if len(specs) == 1 else ". With `stems`, images and tables can share a trunk such as `mlp`"
            raise ValueError(
                f"{trunk} needs the columns of a table, but the inputs of dataset {alias!r} are "
                f"{'×'.join(map(str, spec.input_shape))}{hint}"
            )
    (first, columns), *others = ((alias, spec.columns) for alias, spec in specs.items())
    for alias, other in others:
        if other != columns:
            differing = sorted({column.source for column in set(columns) ^ set(other)}) or ["their order"]
            raise ValueError(
                f"{trunk} needs the same columns in all datasets, with the same categories, means and standard "
                f"deviations. {first!r} and {alias!r} differ in: {', '.join(differing)}"
            )
    return columns
