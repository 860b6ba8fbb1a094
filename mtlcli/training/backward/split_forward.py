"""Forward pass of an experiment's model, with the autograd graph split between trunk and heads."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from mtlcli.data.loader import Batch
from mtlcli.models.sharing.base import SharingRecord
from mtlcli.specs import TrunkPass
from mtlcli.training.backward.task_graphs import Parameters, TaskGraphs
from mtlcli.training.run import Run

Represent = Callable[[Mapping[str, Tensor], Sequence[str], SharingRecord | None], dict[str, Tensor]]


@dataclass
class SplitForward(TaskGraphs):
    """Representations and losses of a batch, with no graph between the two.

    A regularizer that counts as a task has no head: its representation, its leaf and its loss are the same number.

    Attributes:
        representations: Each task's representation, with the trunk's graph; tasks may share one.
        leaves: Detached copies of the representations, one per task, from which the graphs of the heads start. After
            `tasks_backward` their `.grad` is the task's gradient of its representation.
    """

    representations: list[Tensor] = field(default_factory=list)
    leaves: list[Tensor] = field(default_factory=list)

    def tasks_backward(self, factors: Tensor) -> None:
        """See `TaskGraphs.tasks_backward`. Accumulates into the `.grad` of the heads."""
        torch.autograd.backward(self.losses, list(factors.unbind()))

    def outputs(self) -> list[tuple[Tensor, dict[int, Tensor | None]]]:
        """See `TaskGraphs.outputs`."""
        groups: dict[int, tuple[Tensor, dict[int, Tensor | None]]] = {}
        for task, representation, leaf in zip(self.tasks, self.representations, self.leaves, strict=True):
            if representation.requires_grad:  # not so where the trunk is frozen
                groups.setdefault(id(representation), (representation, {}))[1][task] = leaf.grad
        return list(groups.values())

    def append(self, representation: Tensor) -> Tensor:
        """Add a representation, and return the leaf from which the task's own graph starts."""
        leaf = representation.detach().requires_grad_()
        self.representations.append(representation)
        self.leaves.append(leaf)
        return leaf


def split_forward(run: Run, represent: Represent, batch: Batch, separate: bool) -> SplitForward:
    """Pass a batch through the trunk and through the heads of the tasks with labels in it.

    Args:
        run: Run whose model, losses and regularizers are computed.
        represent: The model's `representations`, or its compiled form.
        batch: Batch on the run's device.
        separate: Whether each dataset passes through the trunk separately, and so has a graph of its own.

    Returns:
        Representations and losses, of the regularizers too.
    """
    names = [task for task in run.kinds if batch.counts.get(task, 0)]
    graph = SplitForward([index for index, task in enumerate(run.kinds) if task in names])
    regularization = run.regularization
    passes: list[TrunkPass] | None = [] if regularization.sees_examples else None
    aliases = {run.sources[task][0]: None for task in names}
    groups = [[task for task in names if run.sources[task][0] == alias] for alias in aliases] if separate else [names]
    with run.autocast():
        representations: dict[str, Tensor] = {}
        for group in groups:
            representations |= represent(batch.inputs, group, SharingRecord(passes))
        for task in names:
            leaf = graph.append(representations[task])
            graph.losses.append(run.kinds[task].loss(run.model.heads[task](leaf), batch.targets[task]))
    if regularization.terms:
        terms = regularization.losses(passes or [], run.autocast())
        graph.terms = terms[regularization.tasks :]
        for index, term in enumerate(terms[: regularization.tasks], len(run.kinds)):
            graph.tasks.append(index)
            graph.losses.append(graph.append(term))
    return graph


def trunk_parameters(run: Run) -> Parameters:
    """Return the trainable parameters of a run that its trunk's graph reaches.

    A regularizer that counts as a task may reach any parameter: then `own` includes the heads and the regularizers'
    own parameters.
    """
    shared = [p for p in run.model.shared_parameters() if p.requires_grad]
    behind = [] if run.regularization.tasks else list(run.model.heads.parameters())
    excluded = {id(p) for p in [*shared, *behind]}
    both = [*run.model.parameters(), *(run.regularization.parameters() if run.regularization.tasks else ())]
    return Parameters(shared, [p for p in both if p.requires_grad and id(p) not in excluded])
