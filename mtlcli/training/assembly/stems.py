"""Stems of a run: the input shape of the trunk that they end in, their construction and initial weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from torch import nn

from mtlcli import registry
from mtlcli.config import Experiment
from mtlcli.config.locations import Problems
from mtlcli.errors import ConfigError, suggest
from mtlcli.files import given_path
from mtlcli.models.inputs import prepared_shape
from mtlcli.models.stems.base import Stem, format_shape
from mtlcli.models.warm_start import find_mismatches, find_not_finite, freeze, join_problems
from mtlcli.specs import DatasetSpec, Shape
from mtlcli.training.assembly.data_checks import open_datasets
from mtlcli.training.checkpoint.file import load_checkpoint
from mtlcli.training.run import Run
from mtlcli.training.run_folder import checkpoint_of


def stem_output_shape(experiment: Experiment, specs: Mapping[str, DatasetSpec]) -> Shape:
    """Return the input shape of the trunk in an experiment with stems.

    Datasets without a stem determine it; if all have one, the keys `shape` and the options of the stems do
    (`Stem.stated_shape`). All that is determined must agree.

    Args:
        experiment: The experiment, with stems.
        specs: alias → description of the dataset.

    Returns:
        The shape of an example, without the batch dimension.

    Raises:
        ConfigError: If nothing determines the shape, or several values differ.
    """
    problems = Problems(experiment)
    trunk = experiment.trunk.name
    if getattr(registry.trunks[trunk].target, "of_columns", False):
        message = f"trunk {trunk!r} encodes the raw columns of a table, which no stem returns; use the trunk `mlp` and "
        message += f"the stem `{trunk if trunk in registry.stems.names() else 'tabular'}` for each table"
        raise ConfigError(experiment.problem("stems", message))
    shapes = {alias: prepared_shape(spec) for alias, spec in specs.items()}
    plain = {alias: shape for alias, shape in shapes.items() if alias not in experiment.stems}
    stated: dict[str, Shape] = {}
    for alias, stem in experiment.stems.items():
        with problems.at(f"stems.{alias}"):
            shape = registry.stems[stem.name].target.stated_shape(shapes[alias], stem.options)
            if stem.shape is not None:
                if shape not in (None, tuple(stem.shape)):
                    raise ValueError(
                        f"`shape` is {format_shape(tuple(stem.shape))}, but the options state {format_shape(shape)}"
                    )
                shape = tuple(stem.shape)
            if shape is not None:
                stated[alias] = shape
    problems.check()
    if not plain and not stated:
        message = "every dataset has a stem, and none states the shape in which they end, the input of the trunk: set "
        message += "`features: 64` (vectors), or `shape: [C, H, W]` (maps), in one of them"
        raise ConfigError(experiment.problem("stems", message))
    if len(set(plain.values()) | set(stated.values())) > 1:
        listing = [f"{alias} {format_shape(shape)} without a stem" for alias, shape in plain.items()]
        listing += [f"{alias} {format_shape(shape)} after its stem" for alias, shape in stated.items()]
        message = f"the datasets reach the trunk in different shapes ({', '.join(listing)}), but all of them pass the "
        message += "same trunk"
        if len(set(plain.values())) > 1:
            message += "; give more datasets a stem"
        elif stated:
            message += "; a stem that states no shape ends in that of the others"
        raise ConfigError(experiment.problem("stems", message))
    return next(iter([*plain.values(), *stated.values()]))


def fix_stem_shapes(experiment: Experiment, specs: Mapping[str, DatasetSpec] | None = None) -> Experiment:
    """Return the experiment with the key `shape` set in every stem, so that each is complete without the others.

    Args:
        experiment: The experiment.
        specs: alias → description of the dataset; None: the datasets are opened if they are needed.

    Returns:
        The experiment, unchanged without stems.

    Raises:
        ConfigError: As `stem_output_shape`, and if a dataset can't be opened.
    """
    if all(stem.shape is not None for stem in experiment.stems.values()):
        return experiment
    if specs is None:
        specs = {alias: spec for alias, (_, spec) in open_datasets(experiment).items()}
    shape = list(stem_output_shape(experiment, specs))
    stems = {alias: replace(stem, shape=shape) for alias, stem in experiment.stems.items()}
    return experiment.model_copy(update={"stems": stems})


def make_stems(experiment: Experiment, specs: Mapping[str, DatasetSpec], shape: Shape) -> dict[str, nn.Module]:
    """Create the stems of an experiment.

    Args:
        experiment: The experiment, with stems.
        specs: alias → description of the dataset.
        shape: Input shape of the trunk, from `stem_output_shape`.

    Returns:
        alias → stem.

    Raises:
        ConfigError: If stems can't convert the inputs of their datasets.
    """
    problems, created = Problems(experiment), dict[str, nn.Module]()
    for alias, entry in experiment.stems.items():
        with problems.at(f"stems.{alias}"):
            spec = specs[alias]
            if encodes_columns(experiment, alias) and not spec.columns:
                raise ValueError(
                    f"{entry.name} needs the columns of a table, but the inputs of dataset {alias!r} are "
                    f"{format_shape(spec.input_shape)}"
                )
            supplied = spec.columns if encodes_columns(experiment, alias) else prepared_shape(spec)
            stem: Stem = registry.stems.create(Stem, entry, supplied, shape)
            created[alias] = freeze(stem) if entry.frozen else stem
    problems.check()
    return created


def encodes_columns(experiment: Experiment, alias: str) -> bool:
    """Return whether a dataset has a stem that encodes the raw columns of a table."""
    stem = experiment.stems.get(alias)
    return stem is not None and bool(registry.stems[stem.name].target.of_columns)


def start_stems(run: Run) -> None:
    """Initialize the stems from the checkpoints in their `init_from`.

    Args:
        run: The run, whose model is changed.

    Raises:
        ConfigError: If a file can't be read, or holds no stem of the dataset, or a different one.
    """
    for alias, entry in run.experiment.stems.items():
        if entry.init_from is None:
            continue
        with Problems(run.experiment).now(f"stems.{alias}.init_from"):
            source = str(checkpoint_of(given_path(entry.init_from, "checkpoint")))
            state = load_checkpoint(source)["model"]
            prefix = f"stems.{alias}."
            stored = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
            if not stored:
                aliases = sorted({key.split(".")[1] for key in state if key.startswith("stems.")})
                have = f"It has stems of: {', '.join(aliases)}" if aliases else "It has no stems"
                raise ValueError(f"{source} has no stem of a dataset {alias!r}.{suggest(alias, aliases)} {have}")
            assert run.model.stems is not None
            own = run.model.stems[alias]
            if differing := find_mismatches(own.state_dict(), stored):
                raise ValueError(f"the stem in {source} differs from this one: {join_problems(differing)}")
            if wrong := find_not_finite(stored):
                raise ValueError(f"the stem in {source} can't be used: {join_problems(wrong)}")
            own.load_state_dict(stored)


def describe_shapes(shapes: Mapping[str, Shape]) -> str:
    """Describe inputs of different shape, and the stems that allow them.

    Args:
        shapes: alias → shape of an example, not all equal.

    Returns:
        The message.
    """
    listing = ", ".join(f"{alias} {'×'.join(map(str, shape))}" for alias, shape in shapes.items())
    message = f"the datasets' inputs differ in shape ({listing}), but all of them pass the same trunk. "
    message += "Give datasets an encoder of their own in `stems`"
    if all(len(shape) == 3 for shape in shapes.values()):
        return message + f", such as {_resize_hint(shapes)}"
    return message + ": `resize` for images of another size, `conv` for other images, `linear` or `tabular` for tables"


def _resize_hint(shapes: Mapping[str, Shape]) -> str:
    """Return stems that resize all images to the largest."""
    largest = max(shapes.values(), key=lambda shape: shape[1] * shape[2])
    smaller = [alias for alias, shape in shapes.items() if shape != largest]
    channels = {shape[0] for shape in shapes.values()}
    stem = "resize" if len(channels) == 1 else "conv"
    return f"`stems: {{{', '.join(f'{alias}: {stem}' for alias in smaller)}}}`"
