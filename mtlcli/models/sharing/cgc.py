"""Customized gate control."""

from __future__ import annotations

from collections.abc import Mapping

from mtlcli.config.options import Copies
from mtlcli.models.sharing.base import MakeHead, MakeTrunk
from mtlcli.models.sharing.ple import PLE
from mtlcli.registry import sharings


@sharings.register("cgc")
class CGC(PLE):
    """Customized gate control (CGC): task-specific and shared trunks, mixed by a gate for each task.

        f_t(x) = g_t(x) · S_t(x),   g_t(x) = softmax(W_t x)

    S_t are the features of the task's own trunks and of the shared ones, all built from the experiment's `trunk:`; x is
    the normalized example, converted by the trunk's encoder (for tables) and flattened. The input of task t's head is
    f_t(x), [B, F]. The own trunks, the gate and the head belong to the task and process only the examples of its
    dataset. This is `ple` with one level.

    The mean weight of each trunk over a task's examples is recorded in metrics.csv (`sharing.<task>`) and
    plots/sharing.png.

    References:
        Tang, Liu, Zhao and Gong, Progressive layered extraction (PLE): a novel multi-task learning model for
            personalized recommendations, RecSys 2020, the CGC model.

    Args:
        make_trunk: creates a trunk; called for each expert.
        make_head: creates the head of a task: (task, features) → module, [B, features] → [B, outputs].
        inputs: task → alias of its dataset.
        shared_experts: number of shared trunks.
        task_experts: number of trunks that each task has for itself.
        bias: whether a gate is softmax(W x + b); the paper's gates have no b, so their weights are equal where x is 0.
    """

    def __init__(
        self,
        make_trunk: MakeTrunk,
        make_head: MakeHead,
        inputs: Mapping[str, str],
        *,
        shared_experts: Copies = 1,
        task_experts: Copies = 1,
        bias: bool = False,
    ) -> None:
        super().__init__(
            make_trunk,
            make_head,
            inputs,
            levels=1,
            shared_experts=shared_experts,
            task_experts=task_experts,
            bias=bias,
        )
