"""Entropy of the gates of a mixture of experts."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pydantic import NonNegativeFloat
from torch import Tensor

from mtlcli.registry import regularizers
from mtlcli.regularizers.base import Regularizer, Subject
from mtlcli.specs import TrunkPass

MIN_SUM = 1e-6  # of the probabilities that a selector gives to experts


@regularizers.register("gate_entropy")
class GateEntropy(Regularizer):
    """Entropy of the gates of a mixture of experts: minimizing it makes each gate choose few experts.

        Ω = Σ over gates of the mean over examples of  Σ_i [ −Σ_e r_ie log r_ie  +  reachable · (1 / Σ_e r_ie − 1) ]

    The k selectors r_i of a gate of `dselect_k` should each choose one of E experts: the entropy is 0 if they have, and
    log E if all experts have equal weights. The second summand is 0 if the number of experts is a power of 2; otherwise
    a selector can also choose codes that belong to no expert, which this summand prevents. The gates of `omoe`, `mmoe`,
    `cgc` and `ple` are processed as one selector each: the term sharpens their softmax, whose entropy never reaches 0.
    All examples of a step that pass through the gate count.

    Note:
        Deviations: the authors' code sums over the examples of a batch, this term is their mean; the code uses
        log(r + 10⁻⁶), this term log r with 0 log 0 = 0; in the code the second summand has its own factor, here it is
        multiplied by strength × reachable, and 1 is subtracted, so that it is 0 if no weight is lost. Σ_e r_ie is at
        least 10⁻⁶ in the second summand, which keeps it finite. The paper regularizes only gates of `dselect_k`.

    References:
        Hazimeh, Zhao, Chowdhery, Sathiamoorthy, Chen, Mazumder, Hong and Chi, DSelect-k: differentiable selection in
            the mixture of experts with applications to multi-task learning, NeurIPS 2021, arXiv:2106.03760: their λ is
            `strength`; the second summand has the form of the authors' code.

    Args:
        subject: the regularized network, whose sharing has gates.
        reachable: factor of the second summand, in addition to the strength.
    """

    default_strength = 0.01
    sees_examples = True
    sees_trunk = False
    needs_gates = True

    def __init__(self, subject: Subject, *, reachable: NonNegativeFloat = 1.0) -> None:
        super().__init__()
        self.reachable = reachable

    def term(self, passes: Sequence[TrunkPass]) -> Tensor:
        """See `Regularizer.term`."""
        gates: dict[str, list[Tensor]] = {}
        for one_pass in passes:
            for gate, selectors in one_pass.selectors.items():
                gates.setdefault(gate, []).append(selectors)
        return torch.stack([self._penalty(torch.cat(selectors)) for selectors in gates.values()]).sum()

    def _penalty(self, selectors: Tensor) -> Tensor:
        """Compute the term of one gate, 0-d, from its selectors, [n, k, E]."""
        tiny = torch.finfo(selectors.dtype).tiny
        entropy = -(selectors * selectors.clamp(min=tiny).log()).sum(2)  # the clamp keeps the gradient at 0 finite
        lost = 1 / selectors.sum(2).clamp(min=MIN_SUM) - 1
        return (entropy + self.reachable * lost).sum(1).mean()
