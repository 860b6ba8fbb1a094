"""Data passed from Python: arrays, tensors, map-style datasets, or one of these for each split."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from mtlcli.data.examples import LazyInputs
from mtlcli.data.formats.python_texts import as_texts
from mtlcli.data.formats.split_names import SPLITS
from mtlcli.data.placement import READ_WHOLE
from mtlcli.errors import ConfigError

TARGET = "target"  # name of a target that is passed without one
FORMS = (
    "a tuple of arrays (inputs, targets), a map-style torch Dataset, or a dict with one of these for each split "
    "(train, val, test)"
)
Labels = NDArray[Any]


@dataclass(frozen=True)
class PythonData:
    """The examples of one split as they were passed.

    Attributes:
        inputs: [N, *input_shape], uint8 or float32, or read one at a time.
        targets: Name → labels as they were passed, [N] or [N, labels].
        weights: Weights of the examples, float32 [N]; None for equal weights.
    """

    inputs: Tensor | LazyInputs
    targets: dict[str, Labels]
    weights: Tensor | None = None


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
            raise ValueError(f"expected {FORMS}; got {_type(data)}{_keys(data)}")
        return _of_text_items(data, key) if texts else _of_items(data, key)
    except ValueError as error:
        raise ConfigError(f"{where}{error}") from error


def _of_arrays(data: tuple[Any, ...], texts: bool) -> PythonData:
    if len(data) != 2:
        raise ValueError(f"expected a tuple (inputs, targets), got a tuple of {len(data)}")
    inputs: Tensor | LazyInputs = as_texts(data[0]) if texts else as_inputs(data[0])
    given = data[1]
    named = given if isinstance(given, Mapping) else {TARGET: given}
    targets = {str(name): as_labels(values, str(name)) for name, values in named.items()}
    if not targets:
        raise ValueError("the data has no target")
    for name, labels in targets.items():
        if len(labels) != len(inputs):
            raise ValueError(f"{len(inputs)} inputs, but {len(labels)} labels of target {name!r}")
    return PythonData(inputs, targets)


def _of_items(data: Any, key: str) -> PythonData:
    """Read every item once, and keep the inputs if they fit in memory."""
    try:
        amount = len(data)
    except TypeError as error:
        raise ValueError(f"{_type(data)} has no length: {error}") from error
    if not amount:
        raise ValueError("the data has no examples")
    items = Items(data, key)
    first, _ = items.read(0)
    keep = amount * first.nbytes <= READ_WHOLE
    inputs = torch.empty((amount, *first.shape), dtype=first.dtype) if keep else None
    collected: dict[str, list[Any]] = {}
    for row in range(amount):
        x, targets = items.read(row)
        if x.shape != first.shape:
            raise ValueError(f"the input of item {row} is {list(x.shape)}, and that of item 0 is {list(first.shape)}")
        if row and targets.keys() != collected.keys():
            raise ValueError(f"item {row} has the targets {', '.join(targets)}, and item 0 has {', '.join(collected)}")
        for name, value in targets.items():
            collected.setdefault(name, []).append(value)
        if inputs is not None:
            inputs[row] = x
    return PythonData(items if inputs is None else inputs, {n: as_labels(v, n) for n, v in collected.items()})


def _of_text_items(data: Any, key: str) -> PythonData:
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
                f"item {row} is {_type(item)}; expected (input, target), (input, {{name: target}}) or a dict"
            )
        if not targets:
            raise ValueError(f"item {row} has no target")
        return x, {str(name): _plain(value) for name, value in targets.items()}


def as_inputs(value: Any, single: bool = False) -> Tensor:
    """Convert inputs to a tensor, uint8 or float32.

    A dimension of one channel is added to images [N, H, W], and [N] becomes [N, 1].

    Args:
        value: a tensor, a NumPy array, a DataFrame of numbers or nested lists.
        single: `value` is the input of a single example, without the dimension N.

    Returns:
        [N, *input_shape], or [*input_shape] of a single example.

    Raises:
        ValueError: the value doesn't consist of numbers.
    """
    if hasattr(value, "to_numpy"):
        value = value.to_numpy()
    if isinstance(value, np.ndarray) and not value.flags.writeable:
        value = value.copy()
    try:
        tensor = torch.as_tensor(value).detach()
    except (TypeError, ValueError, RuntimeError) as error:
        if isinstance(value, np.ndarray) and value.dtype.kind in "OUST":
            raise ValueError(
                "the inputs have values that are not numbers; write a table with text to a file and use the dataset "
                "`table`, or a trunk that reads text, such as `transformers`"
            ) from error
        raise ValueError(f"the inputs are {_type(value)}, which is not an array of numbers: {error}") from error
    if tensor.is_complex():
        raise ValueError("the inputs are complex numbers")
    tensor = tensor.cpu()
    tensor = tensor if tensor.dtype == torch.uint8 else tensor.float()
    shape = tensor.shape if single else tensor.shape[1:]
    if not single and tensor.ndim == 0:
        raise ValueError("the inputs are a single number")
    if len(shape) in (0, 2):
        tensor = tensor.unsqueeze(0 if single else 1)
    return tensor.contiguous()


def as_labels(value: Any, name: str) -> Labels:
    """Convert the labels of a target to an array of numbers, booleans or strings.

    Args:
        value: a tensor, an array, a pandas Series or a sequence; None is a missing label.
        name: name of the target, for messages.

    Returns:
        [N] or [N, labels].

    Raises:
        ValueError: the labels have another shape.
    """
    if isinstance(value, Tensor):
        value = value.detach().cpu()
        value = (value.float() if value.dtype == torch.bfloat16 else value).numpy()
    elif hasattr(value, "to_numpy"):
        value = value.to_numpy()
    try:
        labels = np.asarray(value)
    except ValueError as error:
        raise ValueError(f"target {name!r}: the labels differ in shape: {error}") from error
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim not in (1, 2):
        raise ValueError(f"target {name!r}: expected labels [N] or [N, labels], got {list(labels.shape)}")
    return labels


def _image(value: Any) -> Any:
    """Convert a Pillow image to an array with the channels first; return anything else unchanged."""
    if not (hasattr(value, "getbands") and hasattr(value, "tobytes")):
        return value
    pixels = np.array(value)
    return pixels if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0)


def _plain(value: Any) -> Any:
    if isinstance(value, Tensor | np.ndarray):
        return value.item() if value.ndim == 0 else value.tolist()
    return value


def _type(value: object) -> str:
    kind = type(value)
    return f"{'an' if kind.__name__[0] in 'aeiouAEIOU' else 'a'} {kind.__name__}"


def _keys(value: object) -> str:
    return f" with the keys {', '.join(map(str, list(value)[:5]))}" if isinstance(value, Mapping) else ""
