"""A mixture of experts with one gate for all tasks."""

from __future__ import annotations

from collections.abc import Mapping

from mtlcli.config.options import Copies
from mtlcli.models.sharing.base import MakeHead, MakeTrunk
from mtlcli.models.sharing.experts import Mixture, SoftmaxGate
from mtlcli.registry import sharings


@sharings.register("omoe")
class OMoE(Mixture):
    """One-gate mixture of experts: several trunks, and a gate that mixes them for each example, for all tasks alike.

        f(x) = Σ_e g_e(x) f_e(x),   g(x) = softmax(W x)

    An expert is the experiment's `trunk:`, with weights of its own; x is the example, normalized, through the trunk's
    encoder (of tables) and flattened. Tasks on the same dataset are given the same features, as under hard sharing;
    experts and gate are shared.

    Source: the OMoE of Ma et al., Modeling task relationships in multi-task learning with multi-gate
    mixture-of-experts, KDD 2018, equation 5; after Jacobs et al., Adaptive mixtures of local experts, 1991.
    Every example passes all experts, so it costs as many trunks in compute and in parameters. The mean weight of each
    expert over the examples of a task's dataset is in metrics.csv (`sharing.<task>`) and plots/sharing.png.

    Options:
        experts: how many trunks; the paper has 8, far smaller than a whole trunk may be.
        bias: whether the gate is softmax(W x + b); the paper's has no b, so that it is even where x is 0.
    """

    common_features = True

    def __init__(
        self,
        make_trunk: MakeTrunk,
        make_head: MakeHead,
        inputs: Mapping[str, str],
        *,
        experts: Copies = 4,
        bias: bool = False,
    ) -> None:
        super().__init__(make_trunk, make_head, inputs, experts, lambda width: SoftmaxGate(width, experts, bias))

    def gate_of(self, task: str) -> str:
        return "all"
