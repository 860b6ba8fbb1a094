"""Multi-gate mixture of experts."""

from __future__ import annotations

from collections.abc import Mapping

from mtlcli.config.options import Copies
from mtlcli.models.sharing.base import MakeHead, MakeTrunk
from mtlcli.models.sharing.experts import MultiGateMixture, SoftmaxGate
from mtlcli.registry import sharings


@sharings.register("mmoe")
class MMoE(MultiGateMixture):
    """Multi-gate mixture of experts (MMoE): several trunks, mixed for each example by a separate gate for each task.

        f_t(x) = Σ_e g_te(x) f_e(x),   g_t(x) = softmax(W_t x)

    An expert f_e is the experiment's `trunk:` with its own parameters; x is the normalized example, converted by the
    trunk's encoder (for tables) and flattened. The experts are shared; a gate belongs to its task, like the head. With
    one expert this is hard sharing.

    Every example passes through all experts, so compute and parameters grow with their number. The mean weight of each
    expert over a task's examples is recorded in metrics.csv (`sharing.<task>`) and plots/sharing.png.

    Note:
        The paper uses tables. For images the input of the gates is the flattened image, as in LibMTL.

    References:
        Ma, Zhao, Yi, Chen, Hong and Chi, Modeling task relationships in multi-task learning with multi-gate
            mixture-of-experts, KDD 2018, equations 6 to 8.

    Args:
        make_trunk: creates a trunk; called for each expert.
        make_head: creates the head of a task: (task, features) → module, [B, features] → [B, outputs].
        inputs: task → alias of its dataset.
        experts: number of trunks; the paper uses 8, which are much smaller than typical trunks.
        bias: whether a gate is softmax(W x + b); the paper's gates have no b, so their weights are equal where x is 0.
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
