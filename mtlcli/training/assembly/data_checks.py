"""Opening of datasets, and checks of all data of a run before its first step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from mtlcli import registry
from mtlcli.config import Experiment
from mtlcli.config.locations import Problems
from mtlcli.data.base import Dataset, Examples
from mtlcli.data.examples import StreamedExamples, locate_dataset_errors, wrap_read_errors
from mtlcli.data.fingerprint import DataRecord
from mtlcli.data.formats.shared_columns import share_columns
from mtlcli.data.formats.token_rows import TokenRows
from mtlcli.data.loader import Loader
from mtlcli.errors import ConfigError, MtlError, Problem, suggest
from mtlcli.models.model import MultiTaskModel
from mtlcli.specs import IGNORE_INDEX, DatasetSpec, TargetSpec, is_labelled
from mtlcli.tasks.base import TaskKind
from mtlcli.training.assembly.batch_norm_checks import SMALLEST, check_batch_norm
from mtlcli.training.assembly.map_checks import check_maps, joint_sources, place_together, used_maps
from mtlcli.training.assembly.spaces import check_spaces
from mtlcli.training.assembly.texts import ask_for_inputs
from mtlcli.training.evaluate import label_weights, map_targets
from mtlcli.training.run import Run

SPEC = f"{DatasetSpec.__module__}.{DatasetSpec.__name__}"
Datasets = dict[str, tuple[Dataset, DatasetSpec]]
SAMPLED = 1000  # maximum number of files per dataset that `mtl validate` checks


def open_datasets(
    experiment: Experiment,
    stored: Mapping[str, DatasetSpec] | None = None,
    data: bool = True,
    records: Mapping[str, DataRecord] | None = None,
    given: Mapping[str, Any] | None = None,
    fit: bool = False,
) -> Datasets:
    """Open the datasets of an experiment and describe them.

    Args:
        experiment: The validated experiment.
        stored: alias → description in a checkpoint, which replaces fitting it again. Without it, tables without a stem
            share their columns (`share_columns`), because they pass the same trunk.
        data: Whether to access the data. If False, all descriptions are those of `stored`.
        records: alias → record of the data in a checkpoint, which determines its splits.
        given: alias → data passed from Python (see `Dataset.attach`).
        fit: Whether to fit the descriptions of data that may have to be downloaded (`Dataset.fit`), for training.

    Returns:
        alias → (dataset, description).

    Raises:
        ConfigError: Lists all datasets that can't be opened.
    """
    problems = Problems(experiment)
    opened: Datasets = {}
    given = given or {}
    if unknown := [alias for alias in given if alias not in experiment.datasets]:
        choices = f"{suggest(unknown[0], experiment.datasets)} Choose from: {', '.join(experiment.datasets)}"
        raise ConfigError(f"data was passed for {unknown[0]!r}, which is no dataset of the experiment.{choices}")
    for alias, entry in experiment.datasets.items():
        with problems.at(f"datasets.{alias}"), locate_dataset_errors(alias):
            dataset: Dataset = registry.datasets.create(Dataset, entry)
            if alias in given:
                dataset.attach(given[alias])
            if getattr(registry.trunks[experiment.trunk.name].target, "takes_base", False):
                ask_for_inputs(experiment, alias, dataset, stored)
            if stored is None:
                if fit:
                    dataset.fit()
                spec: Any = dataset.describe()  # of a plugin, possibly of another type
                if not isinstance(spec, DatasetSpec):
                    kind = type(spec).__name__
                    raise ValueError(f"the result of describe() is of type {kind}, but must be of type {SPEC}")
                opened[alias] = (dataset, spec)
            elif alias in stored:
                dataset.record = (records or {}).get(alias)
                opened[alias] = (dataset, dataset.restore(stored[alias]) if data else stored[alias])
            else:
                raise ValueError(
                    f"the checkpoint was not trained on a dataset {alias!r}. Its datasets: {', '.join(stored)}"
                )
    problems.check()
    if stored is None and any(spec.columns for _, spec in opened.values()):
        with problems.now("datasets"):
            specs = share_columns({alias: both for alias, both in opened.items() if alias not in experiment.stems})
        opened = {alias: (dataset, specs.get(alias, spec)) for alias, (dataset, spec) in opened.items()}
    return opened


def open_data(run: Run) -> Loader:
    """Check all data that the run will read and return the loader of the training examples.

    Args:
        run: The run.

    Returns:
        The loader.

    Raises:
        ConfigError: As `check_data`, and for batches that batch norm rejects.
        MtlError: As `check_data`.
    """
    check_data(run)
    examples = run.examples("train")
    if run.spaces:
        sources = {task: run.label_sources[task] for task in run.spaces}
        check_spaces(run.experiment, {task: examples[alias].labels(key) for task, (alias, key) in sources.items()})
    with Problems(run.experiment).now("training"):
        sampler = run.make_sampler({alias: len(split) for alias, split in examples.items()})
        if has_batch_norm(run.model):
            sampler.smallest = SMALLEST
            check_batch_norm(run, sampler)
        augment = {alias: dataset.augment for alias, dataset in run.datasets.items()}
        weights, bucketing = label_weights(run), run.experiment.training.bucketing
        return Loader(
            examples, run.label_sources, sampler, run.experiment.seed, run.placement, augment, weights, bucketing,
            map_targets(run),
        )  # fmt: skip


def check_data(run: Run) -> None:
    """Open every split that the run will read: `train`, the evaluated split and `test`.

    Files of datasets that are read one example at a time are checked as defined by `Dataset.check_files`, unless all
    splits share inputs that become resident, which are read now. If a dataset defines no such check, examples that will
    be resident are read once. The first example of each split is always read, and labels are compared with the
    description of the dataset.

    Args:
        run: The run.

    Raises:
        ConfigError: Lists all problems of all datasets.
        MtlError: If the data of a dataset is not available.
    """
    problems = Problems(run.experiment)
    evaluated = run.experiment.evaluation.split
    for alias, dataset in run.datasets.items():
        with problems.at(f"datasets.{alias}"), wrap_read_errors(alias):
            splits = [split for split in run.splits() if split in ("train", evaluated, "test")]
            maps = [] if not map_targets(run) else used_maps(run, alias)
            if type(dataset).check_files is not Dataset.check_files and not _read_whole(run, alias, splits, maps):
                _check_files(dataset)
            for split in splits:
                kinds = [(run.kinds[task], name) for task, (source, name) in run.sources.items() if source == alias]
                examples = run.examples_of(alias, split)
                _check(split, examples, run.specs[alias], kinds)
                kept = split == evaluated or (split == "train" and not dataset.augment)
                if maps:
                    if type(dataset).check_files is Dataset.check_files:
                        place_together(run, examples, maps, kept)
                    continue
                if isinstance(examples.inputs, Tensor | TokenRows) or isinstance(examples, StreamedExamples):
                    continue
                if type(dataset).check_files is Dataset.check_files:
                    (run.placement.resident if kept else run.placement.check)(examples.inputs)
    problems.check()


def _read_whole(run: Run, alias: str, splits: list[str], maps: list[str]) -> bool:
    """Read lazy inputs that all splits share, and the maps, if they will be resident. False if they can't be read."""
    first, *others = (run.examples_of(alias, split).inputs for split in splits)
    if isinstance(first, Tensor | TokenRows) or any(inputs is not first for inputs in others):
        return False
    try:
        if maps:
            return run.placement.resident_group(joint_sources(run.examples_of(alias, splits[0]), maps)) is not None
        return run.placement.resident(first) is not None
    except MtlError:  # the check of the files lists the faults
        return False


def check_files(experiment: Experiment, opened: Datasets, most: int | None = None) -> None:
    """Check the files of all datasets (see `Dataset.check_files`).

    Args:
        experiment: The experiment, for the locations of problems.
        opened: The datasets.
        most: Maximum number of files per dataset; None for all.

    Raises:
        ConfigError: Lists all problems.
    """
    problems = Problems(experiment)
    for alias, (dataset, _) in opened.items():
        with problems.at(f"datasets.{alias}"), wrap_read_errors(alias):
            _check_files(dataset, most)
    problems.check()


def _check_files(dataset: Dataset, most: int | None = None) -> None:
    if faults := dataset.check_files(most):
        raise ConfigError(map(Problem, faults))


def _check(split: str, examples: Examples, spec: DatasetSpec, kinds: list[tuple[TaskKind, str]]) -> None:
    """Check the first example and the labels against the dataset's description, and the labels by the tasks' kinds."""
    where = f"the split {split!r}: "
    rows = examples.rows
    first = examples.inputs[0 if rows is None else int(rows[0])]
    if tuple(first.shape) != spec.input_shape and spec.text is None:
        actual, expected = ("×".join(map(str, shape)) for shape in (first.shape, spec.input_shape))
        raise ConfigError(f"{where}the first example is {actual}, but the inputs of the dataset are {expected}")
    streamed = isinstance(examples, StreamedExamples)  # then most labels are checked when they are read
    for name in () if streamed else sorted({name for kind, name in kinds if not kind.generates}):
        if spec.targets[name].is_map:
            check_maps(where, examples, spec, name)
            continue
        if name not in examples.targets:
            raise ConfigError(f"{where}no target {name!r}. Targets: {', '.join(examples.targets)}")
        if (amount := len(examples.targets[name])) != len(examples.inputs):
            raise ConfigError(f"{where}{amount} labels {name!r} for {len(examples.inputs)} examples")
        if wrong := _wrong_label(examples.labels(name), spec.targets[name]):
            raise ConfigError(f"{where}the label of an example for target {name!r} is {wrong}")
    for kind, name in kinds:
        if type(kind).wrong_label is TaskKind.wrong_label or kind.target.is_map:
            continue
        labels = examples.labels(name)
        if wrong := kind.wrong_label(labels[is_labelled(labels)]):
            raise ConfigError(f"{where}the label of an example for target {name!r} is {wrong}")


def _wrong_label(labels: Tensor, target: TargetSpec) -> str | None:
    """Return an invalid label with the expected values; None if all labels are valid."""
    if target.type in ("classes", "tags"):
        bad = ((labels < 0) | (labels >= target.size)) & (labels != IGNORE_INDEX)
        expected = f"a class from 0 to {target.size - 1}, or {IGNORE_INDEX} if it is missing"
    elif target.type == "real":
        bad, expected = labels.isinf(), "a finite number, or NaN if it is missing"
    else:
        bad = (labels != 0) & (labels != 1) & ~labels.isnan()
        expected = "0 or 1, or NaN if it is missing"
    return f"{labels[bad][0].item():g}, expected {expected}" if bool(bad.any()) else None


def has_batch_norm(model: MultiTaskModel) -> bool:
    """Return whether the model uses batch statistics in training; a frozen trunk does not."""
    model.train()
    return any(isinstance(module, _BatchNorm) and module.training for module in model.modules())
