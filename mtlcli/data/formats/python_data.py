"""Data passed from Python: arrays, tensors, map-style datasets, or one of these for each split."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

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
from mtlcli.data.formats.python_items import read_items, read_text_items
from mtlcli.data.formats.python_texts import as_texts
from mtlcli.data.formats.split_names import SPLITS
from mtlcli.errors import ConfigError

FORMS = (
    "a tuple of arrays (inputs, targets), a map-style torch Dataset, or a dict with one of these for each split "
    "(train, val, test)"
)


def convert_data(data: object, key: str, texts: bool = False) -> dict[str, PythonData]:
    """Convert data that was passed from Python.

    Raises a ConfigError if the data has another form, its parts differ in length, or an item can't be read.

    Args:
        data: In one of the forms in `FORMS`.
        key: Key of the input in items that are dicts.
        texts: The inputs are texts, for a trunk that reads them.

    Returns:
        Split → examples; a single entry under "" for data that isn't divided into splits.
    """
    if isinstance(data, Mapping) and data and set(data) <= set(SPLITS):
        return {split: _convert(data[split], key, f"split {split!r}: ", texts) for split in SPLITS if split in data}
    return {"": _convert(data, key, "", texts)}


def _convert(data: object, key: str, where: str, texts: bool) -> PythonData:
    try:
        if type(data) is TensorDataset and len(data.tensors) == 2:
            data = tuple(data.tensors)
        if isinstance(data, tuple):
            return _of_arrays(data, texts)
        if isinstance(data, DataLoader):
            raise ValueError("got a DataLoader; pass its dataset")
        if isinstance(data, IterableDataset):
            raise ValueError("an IterableDataset has no length and no order; pass a map-style dataset")
        if isinstance(data, Mapping | Tensor | str) or not hasattr(data, "__getitem__") or hasattr(data, "__array__"):
            raise ValueError(f"expected {FORMS}; got {describe_type(data)}{_keys(data)}")
        return read_text_items(data, key) if texts else read_items(data, key)
    except ValueError as error:
        raise ConfigError(f"{where}{error}") from error


def _of_arrays(data: tuple[Any, ...], texts: bool) -> PythonData:
    if len(data) != 2:
        raise ValueError(f"expected a tuple (inputs, targets), got a tuple of {len(data)}")
    inputs: Tensor | LazyInputs = as_texts(data[0]) if texts else as_inputs(data[0])
    given = data[1]
    named = given if isinstance(given, Mapping) else {TARGET: given}
    targets = {str(name): as_labels(values, str(name)) for name, values in named.items() if not is_map(values)}
    maps: dict[str, Tensor | LazyInputs] = {
        str(name): as_maps(values, str(name)) for name, values in named.items() if is_map(values)
    }
    if not targets and not maps:
        raise ValueError("the data has no target")
    for name, labels in (*targets.items(), *maps.items()):
        if len(labels) != len(inputs):
            raise ValueError(f"{len(inputs)} inputs, but {len(labels)} labels of target {name!r}")
    return PythonData(inputs, targets, maps=maps)


def _keys(value: object) -> str:
    return f" with the keys {', '.join(map(str, list(value)[:5]))}" if isinstance(value, Mapping) else ""
