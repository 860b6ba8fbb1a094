"""Fully connected head."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import nn

from mtlcli.config.options import Widths
from mtlcli.models.heads.base import Head
from mtlcli.registry import heads


@heads.register("mlp")
class MLPHead(nn.Sequential, Head):
    """Hidden layers with ReLU and dropout, then one linear layer: [B, features] → [B, outputs].

    Args:
        features: width of the representation.
        outputs: width of the prediction.
        hidden: widths of the hidden layers; may be empty.
        dropout: dropout probability of the hidden layers.
    """

    def __init__(
        self,
        features: int,
        outputs: int,
        *,
        hidden: Widths = [64],  # noqa: B006 (never changed)
        dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0,
    ) -> None:
        layers: list[nn.Module] = []
        for inputs, width in zip([features, *hidden], hidden, strict=False):
            layers += [nn.Linear(inputs, width), nn.ReLU(), nn.Dropout(dropout)]
        super().__init__(*layers, nn.Linear([features, *hidden][-1], outputs))
