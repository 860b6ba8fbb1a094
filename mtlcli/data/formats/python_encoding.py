"""Encoding of examples that are passed from Python."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from mtlcli.data.examples import Examples
from mtlcli.data.formats.python_arrays import PythonData
from mtlcli.data.formats.python_maps import compute_map_statistics, encode_python_map, has_missing_pixels
from mtlcli.data.formats.python_targets import encode_python_target, is_missing
from mtlcli.data.formats.text_rows import TextRows
from mtlcli.errors import ConfigError
from mtlcli.specs import Shape, TargetSpec


def find_input_shape(converted: dict[str, PythonData]) -> Shape:
    """Return the shape of an example.

    Args:
        converted: split → examples.

    Returns:
        The shape.

    Raises:
        ConfigError: The splits differ in it, or a value is not finite.
    """
    shapes: dict[str, Shape] = {}
    for split, data in converted.items():
        where = f"split {split!r}: " if split else ""
        if not len(data.inputs):
            raise ConfigError(f"{where}the data has no examples")
        shapes[split] = (1,) if isinstance(data.inputs, TextRows) else tuple(data.inputs[0].shape)
        if isinstance(data.inputs, Tensor) and data.inputs.is_floating_point():
            wrong = (~data.inputs.isfinite()).flatten(1).any(1).nonzero().flatten().tolist()
            if wrong:
                more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
                raise ConfigError(f"{where}the input of example {wrong[0]}{more} has a value that is not finite")
    if len(set(shapes.values())) > 1:
        listed = ", ".join(f"{split} {list(shape)}" for split, shape in shapes.items())
        raise ConfigError(f"the inputs of the splits differ in shape: {listed}")
    return next(iter(shapes.values()))


def check_map_sizes(converted: dict[str, PythonData], shape: Shape) -> None:
    """Check that labels of pixels have the size of the images.

    Args:
        converted: split → examples.
        shape: shape of an input.

    Raises:
        ConfigError: The inputs are no images, or a target has another size.
    """
    for split, data in converted.items():
        where = f"split {split!r}: " if split else ""
        for name, maps in data.maps.items():
            if len(shape) != 3:
                labels = ", ".join(["N", *map(str, maps[0].shape)])
                raise ConfigError(
                    f"{where}target {name!r}: expected labels [N] or [N, labels], got [{labels}]; only images "
                    "have labels for pixels"
                )
            if tuple(maps[0].shape[-2:]) != shape[1:]:
                sizes = ["×".join(map(str, size)) for size in (maps[0].shape[-2:], shape[1:])]
                raise ConfigError(
                    f"{where}target {name!r} has labels for {sizes[0]} pixels, and the images are {sizes[1]}"
                )


def encode_examples(data: PythonData, split: str, targets: dict[str, TargetSpec], named: list[str]) -> Examples:
    """Encode the examples of a split.

    Args:
        data: The examples as they were passed.
        split: The split, for messages; "" if the data isn't divided into splits.
        targets: Name → specification of a target.
        named: Names of the targets whose labels are names of classes.

    Returns:
        The examples.

    Raises:
        ConfigError: A label doesn't fit its target.
    """
    try:
        for name, target in targets.items():
            if target.is_map == (name in data.targets):
                unit = "pixel" if target.is_map else "example"
                raise ConfigError(
                    f"target {name!r} is a {target.type}, with a label for each {unit}, but here it isn't"
                )
        encoded = {
            name: encode_python_target(data.targets[name], name, target, name in named)
            for name, target in targets.items()
            if not target.is_map
        }
        maps = {
            name: encode_python_map(data.maps[name], name, target) for name, target in targets.items() if target.is_map
        }
    except ConfigError as error:
        raise ConfigError(f"split {split!r}: {error}" if split else str(error)) from error
    return Examples(data.inputs, encoded, weights=data.weights, maps=maps)


def has_missing(name: str, target: TargetSpec, converted: dict[str, PythonData], examples: dict[str, Examples]) -> bool:
    """Return whether a label of a target is missing.

    Args:
        name: Name of the target.
        target: Its specification.
        converted: Split → examples as they were passed.
        examples: Split → encoded examples.

    Returns:
        Whether a label is missing.
    """
    if target.is_map:
        maps = {id(of_split.maps[name]): of_split.maps[name] for of_split in examples.values()}  # splits share them
        return any(map(has_missing_pixels, maps.values()))
    return any(is_missing(data.targets[name], name) for data in converted.values())


def add_statistics(name: str, target: TargetSpec, examples: dict[str, Examples]) -> TargetSpec:
    """Add the mean and standard deviation of the labels in the split `train` to a target of numbers.

    Args:
        name: Name of the target.
        target: Its specification.
        examples: Split → examples.

    Returns:
        The specification.

    Raises:
        ConfigError: No example has a label.
    """
    if target.type in ("real_map", "depth_map"):
        mean, std = compute_map_statistics(name, examples["train"])
        return replace(target, mean=mean, std=std)
    if target.type != "real":
        return target
    labels = examples["train"].labels(name).double()
    labels = labels[~labels.isnan()]
    if not len(labels):
        raise ConfigError(f"target {name!r} has no label in the training examples")
    return replace(target, mean=float(labels.mean()), std=float(labels.std(correction=0)))
