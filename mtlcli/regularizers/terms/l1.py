"""The sum of the weights' magnitudes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mtlcli.registry import regularizers
from mtlcli.regularizers.base import Regularizer, Subject
from mtlcli.regularizers.layers import Part, weights_of
from mtlcli.specs import TrunkPass


@regularizers.register("l1")
class L1(Regularizer):
    """The sum of the weights' magnitudes (lasso): it draws each weight to 0 equally hard, however small it is.

        Ω = Σ |w|

    over all weights: biases and the parameters of norm layers are left out (those of one dimension). Of factorized
    layers it is the factors' weights. The gradient is the sign, 0 at 0; under a gradient method weights come near to 0,
    within a step's size, and not to 0 itself.

    Source: Tibshirani, Regression shrinkage and selection via the lasso, 1996.

    Options:
        on: the weights of the trunks (`shared`; a task's private trunk too), of the heads, or of both.
    """

    default_strength = 1e-5

    def __init__(self, subject: Subject, *, on: Part = "all") -> None:
        super().__init__()
        self.weights = tuple(weights_of(subject, on))  # in a tuple they are no parameters of this module

    def term(self, passes: Sequence[TrunkPass]) -> Tensor:
        """See `Regularizer`."""
        return torch.stack(torch._foreach_norm(self.weights, 1)).sum()
