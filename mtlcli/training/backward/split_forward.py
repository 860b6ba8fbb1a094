"""A batch's forward pass, cut in two where the trunk ends and the heads begin."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from mtlcli.data.loader import Batch
from mtlcli.specs import TrunkPass
from mtlcli.training.run import Run

Represent = Callable[[Mapping[str, Tensor], Sequence[str], list[TrunkPass] | None], dict[str, Tensor]]


@dataclass(frozen=True)
class Parameters:
    """The trainable parameters before the cut: those the tasks share, and those that are a task's own.

    own: of private trunks, and, where regularizers count as tasks, theirs and the heads'.
    """

    shared: list[nn.Parameter]
    own: list[nn.Parameter]

    @classmethod
    def of(cls, run: Run) -> Parameters:
        shared = [p for p in run.model.shared_parameters() if p.requires_grad]
        behind = [] if run.regularization.tasks else list(run.model.heads.parameters())
        apart = {id(p) for p in [*shared, *behind]}
        both = [*run.model.parameters(), *(run.regularization.parameters() if run.regularization.tasks else ())]
        return cls(shared, [p for p in both if p.requires_grad and id(p) not in apart])


@dataclass
class SplitForward:
    """What the trunk hands to the heads, and what the heads make of it, with no graph between the two.

    tasks: indices of the tasks with labels in the batch, ascending, and of the regularizers that count as tasks.
    outputs: the representation of each of them, with the trunk's graph; the same tensor for tasks that share it.
    leaves: the same values, a leaf of its own for each task, where the graph of its head begins. After `heads_backward`
        their `.grad` is the task's gradient of its representation.
    losses: each task's mean loss, 0-d. A regularizer has no head: its output, its leaf and its loss are one number.
    terms: the regularizers that don't count as tasks, as they stand in the objective, 0-d, with the trunk's graph.
    """

    tasks: list[int]
    outputs: list[Tensor] = field(default_factory=list)
    leaves: list[Tensor] = field(default_factory=list)
    losses: list[Tensor] = field(default_factory=list)
    terms: list[Tensor] = field(default_factory=list)

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


def forward(run: Run, represent: Represent, batch: Batch, apart: bool) -> SplitForward:
    """Pass a batch through the trunk and the heads of the tasks that have labels in it.

    represent: the model's `representations`, or what it was compiled to.
    apart: whether each dataset goes through the trunk on its own, so that it has a graph of its own.
    """
    names = [task for task in run.kinds if batch.counts.get(task, 0)]
    cut = SplitForward([index for index, task in enumerate(run.kinds) if task in names])
    regularization = run.regularization
    passes: list[TrunkPass] | None = [] if regularization.sees_examples else None
    aliases = {run.sources[task][0]: None for task in names}
    together = [[task for task in names if run.sources[task][0] == alias] for alias in aliases] if apart else [names]
    with run.autocast():
        found: dict[str, Tensor] = {}
        for group in together:
            found |= represent(batch.inputs, group, passes)
        for task in names:
            leaf = found[task].detach().requires_grad_()
            cut.outputs.append(found[task])
            cut.leaves.append(leaf)
            cut.losses.append(run.kinds[task].loss(run.model.heads[task](leaf), batch.targets[task]))
    if regularization.terms:
        terms = regularization.losses(passes or [], run.autocast())
        cut.terms = terms[regularization.tasks :]
        for index, term in enumerate(terms[: regularization.tasks], len(run.kinds)):
            leaf = term.detach().requires_grad_()
            cut.tasks.append(index)
            cut.outputs.append(term)
            cut.leaves.append(leaf)
            cut.losses.append(leaf)
    return cut


def trunk_backward(cuts: Sequence[SplitForward], weights: Mapping[int, Tensor], parameters: Parameters) -> None:
    """One backward of the trunk: adds the sum of the tasks' gradients times their weights to `.grad`.

    weights: index of a task → its weight, 0-d.
    """
    outputs, cotangents = [], []
    for cut in cuts:
        for output, positions in cut.groups():
            gradients = torch.stack([_gradient(cut.leaves[i]) for i in positions]).view(len(positions), -1)
            wanted = torch.stack([weights[cut.tasks[i]] for i in positions]).to(torch.float32)
            outputs.append(output)
            cotangents.append((wanted @ gradients.float()).to(output.dtype).view_as(output))
    walk(cuts, outputs, cotangents, parameters)


def walk(cuts: Sequence[SplitForward], outputs: list[Tensor], cotangents: list[Tensor], parameters: Parameters) -> None:
    """Go backward through the trunk from the outputs and from the regularizers' terms; adds to `.grad`.

    In one pass, where no task has anything of its own there: that has its own gradient, which no weight multiplies.
    """
    terms = [term for cut in cuts for term in cut.terms if term.requires_grad]
    shared = None
    if parameters.own:
        for cut in cuts:
            terms_backward(cut)
            own_backward(cut, parameters.own)
        terms, shared = [], parameters.shared
    if shared == []:  # a frozen trunk
        return
    if outputs or terms:
        torch.autograd.backward([*outputs, *terms], [*cotangents, *map(torch.ones_like, terms)], inputs=shared)


def terms_backward(cut: SplitForward) -> None:
    """Go backward from the regularizers that don't count as tasks; adds to `.grad`. The trunk's graph stays."""
    if terms := [term for term in cut.terms if term.requires_grad]:
        torch.autograd.backward(terms, retain_graph=True)


def own_backward(cut: SplitForward, own: Sequence[nn.Parameter]) -> None:
    """Go backward from each task's output to what is its own; adds to `.grad`. The trunk's graph stays."""
    for output, positions in cut.groups() if own else ():
        cotangent = torch.stack([_gradient(cut.leaves[i]) for i in positions]).sum(0)
        torch.autograd.backward(output, cotangent, inputs=list(own), retain_graph=True)


def _gradient(leaf: Tensor) -> Tensor:
    return torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
