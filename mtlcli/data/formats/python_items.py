"""Items of map-style datasets passed from Python."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mtlcli.data.examples import LazyInputs
from mtlcli.data.formats.python_arrays import (
    TARGET,
    PythonData,
    as_inputs,
    as_labels,
    as_maps,
    describe_type,
    is_map,
)
from mtlcli.data.formats.python_texts import as_texts
from mtlcli.data.placement import READ_WHOLE


def read_items(data: Any, key: str) -> PythonData:
    """Read every item once, and keep the inputs and maps if they fit in memory.

    Args:
        data: a map-style dataset.
        key: key of the input in items that are dicts.

    Returns:
        The examples.

    Raises:
        ValueError: an item can't be read, or the items differ in their targets or shapes.
    """
    try:
        amount = len(data)
    except TypeError as error:
        raise ValueError(f"{describe_type(data)} has no length: {error}") from error
    if not amount:
        raise ValueError("the data has no examples")
    items = Items(data, key)
    first, labels = items.read(0)
    shapes = {name: as_maps(value, name, single=True) for name, value in labels.items() if is_map(value, single=True)}
    keep = amount * (first.nbytes + sum(of_target.nbytes for of_target in shapes.values())) <= READ_WHOLE
    inputs = torch.empty((amount, *first.shape), dtype=first.dtype) if keep else None
    maps = {name: torch.empty((amount, *like.shape), dtype=like.dtype) for name, like in shapes.items() if keep}
    collected: dict[str, list[Any]] = {name: [] for name in labels if name not in shapes}
    for row in range(amount):
        x, targets = items.read(row)
        if x.shape != first.shape:
            raise ValueError(f"the input of item {row} is {list(x.shape)}, and that of item 0 is {list(first.shape)}")
        if targets.keys() != labels.keys():
            raise ValueError(f"item {row} has the targets {', '.join(targets)}, and item 0 has {', '.join(labels)}")
        for name, values in collected.items():
            values.append(targets[name])
        for name, like in shapes.items():
            of_item = _map_like(targets[name], like, name, row)
            if keep:
                maps[name][row] = of_item
        if inputs is not None:
            inputs[row] = x
    kept: dict[str, Tensor | LazyInputs] = {name: maps[name] if keep else ItemMaps(items, name) for name in shapes}
    targets_of_examples = {name: as_labels(values, name) for name, values in collected.items()}
    return PythonData(items if inputs is None else inputs, targets_of_examples, maps=kept)


def _map_like(value: Any, like: Tensor, name: str, row: int) -> Tensor:
    """Convert a map of an item, which must have the form of that of item 0."""
    if not is_map(value, single=True):
        raise ValueError(f"the target {name!r} of item {row} is no array of labels of pixels, as that of item 0 is")
    of_item = as_maps(value, name, single=True)
    if (of_item.shape, of_item.dtype) != (like.shape, like.dtype):
        forms = [f"{list(x.shape)} of {str(x.dtype).removeprefix('torch.')}" for x in (of_item, like)]
        raise ValueError(f"the target {name!r} of item {row} is {forms[0]}, and that of item 0 is {forms[1]}")
    return of_item


def read_text_items(data: Any, key: str) -> PythonData:
    """Read every item once; the inputs are texts.

    Args:
        data: a map-style dataset.
        key: key of the input in items that are dicts.

    Returns:
        The examples.

    Raises:
        ValueError: an item can't be read, or the items differ in their targets.
    """
    items = Items(data, key)
    rows = [items.read_item(row) for row in range(len(data))]
    if not rows:
        raise ValueError("the data has no examples")
    names = list(rows[0][1])
    for at, (_, targets) in enumerate(rows):
        if list(targets) != names:
            raise ValueError(f"item {at} has the targets {', '.join(targets)}, and item 0 has {', '.join(names)}")
    labels = {name: as_labels([targets[name] for _, targets in rows], name) for name in names}
    return PythonData(as_texts([text for text, _ in rows]), labels)


class Items:
    """The inputs of a map-style dataset, read one at a time.

    Args:
        data: The dataset. An item is (input, target), (input, {name: target}), or a dict with the input under `key`.
        key: Key of the input in items that are dicts.
    """

    def __init__(self, data: Any, key: str) -> None:
        self.data, self.key = data, key

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, row: int) -> Tensor:
        return self.read(row)[0]

    def read(self, row: int) -> tuple[Tensor, dict[str, Any]]:
        """Read an item, see `read_item`.

        Args:
            row: index of the item.

        Returns:
            The input [*input_shape], and name → label of each target.
        """
        x, targets = self.read_item(row)
        return as_inputs(_image(x), single=True), targets

    def read_item(self, row: int) -> tuple[Any, dict[str, Any]]:
        """Read an item, and leave its input as it is.

        Args:
            row: index of the item.

        Returns:
            The input, and name → label of each target.

        Raises:
            ValueError: the item can't be read, or has another form.
        """
        try:
            item = self.data[row]
        except Exception as error:
            raise ValueError(f"item {row} can't be read: {type(error).__name__}: {error}") from error
        if isinstance(item, Mapping):
            if self.key not in item:
                keys = ", ".join(map(str, item))
                raise ValueError(f"item {row} has no {self.key!r}; set the option `input` to one of its keys: {keys}")
            x, targets = item[self.key], {str(name): value for name, value in item.items() if name != self.key}
        elif isinstance(item, tuple | list) and len(item) == 2:
            x, target = item
            targets = dict(target) if isinstance(target, Mapping) else {TARGET: target}
        else:
            raise ValueError(
                f"item {row} is {describe_type(item)}; expected (input, target), (input, {{name: target}}) or a dict"
            )
        if not targets:
            raise ValueError(f"item {row} has no target")
        return x, {str(name): _plain(_image(value)) for name, value in targets.items()}


class ItemMaps:
    """The maps of a target of a map-style dataset, read one at a time.

    Args:
        items: the items.
        name: name of the target.
    """

    def __init__(self, items: Items, name: str) -> None:
        self.items, self.name = items, name

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, row: int) -> Tensor:
        return as_maps(self.items.read_item(row)[1][self.name], self.name, single=True)


def _image(value: Any) -> Any:
    """Convert a Pillow image to an array with the channels first; return anything else unchanged."""
    if not (hasattr(value, "getbands") and hasattr(value, "tobytes")):
        return value
    pixels = np.array(value)
    return pixels if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0)


def _plain(value: Any) -> Any:
    """Convert labels of an example to numbers and lists; leave maps as they are."""
    if isinstance(value, Tensor | np.ndarray) and value.ndim < 2:
        return value.item() if value.ndim == 0 else value.tolist()
    return value
