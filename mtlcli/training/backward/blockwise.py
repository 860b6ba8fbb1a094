"""Gramian of the tasks' gradients by blocks of parameters, without the Jacobian of all parameters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import Node

from mtlcli.models.sharing.base import SharingRecord
from mtlcli.models.trunks.base import Trunk
from mtlcli.training.backward.base import (
    Parameters,
    TaskGraphs,
    accumulate_gradients,
    combine_cotangents,
    terms_backward,
)
from mtlcli.training.backward.jacobians import FlatGradients, Jacobians, row_type
from mtlcli.training.backward.lookups import CompactTable, find_lookups, output_edge
from mtlcli.training.backward.loss_graphs import Walk
from mtlcli.weighting.solvers.gramian import compute_gramian, exact_dtype

Represent = Callable[[Mapping[str, Tensor], Sequence[str], SharingRecord | None], dict[str, Tensor]]


@dataclass(eq=False)
class Segment:
    """Part of the graph from a tensor down to the cuts below it.

    Attributes:
        root: Output of the segment.
        leaf: Detached copy of the root, from which the segments above start. Its `.grad` is the gradient of the
            objective by the root.
        cotangents: Gradient of each task by the root, by the index of the task.
        level: Number of segments on the longest path below it.
        leaves: Leaves of the segments below.
        shared: Shared parameters that the root reaches above the cuts.
        lookups: Identity of a shared parameter that the segment uses as an embedding table only → nodes of the lookups.
        own: Parameters of single tasks that it reaches above the cuts.
        is_reused: Whether another segment uses some of its operations.
    """

    root: Tensor
    leaf: Tensor
    cotangents: dict[int, Tensor] = field(default_factory=dict)
    level: int = 0
    leaves: list[Tensor] = field(default_factory=list)
    shared: list[Tensor] = field(default_factory=list)
    lookups: dict[int, list[Node]] = field(default_factory=dict)
    own: list[Tensor] = field(default_factory=list)
    is_reused: bool = False

    def receive(self, task: int, gradient: Tensor | None) -> None:
        """Add a gradient of a task by the root."""
        if gradient is not None:
            before = self.cotangents.get(task)
            self.cotangents[task] = gradient if before is None else before + gradient


class BlockRows:
    """Gradients of the tasks by a block of parameters, a row for each task.

    Args:
        parameters: Identity of each parameter of the block → a tensor of the shape of its gradient.
        rows: Number of tasks.
        storage: Memory to use, see `FlatGradients`; None to allocate it.
        device: Device of the parameters.
    """

    def __init__(
        self, parameters: Mapping[int, Tensor], rows: int, storage: Tensor | None, device: torch.device
    ) -> None:
        self.gradients = FlatGradients(list(parameters.values()), rows, device, storage)
        self.identities = list(parameters)
        self.written: set[int] = set()

    def put(self, row: int, gradients: Mapping[int, Tensor | None]) -> None:
        """Add gradients, of which those by parameters outside the block are ignored, to a row."""
        values = [gradients.get(identity) for identity in self.identities]
        self.gradients.put(row, values, add=row in self.written)
        self.written.add(row)

    def gramian(self, rows: int) -> Tensor:
        """Return the products of the first rows, and forget the rows."""
        for row in set(range(rows)) - self.written:
            self.gradients.matrix[row].zero_()
        self.written = set()
        return compute_gramian(self.gradients.matrix[:rows])


class BlockwiseJacobians(Jacobians):
    """Products of the tasks' gradients by the shared parameters, without the Jacobian J.

    The forward pass cuts the graph behind every stage of a trunk. From the last stage down, every task is
    differentiated by the parameters of the stage and by its input; the products of these gradients are added to the
    Gramian, and their memory is reused for the next stage. A last pass, from the weighted sum of the tasks, gives the
    update. Both are those of `ParameterJacobians` up to rounding. The memory is that of T gradients of the largest
    stage instead of T gradients of all parameters. Parameters that stages of different depth use, such as tied
    embeddings, keep their rows until the last of these stages. Of an embedding table, only the rows of the tokens in
    the step are held.

    The graphs of all batches of a step are kept until its end.

    Args:
        parameters: Parameters in the shared part of the graphs.
        trunks: Trunks whose stages are the blocks.
        tasks: Number of tasks of the weighting, T.
        device: Device of the parameters.
    """

    route = "blockwise backward"

    def __init__(self, parameters: Parameters, trunks: Iterable[Trunk], tasks: int, device: torch.device) -> None:
        super().__init__(parameters)
        self.trunks, self.tasks, self.device = list(trunks), tasks, device
        self.storage = torch.empty(0, dtype=row_type(parameters.shared), device=device)
        self.blocks: dict[tuple[object, ...], BlockRows] = {}
        self.start([])

    def cut(self, represent: Represent) -> Represent:
        """Return a function as `represent` that cuts the graph behind every stage."""

        def represent_in_segments(
            inputs: Mapping[str, Tensor], tasks: Sequence[str], record: SharingRecord | None
        ) -> dict[str, Tensor]:
            with ExitStack() as stack:
                for trunk in self.trunks:
                    stack.enter_context(trunk.after_stages(self._cut))
                return represent(inputs, tasks, record)

        return represent_in_segments

    def _cut(self, x: Tensor) -> Tensor:
        if x.grad_fn is None:  # nothing to train below, or the cut of the stage before
            return x
        self.segments.append(Segment(x, x.detach().requires_grad_()))
        return self.segments[-1].leaf

    def start(self, present: list[int]) -> None:
        """See `Jacobians.start`."""
        self.row_of = {task: row for row, task in enumerate(present)}
        self.graphs: list[TaskGraphs] = []
        self.segments: list[Segment] = []
        self.outputs: list[tuple[Segment, dict[int, Tensor | None]]] = []
        self.tables: dict[int, CompactTable] = {}

    def add(self, graph: TaskGraphs, sample: int) -> None:
        """See `Jacobians.add`."""
        self.graphs.append(graph)

    def matrix(self) -> Tensor:
        """Not available, since J is never held as a whole."""
        raise NotImplementedError

    @property
    def buffer_bytes(self) -> int:
        """See `Jacobians.buffer_bytes`. The size of the blocks is known after the first step."""
        rest = [rows.gradients.matrix.nbytes for key, rows in self.blocks.items() if key[0]]
        return self.storage.nbytes + sum(rest)

    def gramian(self) -> Tensor:
        """Return the products of the gradients of the present tasks, shape [t, t].

        Parameters of single tasks receive their gradients.
        """
        self._connect()
        size = len(self.row_of)
        gramian = torch.zeros(size, size, dtype=exact_dtype(self.device), device=self.device)
        count = 1 + max((segment.level for segment in self.segments), default=0)
        levels = [[segment for segment in self.segments if segment.level == level] for level in range(count)]
        *blocks, rest = self._allocate(levels)
        for level, block in reversed(list(zip(levels, blocks, strict=True))):
            for segment in level:
                self._differentiate(segment, [rows for rows in (block, rest) if rows.identities])
            if block.identities:
                gramian += block.gramian(size)
        return gramian + rest.gramian(size) if rest.identities else gramian

    def _connect(self) -> None:
        """Add the outputs of the shared part to the segments, and find what each segment reaches."""
        for graph in self.graphs:
            for output, gradients in graph.outputs():
                segment = next((s for s in self.segments if s.leaf is output), None)
                if segment is None:
                    segment = Segment(output, output.detach())
                    self.segments.append(segment)
                self.outputs.append((segment, gradients))
                for task, gradient in gradients.items():
                    segment.receive(task, gradient)
        self.of_leaf = {id(segment.leaf): segment for segment in self.segments}
        shared, own = ({id(p) for p in group} for group in (self.parameters.shared, self.parameters.own))
        users: dict[Node, Segment] = {}
        for segment in self.segments:
            walk = Walk.of([segment.root])
            segment.leaves = [leaf for leaf in walk.leaves if id(leaf) in self.of_leaf]
            segment.level = max((self.of_leaf[id(leaf)].level + 1 for leaf in segment.leaves), default=0)
            segment.shared = [leaf for leaf in walk.leaves if id(leaf) in shared]
            segment.lookups = find_lookups(walk.nodes, segment.shared)
            segment.own = [leaf for leaf in walk.leaves if id(leaf) in own]
            for node in walk.nodes:
                if (user := users.setdefault(node, segment)) is not segment:
                    user.is_reused = segment.is_reused = True

    def _allocate(self, levels: list[list[Segment]]) -> list[BlockRows]:
        """Return the rows for the parameters of each level, and those for the parameters of several levels."""
        reached = [{id(p): p for segment in level for p in segment.shared} for level in levels]
        count = Counter(identity for parameters in reached for identity in parameters)
        rest = {identity: p for parameters in reached for identity, p in parameters.items() if count[identity] > 1}
        blocks = []
        for level, parameters in zip(levels, reached, strict=True):
            block = {identity: p for identity, p in parameters.items() if count[identity] == 1}
            blocks.append(block | {identity: table.stand_in for identity, table in self._compact(level, block)})
        entries = self.tasks * max((sum(p.numel() for p in block.values()) for block in blocks), default=0)
        if entries > len(self.storage):
            self.storage = self.storage.new_empty(entries)
            self.blocks = {}
        return [*(self._rows(block, self.storage) for block in blocks), self._rows(rest, None)]

    def _compact(self, level: list[Segment], block: Mapping[int, Tensor]) -> Iterator[tuple[int, CompactTable]]:
        """Yield the tables of a block of which the segments of its level use fewer rows than there are."""
        for identity, table in block.items():
            users = [segment for segment in level if any(p is table for p in segment.shared)]
            if all(identity in segment.lookups for segment in users):
                compact = CompactTable(table, [node for segment in users for node in segment.lookups[identity]])
                if compact.size < len(table):
                    self.tables[identity] = compact
                    yield identity, compact

    def _rows(self, parameters: Mapping[int, Tensor], storage: Tensor | None) -> BlockRows:
        key = (storage is None, *((identity, p.shape) for identity, p in parameters.items()))
        if key not in self.blocks:
            self.blocks[key] = BlockRows(parameters, self.tasks, storage, self.device)
        return self.blocks[key]

    def _differentiate(self, segment: Segment, blocks: list[BlockRows]) -> None:
        """Pass the gradient of each task by the root of a segment to what the segment reaches."""
        lookups = [(i, node) for i, nodes in segment.lookups.items() if i in self.tables for node in nodes]
        shared = [p for p in segment.shared if id(p) not in self.tables]
        inputs: list[Any] = [*segment.leaves, *shared, *segment.own, *(output_edge(node) for _, node in lookups)]
        ends = list(accumulate([len(segment.leaves), len(shared), len(segment.own)]))
        for task, cotangent in segment.cotangents.items() if inputs else ():
            gradients = torch.autograd.grad(segment.root, inputs, cotangent, retain_graph=True, allow_unused=True)
            for leaf, gradient in zip(segment.leaves, gradients, strict=False):
                self.of_leaf[id(leaf)].receive(task, gradient)
            by_shared: dict[int, Tensor | None] = dict(zip(map(id, shared), gradients[ends[0] : ends[1]], strict=True))
            accumulate_gradients(segment.own, gradients[ends[1] : ends[2]])
            by_lookups = list(zip(lookups, gradients[ends[2] :], strict=True))
            for identity in dict(lookups):
                of_table = [(node, gradient) for (i, node), gradient in by_lookups if i == identity]
                by_shared[identity] = self.tables[identity].gradient(of_table)
            for rows in blocks:
                rows.put(self.row_of[task], by_shared)
        segment.cotangents = {}

    def descend(self, weights: Mapping[int, Tensor], update: Tensor | None = None) -> None:
        """See `Jacobians.descend`. Call `gramian` first."""
        terms = [graph for graph in self.graphs if graph.terms]
        for graph in terms:
            terms_backward(graph)
        if terms and self.parameters.own:  # which receive no weighted gradients
            self._sweep(own=True)
        for segment, gradients in self.outputs:
            accumulate_gradients([segment.leaf], [combine_cotangents(segment.leaf, gradients, weights)])
        self._sweep(own=False)
        self.start([])  # frees what is left of the graphs

    def _sweep(self, own: bool) -> None:
        """Differentiate the segments from their leaves' `.grad`; the graph is retained if `own`."""
        for segment in sorted(self.segments, key=lambda s: -s.level):
            inputs = [*segment.leaves, *segment.shared, *(segment.own if own else ())]
            gradient, segment.leaf.grad = segment.leaf.grad, None
            if inputs and gradient is not None:
                torch.autograd.backward(segment.root, gradient, inputs=inputs, retain_graph=own or segment.is_reused)
