"""Base class of the trunks that consist of an encoder and a decoder."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Iterable
from typing import Any, Literal

from torch import Tensor, nn

from mtlcli.models.modules import channels_last, record_outputs
from mtlcli.models.representations import Representation
from mtlcli.models.trunks.base import Trunk
from mtlcli.specs import Shape

Norm = Literal["batch", "group", "none"]
Kept = dict[int, Any]
"""Number of a stage of the encoder → what it keeps in a pass for the decoder."""


class EncoderDecoder(Trunk):
    """Base class of the trunks with an encoder and a decoder: images [B, C, H, W] → maps [B, F, H, W].

    The stages are `encoder1`, …, `encoderN` and those of the decoder, in order. In one pass they share what the stages
    of the encoder keep for those of the decoder. If a sharing changes the activation of a stage of the encoder, the
    stages after it, also in the decoder, use the changed one.

    A subclass adds the modules `encoder1`, …, `encoderN`, each with a submodule `first`, and `decoder…`, each with a
    submodule `join`, and implements `encode` and `decode`.

    Args:
        encoders: number of stages of the encoder.
        decoders: numbers of the stages of the decoder, in order.
    """

    representation: Representation = "map"
    stages_are_linked = True

    def __init__(self, encoders: int, decoders: Iterable[int]) -> None:
        super().__init__()
        self.encoders, self.decoders = list(range(1, encoders + 1)), list(decoders)

    @abstractmethod
    def encode(self, level: int, x: Tensor, kept: Kept) -> Tensor:
        """Apply a stage of the encoder.

        Args:
            level: number of the stage, from 1.
            x: the image, or the activation of the stage before.
            kept: level → what its stage of the decoder receives; changed.

        Returns:
            The activation.
        """

    @abstractmethod
    def decode(self, level: int, x: Tensor, kept: Kept) -> Tensor:
        """Apply a stage of the decoder.

        Args:
            level: number of the stage.
            x: the activation of the stage before.
            kept: level → what its stage receives; changed.

        Returns:
            The activation.
        """

    def stages(self) -> dict[str, Callable[[Tensor], Tensor]]:
        """Return the stages of one pass; see `Trunk.stages`."""
        kept: Kept = {}

        def encode(level: int) -> Callable[[Tensor], Tensor]:
            return lambda x: self.encode(level, channels_last(x) if level == 1 else x, kept)

        def decode(level: int) -> Callable[[Tensor], Tensor]:
            return lambda x: self.decode(level, x, kept)

        encoders = {f"encoder{level}": encode(level) for level in self.encoders}
        return {**encoders, **{f"decoder{level}": decode(level) for level in self.decoders}}

    def attention_inputs(self) -> dict[str, str]:
        """Return stage → output of its first convolution in the encoder, and input of its first one in the decoder."""
        first = {f"encoder{level}": f"encoder{level}.first" for level in self.encoders}
        return first | {f"decoder{level}": f"decoder{level}.join" for level in self.decoders}

    def activation_names(self) -> list[str]:
        """Return the names of the stages and of the activations in `attention_inputs`."""
        inner = self.attention_inputs()
        return [name for stage in self.stages() for name in (inner[stage], stage)]

    def activations(self, x: Tensor, names: Iterable[str]) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute the features and the named activations; see `Trunk.activations`."""
        wanted = self.check_activation_names(names)
        stages = self.stages()
        activations: dict[str, Tensor] = {}  # torch.compile does not support dict[…]()
        x = self.encoder(x)
        with record_outputs({name: self.get_submodule(name) for name in wanted - stages.keys()}, activations):
            for name, stage in stages.items():
                x = stage(x)
                if name in wanted:
                    activations[name] = x
        return x, activations


def check_size(name: str, input_shape: Shape, halved: int) -> None:
    """Check that the inputs are images that can be halved a number of times.

    Args:
        name: name of the trunk.
        input_shape: shape of an input.
        halved: number of times.

    Raises:
        ValueError: if they are not images, or too small.
    """
    minimum = 2**halved
    if len(input_shape) != 3 or min(input_shape[1:]) < minimum:
        raise ValueError(
            f"{name} with these widths needs images [C, H, W] of at least {minimum}×{minimum}, "
            f"got {'×'.join(map(str, input_shape))}"
        )


def convolution(inputs: int, outputs: int, norm: Norm) -> nn.Sequential:
    """Create a 3×3 convolution with norm and ReLU, [B, inputs, H, W] → [B, outputs, H, W].

    Args:
        inputs: number of input channels.
        outputs: number of output channels.
        norm: norm before the ReLU; `none`: the convolution has a bias instead.

    Returns:
        The layers.
    """
    layers: list[nn.Module] = [nn.Conv2d(inputs, outputs, 3, padding=1, bias=norm == "none")]
    if norm == "batch":
        layers.append(nn.BatchNorm2d(outputs))
    elif norm == "group":
        layers.append(nn.GroupNorm(math.gcd(8, outputs), outputs))
    return nn.Sequential(*layers, nn.ReLU(inplace=True))


class Block(nn.Module):
    """3×3 convolutions with norm and ReLU: [B, inputs, H, W] → [B, outputs, H, W].

    Args:
        inputs: number of input channels.
        outputs: number of output channels.
        depth: number of convolutions.
        norm: norm before each ReLU.
    """

    def __init__(self, inputs: int, outputs: int, depth: int, norm: Norm) -> None:
        super().__init__()
        self.first = convolution(inputs, outputs, norm)
        self.rest = nn.Sequential(*(convolution(outputs, outputs, norm) for _ in range(depth - 1)))

    def forward(self, x: Tensor) -> Tensor:
        """Apply the convolutions.

        Args:
            x: maps, [B, inputs, H, W].

        Returns:
            Maps, [B, outputs, H, W].
        """
        y: Tensor = self.rest(self.first(x))
        return y
