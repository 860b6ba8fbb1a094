"""One-gate mixture of experts."""

from __future__ import annotations

from collections.abc import Mapping

from mtlcli.config.options import Copies
from mtlcli.models.sharing.base import MakeHead, MakeTrunk
from mtlcli.models.sharing.experts import MixtureOfExperts, SoftmaxGate
from mtlcli.registry import sharings


@sharings.register("omoe")
class OMoE(MixtureOfExperts):
    """One-gate mixture of experts (OMoE): several trunks, mixed for each example by one gate for all tasks.

        f(x) = Σ_e g_e(x) f_e(x),   g(x) = softmax(W x)

    An expert f_e is the experiment's `trunk:` with its own parameters; x is the normalized example, converted by the
    trunk's encoder (for tables) and flattened. Tasks on the same dataset have the same representation, as in hard
    sharing. Experts and gate are shared.

    Every example passes through all experts, so compute and parameters grow with their number. The mean weight of each
    expert over the examples of a task's dataset is recorded in metrics.csv (`sharing.<task>`) and plots/sharing.png.

    References:
        Ma, Zhao, Yi, Chen, Hong and Chi, Modeling task relationships in multi-task learning with multi-gate
            mixture-of-experts, KDD 2018, equation 5.
        Jacobs, Jordan, Nowlan and Hinton, Adaptive mixtures of local experts, Neural Computation 1991.

    Args:
        make_trunk: creates a trunk; called for each expert.
        make_head: creates the head of a task: (task, features) → module, [B, features] → [B, outputs].
        inputs: task → alias of its dataset.
        experts: number of trunks; the paper uses 8, which are much smaller than typical trunks.
        bias: whether the gate is softmax(W x + b); the paper's gate has no b, so its weights are equal where x is 0.
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
