"""Base class of the heads."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn


class Head(nn.Module, ABC):
    """Base class of the heads: the representation of a task → its prediction.

    The constructor receives two positional arguments, `features` (width of the representation) and `outputs` (width of
    the prediction), and the options of the configuration as keyword-only arguments. A head need not derive from this
    class: any `nn.Module` with this signature can be registered.
    """

    @abstractmethod
    def forward(self, x: Tensor, /) -> Tensor:
        """Compute the prediction.

        Args:
            x: representations, [B, features].

        Returns:
            Predictions, [B, outputs].
        """
