"""How far layers' weights are from orthogonal ones."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mtlcli.registry import regularizers
from mtlcli.regularizers.base import Regularizer, Subject
from mtlcli.regularizers.layers import Patterns, find_layers
from mtlcli.specs import TrunkPass


@regularizers.register("orthogonality")
class Orthogonality(Regularizer):
    """Soft orthogonality of layers' weights: rows (or columns) of length 1, at right angles to each other.

        Ω = Σ_layers ‖W Wᵀ − I‖²_F  for W [m, n] with m ≤ n,  ‖Wᵀ W − I‖²_F otherwise

    The smaller Gram matrix, the one that can be I. The papers take one of the two for all layers; the other differs
    from it by the constant |m − n|, so that the gradient is the same. A convolution's weight is its (out × in·k·k)
    matrix. It is 0 where all singular values are 1.

    Sources: Bansal, Chen and Wang, Can we gain more from orthogonality regularizations in training deep networks?,
    NeurIPS 2018, equation 1 (SO); Brock et al., Neural photo editing with introspective adversarial networks, ICLR 2017
    (with the sum of magnitudes instead of squares). ValueError for a pattern that matches nothing.

    Options:
        layers: names of the trunk's layers, or patterns of them (`fc1`, `conv*`), as `named_modules` has them.
    """

    default_strength = 1e-3
    likelihood = "gaussian"

    def __init__(self, subject: Subject, *, layers: Patterns = ["*"]) -> None:  # noqa: B006 (never changed)
        super().__init__()
        self.layers = [layer.module for layer in find_layers(subject, layers)]

    def term(self, passes: Sequence[TrunkPass]) -> Tensor:
        """See `Regularizer`."""
        return torch.stack([_deviation(layer.weight.flatten(1)) for layer in self.layers]).sum()


def _deviation(w: Tensor) -> Tensor:
    gram = w @ w.T if len(w) <= w.shape[1] else w.T @ w
    return (gram - torch.eye(len(gram), dtype=w.dtype, device=w.device)).square().sum()
