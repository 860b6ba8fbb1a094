"""L1 penalty on weights."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mtlcli.registry import regularizers
from mtlcli.regularizers.base import Regularizer, Subject
from mtlcli.regularizers.layers import WeightGroup, collect_weights
from mtlcli.specs import TrunkPass


@regularizers.register("l1")
class L1(Regularizer):
    """Sum of the absolute values of the weights (lasso).

        Ω = Σ |w|

    over all weights: biases and the parameters of norm layers, which have one dimension, are excluded. For factorized
    layers these are the weights of the factors. The gradient is the sign, 0 at 0, so each weight is drawn to 0 with the
    same force, however small it is; a gradient method brings weights to within a step of 0, not to exactly 0.

    References:
        Tibshirani, Regression shrinkage and selection via the lasso, Journal of the Royal Statistical Society B 1996.

    Args:
        subject: the regularized network.
        on: the weights of the trunks (`shared`, including private trunks), of the heads (`heads`), or of both (`all`).
    """

    default_strength = 1e-5

    def __init__(self, subject: Subject, *, on: WeightGroup = "all") -> None:
        super().__init__()
        # a tuple, so that they don't become parameters of this module
        self.weights = tuple(collect_weights(subject, on))

    def term(self, passes: Sequence[TrunkPass]) -> Tensor:
        """See `Regularizer.term`."""
        return torch.stack(torch._foreach_norm(self.weights, 1)).sum()
