"""L2 penalty on weights."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mtlcli.registry import regularizers
from mtlcli.regularizers.base import Regularizer, Subject
from mtlcli.regularizers.layers import WeightGroup, collect_weights
from mtlcli.specs import TrunkPass


@regularizers.register("l2")
class L2(Regularizer):
    """Sum of the squares of the weights (ridge).

        Ω = Σ w²

    over all weights, without a factor of ½: biases and the parameters of norm layers, which have one dimension, are
    excluded. The gradient is 2 w, so with SGD a strength is equivalent to a `weight_decay` of twice the strength; this
    is not so with AdamW, whose decay is decoupled from the gradient. For factorized layers these are the weights of the
    factors, Σ_r ‖u_r‖² + ‖v_r‖²: at least twice the multi-nuclear norm, and equal to that if ‖u_r‖ = ‖v_r‖.

    References:
        Hoerl and Kennard, Ridge regression: biased estimation for nonorthogonal problems, Technometrics 1970.
        Krogh and Hertz, A simple weight decay can improve generalization, NeurIPS 1991: for neural networks.

    Args:
        subject: the regularized network.
        on: the weights of the trunks (`shared`, including private trunks), of the heads (`heads`), or of both (`all`).
    """

    default_strength = 1e-4
    likelihood = "gaussian"

    def __init__(self, subject: Subject, *, on: WeightGroup = "all") -> None:
        super().__init__()
        # a tuple, so that they don't become parameters of this module
        self.weights = tuple(collect_weights(subject, on))

    def term(self, passes: Sequence[TrunkPass]) -> Tensor:
        """See `Regularizer.term`."""
        return torch.stack(torch._foreach_norm(self.weights, 2)).square().sum()
