"""Entire space multi-task model."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import torch
from torch import Tensor, nn

from mtlcli.models.dependent_tasks import Dependencies, DependentHead, Parent, TaskOrder, check_order
from mtlcli.models.sharing.base import MakeHead, MakeTrunk
from mtlcli.models.sharing.hard import HardSharing
from mtlcli.registry import sharings


@sharings.register("esmm")
class ESMM(HardSharing):
    """Entire space multi-task model (ESMM): hard sharing, and each task's probability is a factor of the next task's.

        p_1 = σ(a_1),   p_t = p_{t−1} σ(a_t)        a_t: output of the head of the task t in `order`

    With the tasks click and conversion, p_1 is the click-through rate pCTR, σ(a_2) the conversion rate after a click
    pCVR, and p_2 = pCTCVR = pCTR × pCVR. The tasks are binary, and the label of a task is that of the entire space: a
    conversion is 0, not missing, for an example without a click. pCVR is thus trained on all examples, and is never the
    output of a task; it is p_2 / p_1. The prediction of a task is the logit of p_t, computed from the logits of its
    factors as logit p_t = −log(e^{−l} + e^{−a} + e^{−l−a}) with l = logit p_{t−1} and a = a_t, which neither overflows
    nor cancels.

    The loss of a task reaches the heads of all tasks before it in the order, which therefore are shared parameters and
    balanced; only the head of the last one is its own. Tasks that are not in `order` are predicted as with `hard`.

    Note:
        Deviations: in the paper the tasks share the embeddings of the categories, followed by a network for each task;
        here they share the trunk. With `trunk: {name: tabular, hidden: []}` and heads `mlp`, nearly all layers are
        in the heads. The paper has two tasks; here any number.

    References:
        Ma, Zhao, Huang, Wang, Hu, Zhu and Gai, Entire space multi-task model: an effective approach for estimating
            post-click conversion rate, SIGIR 2018, arXiv:1804.07931, equations 1 to 3.

    Args:
        make_trunk: creates a trunk; called once.
        make_head: creates the head of a task: (task, features) → module, [B, features] → [B, outputs].
        inputs: task → alias of its dataset.
        order: the tasks in their order, such as [click, conversion], all on the same dataset; null: all tasks, as they
            are listed.

    Raises:
        ValueError: if a task of `order` does not exist, or tasks are on different datasets.
    """

    def __init__(
        self, make_trunk: MakeTrunk, make_head: MakeHead, inputs: Mapping[str, str], *, order: TaskOrder = None
    ) -> None:
        super().__init__(make_trunk, make_head, inputs)
        self.sequence = check_order(order, inputs)
        for task in self.sequence[1:]:
            self.heads[task] = ProductHead(self.heads[task])
        self.dependencies = Dependencies({task: Parent(previous) for previous, task in pairwise(self.sequence)})

    def own_modules(self, task: str) -> list[nn.Module]:
        return [] if task in self.sequence[:-1] else super().own_modules(task)


class ProductHead(DependentHead):
    """A head for a conditional probability: the prediction is the logit of its product with another probability.

    Args:
        head: module [B, features] → the logit of the conditional probability, [B, 1].
    """

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    def forward(self, x: Tensor, prediction: Tensor) -> Tensor:
        """See `DependentHead.forward`; at least in float32."""
        return multiply_probabilities(prediction, self.head(x))


def multiply_probabilities(first: Tensor, second: Tensor) -> Tensor:
    """Compute the logit of the product of two probabilities from their logits.

    1 − σ(a) σ(b) = σ(a) σ(b) (e^{−a} + e^{−b} + e^{−a−b}), so that the logit is the negative log-sum-exp of −a, −b and
    −a − b.

    Args:
        first: logits, of any shape.
        second: logits of the same shape.

    Returns:
        Logits of the products, at least float32.
    """
    dtype = torch.promote_types(torch.promote_types(first.dtype, second.dtype), torch.float32)
    first, second = first.to(dtype), second.to(dtype)
    return -torch.stack([-first, -second, -first - second]).logsumexp(0)
