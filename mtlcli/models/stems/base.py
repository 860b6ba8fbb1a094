"""Base class of the stems, which convert the inputs of one dataset to the input of the trunk."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any, ClassVar, Self

from torch import Tensor, nn

from mtlcli.specs import Shape


class Stem(nn.Module, ABC):
    """Base class of the stems: an encoder for one dataset, [B, *input_shape] → [B, *output_shape].

    The constructor receives two positional arguments, the shape of an example of the dataset and the input shape of the
    trunk, and the options of the configuration as keyword-only arguments. It raises ValueError if it can't convert the
    one to the other.

    Attributes:
        of_columns: whether the stem encodes the raw columns of a table. The constructor then receives a tuple of
            `Column` instead of the input shape. Other stems receive numbers into which the model has converted the
            columns, [B, values].
        frozen: whether the stem is kept unchanged in training, see `warm_start.freeze`.
    """

    of_columns: ClassVar[bool] = False
    frozen = False

    @classmethod
    def stated_shape(cls, input_shape: Shape, options: dict[str, Any]) -> Shape | None:
        """Return the output shape that the options of an entry determine.

        Args:
            input_shape: shape of an example of the dataset, without the batch.
            options: all options of the entry.

        Returns:
            The shape without the batch; by default [features] if there is an option `features` and it is set. None:
            the stem produces the shape that the rest of the experiment determines.
        """
        features = options.get("features")
        return None if features is None else (features,)

    @abstractmethod
    def forward(self, x: Tensor, /) -> Tensor:
        """Encode examples.

        Args:
            x: normalized inputs, or raw columns of a table (`of_columns`), [B, *input_shape].

        Returns:
            Inputs of the trunk, [B, *output_shape].
        """

    def train(self, mode: bool = True) -> Self:
        """Set the training mode; a frozen stem stays in evaluation mode.

        Args:
            mode: True for training, False for evaluation.

        Returns:
            The stem itself.
        """
        return super().train(mode and not self.frozen)


def make_projection(inputs: int, output_shape: Shape) -> nn.Module:
    """Create a linear layer from vectors to examples of any shape.

    Args:
        inputs: width of the vectors.
        output_shape: shape of the output, without the batch.

    Returns:
        A module [B, inputs] → [B, *output_shape].
    """
    linear = nn.Linear(inputs, math.prod(output_shape))
    return linear if len(output_shape) == 1 else nn.Sequential(linear, nn.Unflatten(1, output_shape))


def format_shape(shape: Shape) -> str:
    """Return a shape as in messages, such as `16×7×7`."""
    return "×".join(map(str, shape))
