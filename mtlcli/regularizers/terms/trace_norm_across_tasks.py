"""Trace norm across the heads of the tasks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from mtlcli.registry import regularizers
from mtlcli.regularizers.base import Regularizer, Subject
from mtlcli.regularizers.terms.nuclear_norm import nuclear_norm
from mtlcli.specs import TrunkPass


@regularizers.register("trace_norm_across_tasks")
class TraceNormAcrossTasks(Regularizer):
    """Trace (nuclear) norm of the stacked weights of the tasks' heads: the heads become combinations of few components.

        Ω = Σ_layers ‖M‖_*    M: stacked weights of the tasks' heads at the same position

    The layers of a head are counted from the features: the first weights of all heads belong together, then the second
    ones, and so on. At least two weights at a position must have matching shapes to form a matrix M; weights that match
    no other are ignored.

    `tasks` is the paper's last-axis flattening: weights of the same shape [m, n] of T tasks form a tensor [m, n, T],
    and M is its unfolding along the tasks, [T, m·n], one row for each task. At rank 1 all heads are multiples of one.
    `features` is the unfolding along the inputs of the heads (one of those that the paper's Tucker and tensor-train
    norms sum): weights of the same width n are concatenated to [Σ m_t, n]. At rank k all outputs of all tasks depend on
    the same k combinations of the features; the tasks' numbers of outputs may differ. For tasks with one output both
    are the same.

    A matrix costs a singular value decomposition per step, in which torch synchronizes with a GPU.

    Note:
        In the paper the term applies to all layers of networks of which each task has its own; here only the heads are
        not shared. Biases are excluded.

    References:
        Yang and Hospedales, Trace norm regularised deep multi-task learning, ICLR 2017 workshop, arXiv:1606.04038,
            section 3.

    Args:
        subject: the regularized network.
        unfolding: stack whole weights as rows (`tasks`), or concatenate the weights (`features`).

    Raises:
        ValueError: if no two heads have matching weights.
    """

    default_strength = 1e-3

    def __init__(self, subject: Subject, *, unfolding: Literal["tasks", "features"] = "tasks") -> None:
        super().__init__()
        self.flat = unfolding == "tasks"
        weights = {task: [p for p in head.parameters() if p.ndim > 1] for task, head in subject.heads.items()}
        self.stacks: list[list[nn.Parameter]] = []
        for place in range(max(map(len, weights.values()))):
            at_place = [of_head[place] for of_head in weights.values() if len(of_head) > place]
            self.stacks += self._group_by_shape(at_place)
        if not self.stacks:
            raise ValueError(_describe_mismatch(weights, self.flat))

    def _group_by_shape(self, weights: Iterable[nn.Parameter]) -> list[list[nn.Parameter]]:
        groups: dict[tuple[int, ...], list[nn.Parameter]] = {}
        for weight in weights:
            groups.setdefault(tuple(weight.shape[0 if self.flat else 1 :]), []).append(weight)
        return [group for group in groups.values() if len(group) > 1]

    def term(self, passes: Sequence[TrunkPass]) -> Tensor:
        """See `Regularizer.term`."""
        start = 0 if self.flat else 1
        matrices = [
            torch.stack([w.flatten() for w in stack]) if self.flat else torch.cat([w.flatten(start) for w in stack])
            for stack in self.stacks
        ]
        return torch.stack([nuclear_norm(matrix) for matrix in matrices]).sum()


def _describe_mismatch(weights: dict[str, list[nn.Parameter]], flat: bool) -> str:
    shapes = {task: ["×".join(map(str, w.shape)) for w in of_head] for task, of_head in weights.items()}
    listed = "; ".join(f"{task}: {', '.join(of_head) or 'none'}" for task, of_head in shapes.items())
    if len(weights) < 2:
        return f"expected at least two tasks, whose heads' weights are stacked, got one ({listed})"
    rule = "of the same shape" if flat else "of the same width"
    hint = "; `unfolding: features` only needs the same width" if flat else ""
    return f"no two heads have weights {rule} at the same position, so none can be stacked ({listed}){hint}"
