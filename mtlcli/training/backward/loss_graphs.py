"""Graphs of losses that come from a training loop of the user's own, where the graph is not split."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node

from mtlcli.training.backward.base import Parameters, TaskGraphs, accumulate_gradients
from mtlcli.training.backward.jacobians import ParameterJacobians


@dataclass
class LossGraphs(TaskGraphs):
    """Losses as the outputs of the shared part: whatever a loss reaches is in its graph."""

    factors: tuple[Tensor, ...] = ()

    def tasks_backward(self, factors: Tensor) -> None:
        """See `TaskGraphs.tasks_backward`. There is no other part to differentiate."""
        self.factors = factors.unbind()

    def outputs(self) -> list[tuple[Tensor, dict[int, Tensor | None]]]:
        """See `TaskGraphs.outputs`."""
        return [
            (loss, {task: factor}) for task, loss, factor in zip(self.tasks, self.losses, self.factors, strict=True)
        ]


@dataclass
class FeatureGraphs(TaskGraphs):
    """Losses whose graph is cut at the features.

    Attributes:
        names: Name of each task in `tasks`, for errors.
        features: Outputs of the shared part.
        shared: Shared parameters.
        gradients: Task → index of a feature → gradient of this feature, after `tasks_backward`.
    """

    names: list[str] = field(default_factory=list)
    features: list[Tensor] = field(default_factory=list)
    shared: Sequence[nn.Parameter] = ()
    gradients: dict[int, dict[int, Tensor | None]] = field(default_factory=dict)

    def tasks_backward(self, factors: Tensor) -> None:
        """See `TaskGraphs.tasks_backward`. Accumulates into the `.grad` of what the losses reach past the features."""
        walks = self._walks()
        own: list[tuple[list[Tensor], Sequence[Tensor | None]]] = []
        later = [set[Node]().union(*(walk.nodes for walk in walks[index + 1 :])) for index in range(len(walks))]
        entries = zip(self.tasks, self.losses, factors.unbind(), walks, later, strict=True)
        for task, loss, factor, walk, reused in entries:
            retain = not reused.isdisjoint(walk.nodes)
            inputs = [self.features[index] for index in walk.features]
            gradients = torch.autograd.grad(
                loss, [*inputs, *walk.leaves], factor, retain_graph=retain, allow_unused=True
            )
            self.gradients[task] = dict(zip(walk.features, gradients, strict=False))
            own.append((walk.leaves, gradients[len(inputs) :]))
        for leaves, own_gradients in own:
            accumulate_gradients(leaves, own_gradients)

    def _walks(self) -> list[Walk]:
        """Return the walk through each task's own part of the graph. Raises ValueError if the features don't cut it."""
        identities, nested = {id(parameter) for parameter in self.shared}, self._nested()
        walks = []
        for name, loss in zip(self.names, self.losses, strict=True):
            walk = Walk.of([loss], self.features)
            if any(id(leaf) in identities for leaf in walk.leaves):
                raise ValueError(
                    f"the loss of task {name!r} depends on a shared parameter in another way than through `features`; "
                    f"add the tensors that carry it to `features`, or leave `features` out"
                )
            if self.features and not walk.features:
                raise ValueError(f"the loss of task {name!r} does not depend on `features`")
            if any({upper, lower} <= set(walk.features) for upper, lower in nested):
                raise ValueError(
                    f"the loss of task {name!r} depends on two of the `features`, one of which is computed from the "
                    f"other; leave `features` out"
                )
            walks.append(walk)
        return walks

    def _nested(self) -> list[tuple[int, int]]:
        """Return the pairs of features of which the first is computed from the second."""
        if len(self.features) == 1:
            return []
        nodes = [Walk.of([feature]).nodes for feature in self.features]
        return [
            (upper, lower)
            for upper, below in enumerate(nodes)
            for lower, feature in enumerate(self.features)
            if upper != lower and feature.grad_fn in below and feature.grad_fn is not self.features[upper].grad_fn
        ]

    def outputs(self) -> list[tuple[Tensor, dict[int, Tensor | None]]]:
        """See `TaskGraphs.outputs`."""
        return [
            (feature, {task: gradients[index] for task, gradients in self.gradients.items() if index in gradients})
            for index, feature in enumerate(self.features)
            if any(index in gradients for gradients in self.gradients.values())
        ]


class LossJacobians(ParameterJacobians):
    """Jacobian by the shared parameters from losses whose graph is not split.

    One backward pass per task gives its gradient by the shared parameters and accumulates that by its own parameters.
    Each frees what later ones do not use.

    Args:
        names: Names of the tasks of the weighting, for errors.
        shared: Shared parameters.
        device: Their device.
        samples: Number of samples whose Jacobians are kept apart.
    """

    def __init__(
        self, names: Sequence[str], shared: Sequence[nn.Parameter], device: torch.device, samples: int = 1
    ) -> None:
        super().__init__(Parameters(shared), len(names), device, samples)
        self.names = names

    def add(self, graph: TaskGraphs, sample: int) -> None:
        """See `Jacobians.add`."""
        existing = [parameter.grad for parameter in self.measured]
        is_trainable = any(parameter.requires_grad for parameter in self.measured)
        retained = _reused_later(graph.losses)
        try:
            for (loss, gradients), retain in zip(graph.outputs(), retained, strict=True):
                (task, factor), *_ = gradients.items()
                for parameter in self.measured:
                    parameter.grad = None
                torch.autograd.backward(loss, factor, retain_graph=retain)
                row = [parameter.grad for parameter in self.measured]
                if is_trainable and all(gradient is None for gradient in row):
                    raise ValueError(_unreached(self.names[task]))
                self._put(sample * self.tasks + self.row_of[task], row)
        finally:
            for parameter, gradient in zip(self.measured, existing, strict=True):
                parameter.grad = gradient


def own_parameters(names: Sequence[str], losses: Sequence[Tensor], shared: Sequence[nn.Parameter]) -> list[Tensor]:
    """Find the leaves that losses reach and that are not shared.

    Args:
        names: Name of the task of each loss, for errors.
        losses: Losses with their graphs.
        shared: Shared parameters.

    Returns:
        Leaves that require a gradient.

    Raises:
        ValueError: A loss reaches no shared parameter, and there are some that require a gradient.
    """
    identities = {id(parameter) for parameter in shared}
    is_trainable = any(parameter.requires_grad for parameter in shared)
    own: dict[int, Tensor] = {}
    for name, loss in zip(names, losses, strict=True):
        leaves = Walk.of([loss]).leaves
        outside = {id(leaf): leaf for leaf in leaves if id(leaf) not in identities}
        if is_trainable and len(outside) == len(leaves):
            raise ValueError(_unreached(name))
        own |= outside
    return list(own.values())


def _unreached(task: str) -> str:
    return (
        f"the loss of task {task!r} depends on no shared parameter: its graph does not reach any of the parameters in "
        f"`shared` that require a gradient"
    )


@dataclass
class Walk:
    """Part of a graph between some outputs and its leaves, or its features.

    Attributes:
        nodes: Nodes of the operations in it.
        leaves: Leaf tensors at its ends that require a gradient.
        features: Indices of the features at its ends.
    """

    nodes: set[Node]
    leaves: list[Tensor]
    features: list[int]

    @classmethod
    def of(cls, outputs: Iterable[Tensor], features: Sequence[Tensor] = ()) -> Walk:
        """Walk the graph from some outputs down to its leaves, or to the features."""
        stops = {(f.grad_fn, f.output_nr): index for index, f in enumerate(features) if f.grad_fn is not None}
        leaf_stops = {id(feature): index for index, feature in enumerate(features) if feature.grad_fn is None}
        nodes: set[Node] = set()
        leaves: dict[int, Tensor] = {}
        reached: dict[int, None] = {}
        pending = [(output.grad_fn, output.output_nr) for output in outputs]
        while pending:
            node, number = pending.pop()
            if node is None:
                continue
            if (stop := stops.get((node, number))) is not None:
                reached[stop] = None
            elif node.next_functions:
                if node not in nodes:
                    nodes.add(node)
                    pending.extend(node.next_functions)
            elif (leaf := getattr(node, "variable", None)) is not None:
                stop = leaf_stops.get(id(leaf))
                if stop is None:
                    leaves[id(leaf)] = leaf
                else:
                    reached[stop] = None
        return cls(nodes, list(leaves.values()), sorted(reached))


def _reused_later(losses: Sequence[Tensor]) -> list[bool]:
    """Return for each loss whether a later one uses an operation of its graph. Every operation is visited once."""
    owners: dict[Node, int] = {}
    reused = [False] * len(losses)
    for index in reversed(range(len(losses))):
        pending = [losses[index].grad_fn]
        while pending:
            node = pending.pop()
            if node is None or not node.next_functions:
                continue
            if node not in owners:
                owners[node] = index
                pending.extend(following for following, _ in node.next_functions)
            elif owners[node] != index:
                reused[index] = True
    return reused
