"""A linear stem."""

from __future__ import annotations

import math

from torch import Tensor, nn

from mtlcli.config.options import Width
from mtlcli.models.stems.base import Stem, make_projection
from mtlcli.registry import stems
from mtlcli.specs import Shape


@stems.register("linear")
class Linear(Stem):
    """One linear layer: any input, flattened, → the input of the trunk.

    Args:
        input_shape: shape of an example, without the batch.
        output_shape: input shape of the trunk; a map [C, H, W] is the output of the layer in this order.
        features: width of the output, which states that the trunk takes vectors of this width; null: the rest of the
            experiment determines the shape.
    """

    def __init__(self, input_shape: Shape, output_shape: Shape, *, features: Width | None = None) -> None:
        super().__init__()
        self.flatten = nn.Flatten()
        self.projection = make_projection(math.prod(input_shape), output_shape)

    def forward(self, x: Tensor, /) -> Tensor:
        encoded: Tensor = self.projection(self.flatten(x))
        return encoded
