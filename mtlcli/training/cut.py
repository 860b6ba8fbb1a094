"""A batch's forward pass, cut in two where the trunk ends and the heads begin."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from mtlcli.data.batch import Batch
from mtlcli.training.run import Run

Represent = Callable[[Mapping[str, Tensor], Sequence[str]], dict[str, Tensor]]


@dataclass
class Cut:
    """What the trunk hands to the heads, and what the heads make of it, with no graph between the two.

    tasks: indices of the tasks with labels in the batch, ascending.
    outputs: the representation of each of them, with the trunk's graph; the same tensor for tasks that share it.
    leaves: the same values, a leaf of its own for each task, where the graph of its head begins. After `heads_backward`
        their `.grad` is the task's gradient of its representation.
    losses: each task's mean loss, 0-d.
    """

    tasks: list[int]
    outputs: list[Tensor] = field(default_factory=list)
    leaves: list[Tensor] = field(default_factory=list)
    losses: list[Tensor] = field(default_factory=list)

    def heads_backward(self, factors: Tensor) -> None:
        """Go backward from each loss times its factor ([tasks]), through all heads at once; adds to their `.grad`."""
        torch.autograd.backward(self.losses, list(factors.unbind()))

    def groups(self) -> list[tuple[Tensor, list[int]]]:
        """Each representation that has a graph, with the positions in `tasks` of those that share it."""
        found: dict[int, tuple[Tensor, list[int]]] = {}
        for position, output in enumerate(self.outputs):
            if output.requires_grad:  # a frozen trunk's doesn't
                found.setdefault(id(output), (output, []))[1].append(position)
        return list(found.values())


def forward(run: Run, represent: Represent, batch: Batch, apart: bool) -> Cut:
    """Pass a batch through the trunk and the heads of the tasks that have labels in it.

    represent: the model's `representations`, or what it was compiled to.
    apart: whether each dataset goes through the trunk on its own, so that it has a graph of its own.
    """
    names = [task for task in run.kinds if batch.counts.get(task, 0)]
    cut = Cut([index for index, task in enumerate(run.kinds) if task in names])
    aliases = {run.sources[task][0]: None for task in names}
    together = [[task for task in names if run.sources[task][0] == alias] for alias in aliases] if apart else [names]
    with run.autocast():
        found: dict[str, Tensor] = {}
        for group in together:
            found |= represent(batch.inputs, group)
        for task in names:
            leaf = found[task].detach().requires_grad_()
            cut.outputs.append(found[task])
            cut.leaves.append(leaf)
            cut.losses.append(run.kinds[task].loss(run.model.heads[task](leaf), batch.targets[task]))
    return cut


def trunk_backward(cuts: Sequence[Cut], weights: Mapping[int, Tensor], shared: Sequence[nn.Parameter]) -> None:
    """One backward of the trunk: adds the sum of the tasks' gradients times their weights to `.grad`.

    weights: index of a task → its weight, 0-d.
    """
    outputs, cotangents = [], []
    for cut in cuts:
        for output, positions in cut.groups():
            gradients = torch.stack([_gradient(cut.leaves[i]) for i in positions]).flatten(1)
            wanted = torch.stack([weights[cut.tasks[i]] for i in positions]).to(torch.float32)
            outputs.append(output)
            cotangents.append((wanted @ gradients.float()).to(output.dtype).view_as(output))
    if outputs:
        torch.autograd.backward(outputs, cotangents, inputs=list(shared))


def _gradient(leaf: Tensor) -> Tensor:
    return torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
