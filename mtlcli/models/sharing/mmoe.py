"""A mixture of experts with a gate for each task."""

from __future__ import annotations

from collections.abc import Mapping

from mtlcli.config.options import Copies
from mtlcli.models.sharing.base import MakeHead, MakeTrunk
from mtlcli.models.sharing.experts import GatePerTask, SoftmaxGate
from mtlcli.registry import sharings


@sharings.register("mmoe")
class MMoE(GatePerTask):
    """Multi-gate mixture of experts: several trunks, and for each task a gate that mixes them for each example.

        f_t(x) = Σ_e g_te(x) f_e(x),   g_t(x) = softmax(W_t x)

    An expert is the experiment's `trunk:`, with weights of its own; x is the example, normalized, through the trunk's
    encoder (of tables) and flattened. The experts are shared; a gate belongs to its task, as the head does. With one
    expert it is hard sharing.

    Source: Ma et al., Modeling task relationships in multi-task learning with multi-gate mixture-of-experts, KDD 2018,
    equations 6 to 8. The paper has tables; for images the gates are given the pixels, as in LibMTL.
    Every example passes all experts, so it costs as many trunks in compute and in parameters. The mean weight of each
    expert over a task's examples is in metrics.csv (`sharing.<task>`) and plots/sharing.png.

    Options:
        experts: how many trunks; the paper has 8, far smaller than a whole trunk may be.
        bias: whether a gate is softmax(W x + b); the paper's has no b, so that it is even where x is 0.
    """

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
