"""How undecided the gates of a mixture of experts are."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pydantic import NonNegativeFloat
from torch import Tensor

from mtlcli.registry import regularizers
from mtlcli.regularizers.base import Regularizer, Subject
from mtlcli.specs import TrunkPass

LEAST = 1e-6


@regularizers.register("gate_entropy")
class GateEntropy(Regularizer):
    """The entropy of the gates of a mixture of experts: each is to choose few experts.

        Ω = Σ over gates of the mean over examples of  Σ_i [ −Σ_e r_ie log r_ie  +  reachable · (1 / Σ_e r_ie − 1) ]

    The k selectors r_i of a gate of `dselect_k` are each to choose one expert of E: 0 where they have, log E where all
    count alike. The second summand is 0 where the number of experts is a power of 2; otherwise a selector can also
    choose codes that are no expert's, where nothing comes from, and it keeps it from doing so.
    The gates of `omoe`, `mmoe`, `cgc` and `ple` are taken for one selector each: the term sharpens their softmax,
    which never gets to 0. All examples in a step that pass the gate count.

    Source: Hazimeh et al., DSelect-k: differentiable selection in the mixture of experts with applications to
    multi-task learning, NeurIPS 2021: their λ is our `strength`, their gates only those of `dselect_k`; the form of the
    second summand is that of the authors' code.
    Deviations: the code sums over a batch's examples, this is their mean; it has log(r + 10⁻⁶), here it is log r with
    0 log 0 = 0; there the second summand stands beside λ, here it is multiplied by strength × reachable, and 1 is
    subtracted, which makes it 0 where nothing is lost. Σ_e r_ie below 10⁻⁶ counts as 10⁻⁶, so that it stays finite.
    ValueError for a sharing without gates.

    Options:
        reachable: what the second summand is multiplied by, beside the strength.
    """

    default_strength = 0.01
    sees_examples = True
    sees_trunk = False
    needs_gates = True

    def __init__(self, subject: Subject, *, reachable: NonNegativeFloat = 1.0) -> None:
        super().__init__()
        self.reachable = reachable

    def term(self, passes: Sequence[TrunkPass]) -> Tensor:
        """See `Regularizer`."""
        gates: dict[str, list[Tensor]] = {}
        for found in passes:
            for gate, selectors in found.selectors.items():
                gates.setdefault(gate, []).append(selectors)
        return torch.stack([self._of(torch.cat(parts)) for parts in gates.values()]).sum()

    def _of(self, selectors: Tensor) -> Tensor:
        """Of one gate: [n, k, E] → 0-d."""
        tiny = torch.finfo(selectors.dtype).tiny
        entropy = -(selectors * selectors.clamp(min=tiny).log()).sum(2)  # clamped: the gradient at 0 is finite too
        lost = 1 / selectors.sum(2).clamp(min=LEAST) - 1
        return (entropy + self.reachable * lost).sum(1).mean()
