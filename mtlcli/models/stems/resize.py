"""A stem that interpolates images to another size."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from mtlcli.config.options import Width
from mtlcli.models.interpolation import Interpolation
from mtlcli.models.stems.base import Stem, format_shape
from mtlcli.registry import stems
from mtlcli.specs import Shape


@stems.register("resize")
class Resize(Stem):
    """Bilinear interpolation of images to another height and width, without parameters.

    The filter is antialiased where an image shrinks, as torchvision's and Pillow's. The number of channels does not
    change.

    Args:
        input_shape: shape [C, H, W] of an image.
        output_shape: input shape [C, h, w] of the trunk.
        size: height and width of the output, which state the input shape of the trunk; null: the rest of the experiment
            determines them.

    Raises:
        ValueError: if the inputs are not images or have another number of channels than the input of the trunk.
    """

    def __init__(self, input_shape: Shape, output_shape: Shape, *, size: Width | None = None) -> None:
        super().__init__()
        if len(input_shape) != 3:
            raise ValueError(f"resize needs images [C, H, W], and the inputs are {format_shape(input_shape)}")
        if len(output_shape) != 3 or output_shape[0] != input_shape[0]:
            raise ValueError(
                f"resize changes the height and width of images only: it can't convert {format_shape(input_shape)} to "
                f"{format_shape(output_shape)}, the input of the trunk. Use the stem `conv`"
            )
        self.interpolation = Interpolation(input_shape[1:], output_shape[1:])

    @classmethod
    def stated_shape(cls, input_shape: Shape, options: dict[str, Any]) -> Shape | None:
        """See `Stem.stated_shape`: [C, size, size] if `size` is set."""
        size = options["size"]
        return None if size is None else (input_shape[0], size, size)

    def forward(self, x: Tensor, /) -> Tensor:
        resized: Tensor = self.interpolation(x)
        return resized
