"""The sum of the weights' squares."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mtlcli.registry import regularizers
from mtlcli.regularizers.base import Regularizer, Subject
from mtlcli.regularizers.layers import Part, weights_of
from mtlcli.specs import TrunkPass


@regularizers.register("l2")
class L2(Regularizer):
    """The sum of the weights' squares (ridge).

        Ω = Σ w²

    over all weights, without a factor ½: biases and the parameters of norm layers are left out (those of one
    dimension). The gradient is 2 w, so with SGD a strength is a `weight_decay` of twice that; not so with AdamW, whose
    decay is decoupled from the gradient. Of factorized layers it is the factors' weights, Σ_r ‖u_r‖² + ‖v_r‖²: at least
    twice their multi-nuclear norm, and equal to that where ‖u_r‖ = ‖v_r‖.

    Source: Hoerl and Kennard, Ridge regression, 1970; of networks: Krogh and Hertz, A simple weight decay can improve
    generalization, NeurIPS 1991.

    Options:
        on: the weights of the trunks (`shared`; a task's private trunk too), of the heads, or of both.
    """

    default_strength = 1e-4
    likelihood = "gaussian"

    def __init__(self, subject: Subject, *, on: Part = "all") -> None:
        super().__init__()
        self.weights = tuple(weights_of(subject, on))  # in a tuple they are no parameters of this module

    def term(self, passes: Sequence[TrunkPass]) -> Tensor:
        """See `Regularizer`."""
        return torch.stack(torch._foreach_norm(self.weights, 2)).square().sum()
