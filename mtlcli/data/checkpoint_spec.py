"""Application of a checkpoint's dataset specification to other data."""

from __future__ import annotations

from dataclasses import replace

from mtlcli.errors import ConfigError, Problem
from mtlcli.specs import DatasetSpec, TargetSpec


def restore_spec(stored: DatasetSpec, here: DatasetSpec) -> DatasetSpec:
    """Apply a checkpoint's specification to other data, with the splits and missing labels of that data.

    Args:
        stored: specification stored in the checkpoint.
        here: specification of the current data, which may have more targets.

    Returns:
        `stored` with the splits of `here` and its `missing` flags.

    Raises:
        ConfigError: the input shapes differ, or a stored target is absent or has another type; lists all differences.
    """
    problems = []
    if here.input_shape != stored.input_shape:
        then, now = ("×".join(map(str, spec.input_shape)) for spec in (stored, here))
        problems.append(f"the checkpoint was trained on inputs {then}, but these are {now}")
    for name, target in stored.targets.items():
        if name not in here.targets:
            problems.append(f"the data has no target {name!r}, on which the checkpoint was trained")
        elif (then := _describe_target(target)) != (now := _describe_target(here.targets[name])):
            problems.append(f"the checkpoint was trained on a target {name!r} of {then}, but here it is of {now}")
    if problems:
        raise ConfigError(map(Problem, problems))
    targets = {name: replace(target, missing=here.targets[name].missing) for name, target in stored.targets.items()}
    return replace(stored, targets=targets, splits=here.splits)


def _describe_target(target: TargetSpec) -> str:
    size = "" if target.size == 1 else f", {target.size}"
    names = "" if target.classes is None else f": {', '.join(target.classes)}"
    return f"type {target.type}{size}{names}"
