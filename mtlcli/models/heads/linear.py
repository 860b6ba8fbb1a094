"""One linear layer as a head."""

from __future__ import annotations

from torch import nn

from mtlcli.registry import heads


@heads.register("linear")
class Linear(nn.Linear):
    """One linear layer: [B, features] → [B, outputs]."""

    def __init__(self, features: int, outputs: int) -> None:
        super().__init__(features, outputs)
