"""Linear head."""

from __future__ import annotations

from torch import nn

from mtlcli.models.heads.base import Head
from mtlcli.registry import heads


@heads.register("linear")
class LinearHead(nn.Linear, Head):
    """One linear layer: [B, features] → [B, outputs].

    Args:
        features: width of the representation.
        outputs: width of the prediction.
    """

    def __init__(self, features: int, outputs: int) -> None:
        super().__init__(features, outputs)
