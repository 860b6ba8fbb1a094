"""Base class of the heads."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor, nn


class Head(nn.Module, ABC):
    """Base class of the heads: the representation of a task → its prediction.

    The constructor receives two positional arguments, `features` (width of the representation) and `outputs` (width of
    the prediction), and the options of the configuration as keyword-only arguments. A head need not derive from this
    class: any `nn.Module` with this signature can be registered.

    A task that predicts a map applies a head of vectors to each position of the representation.

    Attributes:
        of_maps: whether the head processes maps, [B, features, h, w] → [B, outputs, h, w]; only tasks that predict maps
            can use it.
    """

    of_maps: ClassVar[bool] = False

    @abstractmethod
    def forward(self, x: Tensor, /) -> Tensor:
        """Compute the prediction.

        Args:
            x: representations, [B, features]; [B, features, h, w] if `of_maps`.

        Returns:
            Predictions, [B, outputs]; [B, outputs, h, w] if `of_maps`.
        """
