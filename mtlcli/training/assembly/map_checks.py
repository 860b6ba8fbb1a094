"""Checks of the targets of a run that are maps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from mtlcli.data.examples import Examples, LazyInputs
from mtlcli.data.map_counts import CHUNK, find_wrong_label
from mtlcli.errors import ConfigError
from mtlcli.specs import DatasetSpec
from mtlcli.training.run import Run

FLOATS = (torch.float32, torch.float16)
STORED = {"class_map": (torch.uint8, torch.int64), "binary_map": (torch.uint8,)}  # FLOATS for other types


def used_maps(run: Run, alias: str) -> list[str]:
    """Return the targets of a dataset that are maps and are used by tasks, each once, in the order of the tasks.

    Args:
        run: the run.
        alias: alias of the dataset.

    Returns:
        Names of the targets.
    """
    tasks = [task for task, kind in run.kinds.items() if kind.target.is_map and run.sources[task][0] == alias]
    return list(dict.fromkeys(run.sources[task][1] for task in tasks))


def augmented_targets(run: Run, alias: str, spec: DatasetSpec) -> DatasetSpec:
    """Return a specification without the targets that are maps of which no task makes use: they aren't augmented.

    Args:
        run: the run.
        alias: alias of the dataset.
        spec: its specification.

    Returns:
        The specification with the other targets.
    """
    used = used_maps(run, alias)
    return replace(spec, targets={name: t for name, t in spec.targets.items() if not t.is_map or name in used})


def joint_sources(examples: Examples, targets: Sequence[str]) -> list[Tensor | LazyInputs]:
    """Return the inputs of examples and the maps of some targets, which share a route to the device."""
    return [examples.inputs, *(examples.maps[target] for target in targets)]


def place_together(run: Run, examples: Examples, targets: Sequence[str], kept: bool) -> None:
    """Read inputs and maps that will be resident, if some of them are lazy.

    Raises an MtlError that lists the examples that can't be read.

    Args:
        run: the run.
        examples: examples of a split.
        targets: targets that are maps.
        kept: whether to keep them on the device.
    """
    sources = joint_sources(examples, targets)
    if not all(isinstance(source, Tensor) for source in sources):
        (run.placement.resident_group if kept else run.placement.check_group)(sources)


def check_maps(where: str, examples: Examples, spec: DatasetSpec, target: str) -> None:
    """Check the maps of a target: all that are in memory, and the first one of others.

    Args:
        where: the split, at the beginning of messages.
        examples: examples of the split.
        spec: description of the dataset.
        target: name of the target.

    Raises:
        ConfigError: If the examples have no such maps, or a label is invalid.
    """
    if target not in examples.maps:
        raise ConfigError(f"{where}no maps of target {target!r}. Maps: {', '.join(examples.maps) or 'none'}")
    maps, described = examples.maps[target], spec.targets[target]
    if len(maps) != len(examples.inputs):
        raise ConfigError(f"{where}{len(maps)} maps of target {target!r} for {len(examples.inputs)} examples")
    first = next(examples.iterate_maps(target, 1))
    channels = () if described.size == 1 or described.type == "class_map" else (described.size,)
    expected = (*channels, *spec.input_shape[1:])
    if tuple(first.shape[1:]) != expected:
        actual, wanted = ("×".join(map(str, shape)) for shape in (first.shape[1:], expected))
        raise ConfigError(f"{where}the first map of target {target!r} is {actual}, but must be {wanted}")
    stored = STORED.get(described.type, FLOATS)
    if first.dtype not in stored:
        wanted = " or ".join(str(dtype).removeprefix("torch.") for dtype in stored)
        actual = str(first.dtype).removeprefix("torch.")
        raise ConfigError(f"{where}the maps of target {target!r} are stored as {actual}, but must be {wanted}")
    start = 0
    for chunk in examples.iterate_maps(target, CHUNK) if isinstance(maps, Tensor) else [first]:
        if (wrong := find_wrong_label(chunk, described)) is not None:
            row = start + wrong[0]
            row = row if examples.rows is None else int(examples.rows[row])
            raise ConfigError(f"{where}example {row}: a label of target {target!r} is {wrong[1]}")
        start += len(chunk)
