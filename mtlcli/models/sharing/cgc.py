"""Shared experts beside experts of each task, in one level."""

from __future__ import annotations

from collections.abc import Mapping

from mtlcli.config.options import Copies
from mtlcli.models.sharing.base import MakeHead, MakeTrunk
from mtlcli.models.sharing.ple import PLE
from mtlcli.registry import sharings


@sharings.register("cgc")
class CGC(PLE):
    """Customized gate control: trunks of each task beside shared ones, and for each task a gate that mixes both.

        f_t(x) = g_t(x) · S_t(x),   g_t(x) = softmax(W_t x)

    S_t are the features of the task's own trunks and of the shared ones, all of them the experiment's `trunk:`; x is
    the example, normalized, through the trunk's encoder (of tables) and flattened. Task t's head is given f_t(x),
    [B, features]. Its own trunks, its gate and its head belong to the task; they see the examples of its dataset only.

    Source: Tang et al., Progressive layered extraction (PLE), RecSys 2020, its CGC: it is `ple` with one level.
    The mean weight of each trunk over a task's examples is in metrics.csv (`sharing.<task>`) and plots/sharing.png.
    ValueError for tasks' names that can't be told from the experts'.

    Options:
        shared_experts: how many trunks are shared.
        task_experts: how many trunks each task has of its own.
        bias: whether a gate is softmax(W x + b); the paper's has no b, so that it is even where x is 0.
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
