"""Arrays and tensors passed from Python: inputs, labels of examples, and labels of pixels."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mtlcli.data.examples import LazyInputs

TARGET = "target"  # name of a target that is passed without one
Labels = NDArray[Any]
KEPT = (torch.bool, torch.uint8, torch.int64, torch.float16, torch.float32)  # types of maps


@dataclass(frozen=True)
class PythonData:
    """The examples of one split as they were passed.

    Attributes:
        inputs: [N, *input_shape], uint8 or float32, or read one at a time.
        targets: Name → labels as they were passed, [N] or [N, labels].
        weights: Weights of the examples, float32 [N]; None for equal weights.
        maps: Name → labels of pixels as they were passed, see `as_maps`, or read one at a time.
    """

    inputs: Tensor | LazyInputs
    targets: dict[str, Labels]
    weights: Tensor | None = None
    maps: dict[str, Tensor | LazyInputs] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """Names of all targets."""
        return [*self.targets, *self.maps]


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
        raise ValueError(f"the inputs are {describe_type(value)}, which is not an array of numbers: {error}") from error
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


def as_maps(value: Any, name: str, single: bool = False) -> Tensor:
    """Convert the labels of pixels to a tensor of booleans, integers or floats.

    A dimension of one channel is removed.

    Args:
        value: a tensor or an array.
        name: name of the target, for messages.
        single: `value` is the map of a single example, without the dimension N.

    Returns:
        [N, H, W] or [N, C, H, W], bool, uint8, int64, float16 or float32; without N for a single example.

    Raises:
        ValueError: the labels are no numbers.
    """
    if isinstance(value, np.ndarray) and value.dtype.kind in "ui" and value.dtype != np.uint8:
        value = value.astype(np.int64)
    try:
        tensor = torch.as_tensor(value).detach().cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"target {name!r}: the labels of pixels are no numbers: {error}") from error
    if tensor.is_complex():
        raise ValueError(f"target {name!r}: the labels of pixels are complex numbers")
    if tensor.dtype not in KEPT:
        tensor = tensor.float() if tensor.is_floating_point() else tensor.long()
    channels = 0 if single else 1
    if tensor.ndim == channels + 3 and tensor.shape[channels] == 1:
        tensor = tensor.squeeze(channels)
    if tensor.ndim not in (channels + 2, channels + 3):
        shapes = "[H, W] or [C, H, W]" if single else "[N, H, W] or [N, C, H, W]"
        raise ValueError(f"target {name!r}: expected labels of pixels {shapes}, got {list(tensor.shape)}")
    return tensor


def is_map(value: Any, single: bool = False) -> bool:
    """Return whether a value has labels of pixels: an array or a tensor of three dimensions, two of a single example.

    Args:
        value: the labels of a target.
        single: `value` is that of a single example.

    Returns:
        Whether they are maps.
    """
    return isinstance(value, Tensor | np.ndarray) and value.ndim >= (2 if single else 3)


def describe_type(value: object) -> str:
    """Return the name of a value's type with an article."""
    kind = type(value)
    return f"{'an' if kind.__name__[0] in 'aeiouAEIOU' else 'a'} {kind.__name__}"
