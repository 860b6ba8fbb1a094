"""A fully connected trunk."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated

from pydantic import Field
from torch import Tensor, nn

from mtlcli.config.options import Width, Widths
from mtlcli.models.trunks.base import Trunk
from mtlcli.registry import trunks
from mtlcli.specs import Shape


@trunks.register("mlp")
class MLP(Trunk):
    """Fully connected layers, each followed by ReLU and dropout: inputs of any shape, flattened → [B, F].

    Activations: fc1, fc2, …, one per layer (after the ReLU, before the dropout); the last one is the features.

    Args:
        input_shape: shape of an example without the batch.
        hidden: widths of the hidden layers; may be empty.
        features: width F of the output.
        dropout: dropout probability of the hidden layers.
    """

    def __init__(
        self,
        input_shape: Shape,
        *,
        hidden: Widths = [256],  # noqa: B006 (never changed)
        features: Width = 128,
        dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0,
    ) -> None:
        super().__init__()
        self.features = features
        widths = [math.prod(input_shape), *hidden, features]
        self.names = [f"fc{i + 1}" for i in range(len(widths) - 1)]
        for name, inputs, outputs in zip(self.names, widths, widths[1:], strict=False):
            self.add_module(name, nn.Linear(inputs, outputs))
        self.dropout = nn.Dropout(dropout)

    def stages(self) -> dict[str, Callable[[Tensor], Tensor]]:
        return {name: self._stage(name, first=name == self.names[0]) for name in self.names}

    def _stage(self, name: str, first: bool) -> Callable[[Tensor], Tensor]:
        layer = self.get_submodule(name)

        def stage(x: Tensor) -> Tensor:
            out: Tensor = layer(x.flatten(1) if first else self.dropout(x)).relu()
            return out

        return stage
