"""Soft orthogonality of the weights of layers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mtlcli.registry import regularizers
from mtlcli.regularizers.base import Regularizer, Subject
from mtlcli.regularizers.layers import LayerPatterns, find_layers
from mtlcli.specs import TrunkPass


@regularizers.register("orthogonality")
class Orthogonality(Regularizer):
    """Soft orthogonality of the weights of layers: their rows (or columns) become orthonormal.

        Ω = Σ_layers ‖W Wᵀ − I‖²_F  for W [m, n] with m ≤ n,  ‖Wᵀ W − I‖²_F otherwise

    The smaller Gram matrix is used, since only that one can be I. The matrix of a convolution is (out × in·k·k). Ω is 0
    if all singular values are 1.

    Note:
        The papers use one of the two Gram matrices for all layers; the two norms differ by the constant |m − n|, so
        that the gradient is the same.

    References:
        Bansal, Chen and Wang, Can we gain more from orthogonality regularizations in training deep networks?, NeurIPS
            2018, arXiv:1810.09102, equation 1 (SO).
        Brock, Lim, Ritchie and Weston, Neural photo editing with introspective adversarial networks, ICLR 2017,
            arXiv:1609.07093 (with absolute values instead of squares).

    Args:
        subject: the regularized network.
        layers: names of the trunk's layers in `named_modules`, or patterns of them (`fc1`, `conv*`), each of
            which must match a layer.
    """

    default_strength = 1e-3
    likelihood = "gaussian"

    def __init__(self, subject: Subject, *, layers: LayerPatterns = ["*"]) -> None:  # noqa: B006 (never changed)
        super().__init__()
        self.layers = [layer.module for layer in find_layers(subject, layers)]

    def term(self, passes: Sequence[TrunkPass]) -> Tensor:
        """See `Regularizer.term`."""
        return torch.stack([_deviation(layer.weight.flatten(1)) for layer in self.layers]).sum()


def _deviation(w: Tensor) -> Tensor:
    gram = w @ w.T if len(w) <= w.shape[1] else w.T @ w
    return (gram - torch.eye(len(gram), dtype=w.dtype, device=w.device)).square().sum()
