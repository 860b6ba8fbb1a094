"""Linear maps of layers, from which adapters build maps with other numbers of outputs."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn
from torch.nn import functional as F

from mtlcli.specs import Shape


class LayerMap(ABC):
    """Linear map that a layer computes at each position of its output: a matrix times the layer's inputs there.

    The inputs of a Linear layer are a vector; those of a convolution are the patch under its kernel.

    Attributes:
        inputs: shape of the weights of one output.
        outputs: number of outputs of the layer.
        channels: dimension of the layer's output with the outputs of the map.
    """

    inputs: Shape
    outputs: int
    channels: int

    @abstractmethod
    def apply(self, x: Tensor, weight: Tensor) -> Tensor:
        """Apply a map with other weights at the same positions.

        Args:
            x: input of the layer.
            weight: weights of k outputs, [k, *inputs].

        Returns:
            The output of the layer with k channels.
        """

    @abstractmethod
    def combine(self, z: Tensor, matrix: Tensor) -> Tensor:
        """Multiply the channels at each position by a matrix.

        Args:
            z: result of `apply` with k channels.
            matrix: matrix, [m, k].

        Returns:
            The same with m channels.
        """

    @abstractmethod
    def to_weight(self, matrix: Tensor) -> Tensor:
        """Return a matrix [outputs, *inputs] in the shape of the layer's weight."""


class LinearMap(LayerMap):
    """Map of a Linear layer, or of `Conv1D` of the library transformers, whose weight is transposed.

    Args:
        layer: the layer.
    """

    channels = -1

    def __init__(self, layer: nn.Module) -> None:
        weight = layer.weight
        assert isinstance(weight, Tensor)
        self.transposed = not isinstance(layer, nn.Linear)
        self.outputs, inputs = reversed(weight.shape) if self.transposed else weight.shape
        self.inputs = (inputs,)

    def apply(self, x: Tensor, weight: Tensor) -> Tensor:
        return F.linear(x, weight)

    def combine(self, z: Tensor, matrix: Tensor) -> Tensor:
        return F.linear(z, matrix)

    def to_weight(self, matrix: Tensor) -> Tensor:
        return matrix.T if self.transposed else matrix


class ConvolutionMap(LayerMap):
    """Map of a Conv2d layer of one group: stride, padding, padding mode and dilation are those of the layer.

    Args:
        layer: the layer.
    """

    channels = 1

    def __init__(self, layer: nn.Conv2d) -> None:
        self.outputs, *inputs = layer.weight.shape
        self.inputs = tuple(inputs)
        self.stride, self.dilation, self.padding = layer.stride, layer.dilation, layer.padding
        self.padding_mode = layer.padding_mode
        self.margins = layer._reversed_padding_repeated_twice  # in the order of F.pad

    def apply(self, x: Tensor, weight: Tensor) -> Tensor:
        padding: str | int | tuple[int, ...] = self.padding
        if self.padding_mode != "zeros":
            x, padding = F.pad(x, self.margins, mode=self.padding_mode), 0
        return F.conv2d(x, weight, None, self.stride, padding, self.dilation)

    def combine(self, z: Tensor, matrix: Tensor) -> Tensor:
        return F.conv2d(z, matrix[:, :, None, None])

    def to_weight(self, matrix: Tensor) -> Tensor:
        return matrix


def layer_map(layer: nn.Module) -> LayerMap | None:
    """Return the map of a Linear layer, a Conv2d of one group or a `Conv1D` of transformers; None for other modules."""
    if isinstance(layer, nn.Conv2d):
        return ConvolutionMap(layer) if layer.groups == 1 else None
    if isinstance(layer, nn.Linear) or is_transposed(layer):
        return LinearMap(layer)
    return None


def is_transposed(layer: nn.Module) -> bool:
    """Return whether a module is `Conv1D` of transformers, a linear layer whose weight is [inputs, outputs]."""
    return type(layer).__name__ == "Conv1D" and type(layer).__module__.startswith("transformers.")
