"""All of a run's data, opened and checked before its first step."""

from __future__ import annotations

from torch import Tensor

from mtlcli import registry
from mtlcli.config import Experiment
from mtlcli.data.base import Dataset, Examples
from mtlcli.data.examples import wrap_read_errors
from mtlcli.data.loader import Loader
from mtlcli.errors import ConfigError, Problem
from mtlcli.specs import IGNORE_INDEX, DatasetSpec, TargetSpec
from mtlcli.training.assembly.assemble import Datasets
from mtlcli.training.assembly.batch_norm import SMALLEST, check_batch_norm, has_batch_norm
from mtlcli.training.problems import Problems
from mtlcli.training.run import Run

SAMPLED = 1000  # files of a dataset that `mtl validate` looks at


def open_data(run: Run) -> Loader:
    """Check all data that the run will read, and return the loader of its training examples.

    ConfigError and MtlError as of `check_data`; ConfigError, too, for batches that a batch norm can't take.
    """
    check_data(run)
    examples, training = run.examples("train"), run.experiment.training
    with Problems(run.experiment).now("training"):
        make_sampler = registry.samplers[training.sampling.name].create
        sampler = make_sampler([*map(len, examples.values())], training.batch_size, **training.sampling.options)
        sampler.smallest = SMALLEST if has_batch_norm(run.model) else 1
        check_batch_norm(run, sampler)
        augment = {alias: dataset.augment for alias, dataset in run.datasets.items()}
        return Loader(examples, run.sources, sampler, run.experiment.seed, run.placement, augment)


def check_data(run: Run) -> None:
    """Open every split that the run will read: `train`, the evaluated one, and `test`.

    The files of examples that are read one at a time are checked, as `Dataset.check_files` says; where a dataset has no
    such check, examples that are to be resident are read once. The first example of each split is read in any case, and
    the labels are compared with what the dataset has described. ConfigError with all that is wrong in all datasets;
    MtlError where a dataset's data can't be had.
    """
    problems = Problems(run.experiment)
    evaluated = run.experiment.evaluation.split
    for alias, dataset in run.datasets.items():
        with problems.at(f"datasets.{alias}"), wrap_read_errors(alias):
            _check_files(dataset)
            for split in run.splits():
                if split in ("train", evaluated, "test"):
                    targets = {target for source, target in run.sources.values() if source == alias}
                    examples = run.examples_of(alias, split)
                    _check(split, examples, run.specs[alias], targets)
                    if type(dataset).check_files is Dataset.check_files and not isinstance(examples.inputs, Tensor):
                        kept = split == evaluated or (split == "train" and not dataset.augment)
                        (run.placement.resident if kept else run.placement.check)(examples.inputs)
    problems.check()


def check_files(experiment: Experiment, opened: Datasets, most: int | None = None) -> None:
    """ConfigError with all that is wrong with the files of all datasets, see `Dataset.check_files`."""
    problems = Problems(experiment)
    for alias, (dataset, _) in opened.items():
        with problems.at(f"datasets.{alias}"), wrap_read_errors(alias):
            _check_files(dataset, most)
    problems.check()


def _check_files(dataset: Dataset, most: int | None = None) -> None:
    if faults := dataset.check_files(most):
        raise ConfigError(map(Problem, faults))


def _check(split: str, examples: Examples, spec: DatasetSpec, targets: set[str]) -> None:
    """ConfigError where examples aren't as their spec says: the shape of the first input, the labels of `targets`."""
    where = f"the split {split!r}: "
    rows = examples.rows
    first = examples.inputs[0 if rows is None else int(rows[0])]
    if tuple(first.shape) != spec.input_shape:
        actual, expected = ("×".join(map(str, shape)) for shape in (first.shape, spec.input_shape))
        raise ConfigError(f"{where}the first example is {actual}, and the dataset's inputs are {expected}")
    for name in sorted(targets):
        if name not in examples.targets:
            raise ConfigError(f"{where}there is no target {name!r}; there are: {', '.join(examples.targets)}")
        if (amount := len(examples.targets[name])) != len(examples.inputs):
            raise ConfigError(f"{where}{amount} labels {name!r} for {len(examples.inputs)} examples")
        if wrong := _wrong_label(examples.labels(name), spec.targets[name]):
            raise ConfigError(f"{where}the label of an example for target {name!r} is {wrong}")


def _wrong_label(labels: Tensor, target: TargetSpec) -> str | None:
    """A label that is none of the target's, and what is expected; None where all are."""
    if target.type == "classes":
        bad = ((labels < 0) | (labels >= target.size)) & (labels != IGNORE_INDEX)
        expected = f"a class from 0 to {target.size - 1}, or {IGNORE_INDEX} where it is missing"
    elif target.type == "real":
        bad, expected = labels.isinf(), "a finite number, or NaN where it is missing"
    else:
        bad = (labels != 0) & (labels != 1) & ~labels.isnan()
        expected = "0 or 1, or NaN where it is missing"
    return f"{labels[bad][0].item():g}, and {expected} is expected" if bool(bad.any()) else None
