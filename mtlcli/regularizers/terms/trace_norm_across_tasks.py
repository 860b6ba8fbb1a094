"""The trace norm of the tasks' head weights, stacked."""

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
    """The trace (nuclear) norm of the heads' weights side by side: tasks' heads become combinations of a few.

        Ω = Σ_layers ‖M‖_*    M: the weights that the tasks' heads have in that place, stacked

    A head's layers are counted from the features: the first weights of all heads belong together, then the second ones.
    Of those in one place, at least two have to fit together for a matrix M; what fits with no other is left out.

    `tasks` is the paper's last axis flattening: weights of the same shape [m, n] of T tasks are a tensor [m, n, T], and
    M its unfolding along the tasks, [T, m·n], a row for each. At rank 1 all heads are multiples of one.
    `features` is its unfolding along the heads' inputs (one of those that the paper's Tucker and tensor-train norms sum
    up): weights of the same width n one below the other, [Σ m_t, n]. At rank k all outputs of all tasks read the same k
    combinations of the features; the tasks' numbers of outputs may differ. For tasks of one output both are the same.

    Source: Yang and Hospedales, Trace norm regularised deep multi-task learning, ICLR 2017 workshop, section 3. There
    it acts on all layers of networks of which each task has its own; here it is the heads alone that tasks don't share.
    Biases are left out. A matrix costs a singular value decomposition a step, inside which torch waits for a GPU.
    ValueError where no two heads fit together.

    Options:
        unfolding: what is stacked: whole weights as rows (`tasks`), or the weights themselves (`features`).
    """

    default_strength = 1e-3

    def __init__(self, subject: Subject, *, unfolding: Literal["tasks", "features"] = "tasks") -> None:
        super().__init__()
        self.flat = unfolding == "tasks"
        weights = {task: [p for p in head.parameters() if p.ndim > 1] for task, head in subject.heads.items()}
        self.stacks: list[list[nn.Parameter]] = []
        for place in range(max(map(len, weights.values()))):
            there = [found[place] for found in weights.values() if len(found) > place]
            self.stacks += self._fitting(there)
        if not self.stacks:
            raise ValueError(_nothing(weights, self.flat))

    def _fitting(self, weights: Iterable[nn.Parameter]) -> list[list[nn.Parameter]]:
        groups: dict[tuple[int, ...], list[nn.Parameter]] = {}
        for weight in weights:
            groups.setdefault(tuple(weight.shape[0 if self.flat else 1 :]), []).append(weight)
        return [group for group in groups.values() if len(group) > 1]

    def term(self, passes: Sequence[TrunkPass]) -> Tensor:
        """See `Regularizer`."""
        start = 0 if self.flat else 1
        matrices = [
            torch.stack([w.flatten() for w in stack]) if self.flat else torch.cat([w.flatten(start) for w in stack])
            for stack in self.stacks
        ]
        return torch.stack([nuclear_norm(matrix) for matrix in matrices]).sum()


def _nothing(weights: dict[str, list[nn.Parameter]], flat: bool) -> str:
    told = "; ".join(
        f"{task}: {', '.join('×'.join(map(str, w.shape)) for w in found) or 'none'}" for task, found in weights.items()
    )
    if len(weights) < 2:
        return f"there is one task alone, and nothing to stack its head's weights with ({told})"
    rule = "of the same shape" if flat else "of the same width"
    hint = "; `unfolding: features` only wants the same width" if flat else ""
    return f"no two heads have weights {rule} in the same place, so there is nothing to stack ({told}){hint}"
